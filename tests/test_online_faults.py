"""Online servers killed by signal 9 under load: every caller hears something in time, and the ledger is what was answered.

The full size is `python -m bench.online_faults`.
"""

import asyncio
from collections.abc import Iterator

import pytest

from apps.inference.endings import GRACE_SECONDS
from tests.fire import Platform, platform
from tests.online_faults import SERVERS, _key, call_for, run

SLACK = 2.0  # seconds that a busy machine may take to answer, beside what is promised


@pytest.fixture(scope="module")
def running() -> Iterator[Platform]:
    with platform() as parts:
        yield parts


def test_servers_that_die_under_load_lose_no_caller_and_no_unit(running) -> None:
    report = run(running, seconds=20, seed=5)
    assert report.kills >= 4 and report.outcomes["200"] > 100, report
    assert set(report.outcomes) <= {"200", "503 unavailable", "504 deadline_exceeded"}, report
    assert report.latest < GRACE_SECONDS + SLACK, report
    assert (report.unanswered, report.uncharged, report.reserved) == (0, 0, 0), report


def test_calls_of_a_dead_server_are_answered_by_the_next_one(running) -> None:
    """Both servers die with calls in their hands; who comes after them finds these calls and answers them."""
    running.wait_until_ready()
    key = _key()

    async def calls() -> list:
        asking = asyncio.create_task(call_for(running.port, key.secret, seconds=0.8, callers=16, deadline=60))
        await asyncio.sleep(0.7)
        for name in SERVERS:
            await asyncio.to_thread(running.kill, name)
        return await asking

    outcomes = asyncio.run(calls())
    assert {(one.status, one.code) for one, _ in outcomes} <= {(200, None), (503, "unavailable")}
    assert sum(one.status == 200 for one, _ in outcomes) > len(outcomes) / 2
