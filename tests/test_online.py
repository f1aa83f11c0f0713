"""The online server: goes on whatever happens, keeps nobody waiting for somebody else's model, charges what it answers."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from django.db import OperationalError

from apps.catalog.services import Version
from apps.usage import services as usage
from maas import errors, ids, pictures, queue
from tests.conftest import HOME
from tests.fairness import Flow, flow
from tests.fire import charged
from tests.queueing import empty_queue
from tests.tiny import NAME, load_tiny, picture
from workers.online import Server
from workers.online import server as serving
from workers.versions import LOADED

PATIENCE = 60  # seconds


@pytest.fixture(scope="module")
def tiny() -> Version:
    return load_tiny(HOME / "catalogue" / NAME)


@pytest.fixture
def asker(tiny) -> Flow:
    empty_queue()
    return flow("asker", tiny, [pictures.decode(picture())])


@pytest.fixture
def start(tiny, monkeypatch) -> Iterator[Callable[..., Server]]:
    """Starts a server in this process, which serves until the test ends; the catalogue of other tests is not its matter."""
    monkeypatch.setattr(serving.catalog, "shared_versions", lambda: iter([tiny]))
    running: list[tuple[Server, threading.Thread]] = []

    def started(**how: Any) -> Server:
        server = Server(**how)
        thread = threading.Thread(target=server.run)
        thread.start()
        running.append((server, thread))
        return server

    yield started
    for server, thread in running:
        server.stop()
        thread.join(30)
        assert not thread.is_alive()


def outcome(call: queue.Call) -> str:
    """Whether a call was answered, or which error it got."""
    answer = queue.wait(call.id, PATIENCE)
    assert answer is not None
    return answer.error["kind"] if answer.error else "answered"


def test_a_call_is_answered_charged_and_told_its_batch(asker, start) -> None:
    calls = [asker.push() for _ in range(3)]
    start()
    answers = [queue.wait(call.id, PATIENCE) for call in calls]
    assert [answer.batch for answer in answers if answer] == [3, 3, 3]
    assert charged(asker.tenant) == {call.id.hex: 3 for call in calls}


def test_settlement_can_be_replaced(asker, start) -> None:
    settled = []
    start(settle=lambda lines: settled.append(lines) or {line.source for _, line in lines})
    assert outcome(asker.push()) == "answered"
    assert len(settled) == 1 and charged(asker.tenant) == {}


def test_a_runner_that_meets_an_unforeseen_error_answers_its_callers_and_goes_on(asker, start) -> None:
    errors_left = [RuntimeError("unforeseen"), OperationalError("away")]

    def settle(lines: list[tuple[Any, usage.UsageLine]]) -> set[str]:
        if errors_left:
            raise errors_left.pop(0)
        return usage.settle_calls(lines)

    start(settle=settle)
    assert [outcome(asker.push()) for _ in range(3)] == ["Internal", "Unavailable", "answered"]


def test_what_is_raised_outside_of_a_batch_ends_no_runner(asker, start, monkeypatch) -> None:
    failures, take = iter([RuntimeError("unforeseen")] * 4), queue.take

    def failing(*given: Any, **more: Any) -> queue.Batch:
        for error in failures:
            raise error
        return take(*given, **more)

    monkeypatch.setattr(queue, "take", failing)
    start()
    assert outcome(asker.push()) == "answered"


def test_a_model_that_is_being_loaded_keeps_nobody_else_waiting(asker, start, monkeypatch) -> None:
    slow, loaded, ready = uuid4(), threading.Event(), serving._ready

    def loading(version_id: Any) -> Any:
        if version_id != slow:
            return ready(version_id)
        return ready(asker.version.id) if loaded.is_set() else None

    monkeypatch.setattr(serving, "_ready", loading)
    waits = replace(asker.push(), version_id=slow, id=ids.uuid7())
    queue.push(waits)
    start()
    assert [outcome(asker.push()) for _ in range(5)] == ["answered"] * 5
    assert queue.wait(waits.id, 0.2) is None and queue.depths()[slow] == 1
    loaded.set()
    assert outcome(waits) == "answered"


def test_a_model_that_cannot_be_loaded_is_said_to_its_callers(asker, start, monkeypatch) -> None:
    broken, ready = uuid4(), serving._ready

    def raising(version_id: Any) -> Any:
        if version_id == broken:
            raise errors.Unavailable("This model could not be loaded. Nothing was charged.", code="model_unavailable")
        return ready(version_id)

    monkeypatch.setattr(serving, "_ready", raising)
    call = asker.push()
    lost = replace(call, version_id=broken, id=ids.uuid7())
    queue.push(lost)
    start()
    found = queue.wait(lost.id, PATIENCE)
    assert found and found.error and found.error["code"] == "model_unavailable"
    assert outcome(call) == "answered"


def test_a_call_that_a_dead_server_had_charged_is_not_answered_twice(asker, start) -> None:
    """It ran and was charged, and its answer is lost: the caller hears of a failure, and takes the charge back."""
    call = asker.push()
    version, predictor = LOADED.get(asker.version.id)
    held = queue.take("dead/0", 32)
    serving.answer_calls(version, predictor, held.calls, usage.settle_calls)
    queue.beat("dead", ["dead/0"], ready=False)
    queue.connect().zincrby("maas:online:servers", -10, "dead/0")
    start()
    assert outcome(call) == "Unavailable"
    assert len(charged(asker.tenant)) == 1


def test_a_server_is_ready_when_its_models_are_and_leaves_when_it_stops(asker, start, monkeypatch) -> None:
    prepared, get = [], LOADED.get
    monkeypatch.setattr(LOADED, "get", lambda version_id: prepared.append(version_id) or get(version_id))
    server = start()
    end = time.monotonic() + PATIENCE
    while not queue.alive() and time.monotonic() < end:
        time.sleep(0.05)
    assert server.is_warm and prepared == [asker.version.id]
    assert queue.connect().zcard("maas:online:servers") >= len(server.runners)
    server.stop()
    while queue.alive() and time.monotonic() < end:
        time.sleep(0.05)
    assert queue.connect().zcard("maas:online:servers") == 0


def test_a_stop_lets_the_batch_in_hand_finish(asker, start) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(lines: list[tuple[Any, usage.UsageLine]]) -> set[str]:
        begun.set()
        go_on.wait(PATIENCE)
        return usage.settle_calls(lines)

    server, call = start(settle=slow), asker.push()
    assert begun.wait(PATIENCE)
    server.stop()
    go_on.set()
    assert outcome(call) == "answered"


def test_runners_work_at_the_same_time(asker, start, settings_of) -> None:
    """Each waits in its settlement until the other is there too."""
    both = threading.Barrier(2, timeout=PATIENCE)

    def meeting(lines: list[tuple[Any, usage.UsageLine]]) -> set[str]:
        both.wait()
        return usage.settle_calls(lines)

    calls = [asker.push() for _ in range(2)]
    with settings_of(MAAS_BATCH_LIMIT=1, MAAS_RUNNERS=2):
        start(settle=meeting)
        assert [outcome(call) for call in calls] == ["answered"] * 2
