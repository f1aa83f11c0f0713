"""Calls for tests of the online queue, which is emptied before: whatever waits there would be taken first."""

import time
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from maas import ids, limits, queue

RUNNER = "test/0"


def empty_queue() -> None:
    """Forget everything that waits."""
    keys = list(queue.connect().scan_iter("maas:online:*", count=1000))
    if keys:
        queue.connect().delete(*keys)


def call(version: UUID, tenant: UUID, n: int = 1, seconds: float = 30, weight: int = 1, inputs: list[Any] | None = None) -> queue.Call:
    """A call of `n` inputs, each as heavy as a short one."""
    now = time.time()
    return queue.Call(
        ids.uuid7(), tenant, uuid4(), version, inputs or [b"\x00\xff"] * n, {"top_k": 1}, now, now + seconds, n, ids.uuid7(), n, weight
    )


def push(version: UUID, tenant: UUID, times: int = 1, **what: Any) -> list[queue.Call]:
    """So many equal calls in line."""
    found = [call(version, tenant, **what) for _ in range(times)]
    for one in found:
        queue.push(one)
    return found


def take(limit: int = 32, runner: str = RUNNER, **more: Any) -> list[queue.Call]:
    """The calls of one batch, let go of without an answer."""
    batch = queue.take(runner, limit, **more)
    if batch.calls:
        queue.answer(runner, batch, {})
    return batch.calls


def drain(limit: int = 32) -> list[list[queue.Call]]:
    """Batch after batch until nothing waits."""
    taken = []
    while batch := take(limit):
        taken.append(batch)
    return taken


def replace_nudge(monkeypatch: pytest.MonkeyPatch, function: Callable[..., object]) -> None:
    """Call `function` in place of sending Celery a message, at once or after a commit."""
    monkeypatch.setattr(queue, "nudge", function)
    monkeypatch.setattr(queue.nudges, "nudge", function)


def answer_at_once(monkeypatch: pytest.MonkeyPatch, answer: queue.Answer) -> list[queue.Call]:
    """The calls that are put in line from now on; each is counted and gets this answer without a server."""
    calls: list[queue.Call] = []

    def push(call: queue.Call, *, counted: Any, note: Any) -> None:
        note(limits.take(counted))
        calls.append(call)

    monkeypatch.setattr(queue, "push", push)
    monkeypatch.setattr(queue, "wait", lambda call_id, seconds: answer)
    return calls
