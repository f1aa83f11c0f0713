"""Turns by weight through a real online server with several runners: by counts and order, not by speed.

The full size, with times, is `python -m bench.fairness`.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from apps.catalog.services import Version
from maas import pictures, queue
from tests.conftest import HOME
from tests.fairness import Flow, flow
from tests.queueing import empty_queue
from tests.tiny import NAME, load_tiny, picture
from workers.online import Server

LIMIT = 16  # inputs of a batch


@pytest.fixture(scope="module")
def tiny() -> Version:
    return load_tiny(HOME / "catalogue" / NAME)


@pytest.fixture
def server(settings_of) -> Iterator[Server]:
    """A server in this process, started by the test when its calls are in line."""
    empty_queue()
    with settings_of(MAAS_BATCH_LIMIT=LIMIT, MAAS_RUNNERS=2):
        made = Server()
        yield made
        made.stop()


def order_of_answers(server: Server, flows: list[Flow], calls: int) -> list[int]:
    """Whose calls are taken one after another when each tenant had so many waiting before the server came."""
    pushed = [[one.push() for _ in range(calls)] for one in flows]
    taken: list[tuple[float, int]] = []
    running = threading.Thread(target=server.run)
    running.start()
    for number, mine in enumerate(pushed):
        for call in mine:
            answer = queue.wait(call.id, 60)
            assert answer and not answer.error, answer
            taken.append((call.pushed + answer.queue_ms / 1000, number))
    server.stop()
    running.join(30)
    assert not running.is_alive()
    return [number for _, number in sorted(taken)]


def tenants(tiny: Version, *weights: int) -> list[Flow]:
    inputs: list[Any] = [pictures.decode(picture())]
    return [flow(f"weight-{weight}", tiny, inputs, weight=weight) for weight in weights]


def test_two_tenants_with_much_to_do_get_half_each(server, tiny) -> None:
    order = order_of_answers(server, tenants(tiny, 1, 1), 100)
    assert min(Counter(order[:160]).values()) >= 0.45 * 160


def test_weights_share_a_busy_model(server, tiny) -> None:
    order = order_of_answers(server, tenants(tiny, 1, 2, 4), 120)
    shares = Counter(order[:140])
    assert abs(shares[0] - 20) <= 7 and abs(shares[1] - 40) <= 7 and abs(shares[2] - 80) <= 7, shares


def test_a_quiet_tenant_is_in_the_next_batch_whatever_waits_before_it(server, tiny) -> None:
    loud, quiet = tenants(tiny, 16, 1)
    for _ in range(200):
        loud.push()
    order = order_of_answers(server, [loud, quiet], 1)
    assert order == [1, 0]
