"""The callers' side of the online queue: push, wait, give up.

All answers for a process come in one list in Redis, which one thread reads to wake the callers: many answers a trip, and
no trip of a caller's own. The thread is started by the first call after a fork and outlives every error.
"""

import atexit
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID, uuid4

import redis
import structlog
from django.conf import settings

from maas import errors
from maas.limits import Limit, Verdict, figures_of, keys_of, verdict_of
from maas.lines import Lines
from maas.queue import scripts, store
from maas.queue.calls import PREFIX, Answer, Call, pack_body, read_answer, ticket_of

log = structlog.get_logger(__name__)
BLOCK = 2.0  # seconds that the reader sleeps in Redis; as long after the last answer it rests
LIFE = 30  # seconds after which a process that says nothing counts as dead
MANY = 256  # answers of one trip
PATIENCE = 0.2  # seconds between attempts to reach Redis


class Stale(Exception):
    """What a call was prepared by has changed since: it is not in line, and was not counted."""


class Waiter:
    """One caller. The lock is held until its answer is there: the cheapest thing that a thread can sleep on."""

    __slots__ = ("lock", "packed")

    def __init__(self) -> None:
        self.packed: bytes | None = None
        self.lock = threading.Lock()
        self.lock.acquire()


class Replies:
    """The callers of this process, and the thread that wakes them."""

    def __init__(self) -> None:
        self.name = uuid4().bytes
        self.list = PREFIX.encode() + b"replies:" + self.name
        self.waiting: dict[bytes, Waiter] = {}
        self.has_ended = False
        self._is_away = False
        self._needed = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._lines = Lines(store.connect, BLOCK)
        self._told = 0.0  # when Redis last heard of this process from the reader; every push tells it too

    def register(self, call_id: bytes) -> None:
        """Expect an answer."""
        self.waiting[call_id] = Waiter()
        if not self._needed.is_set():
            self._needed.set()
        if self._thread is None or not self._thread.is_alive():
            self._start()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._read, name="replies", daemon=True)
                self._thread.start()

    def _read(self) -> None:
        while not self.has_ended:
            try:
                self._needed.wait()
                self._wake(self._fetch())
                self._is_away = False
            except Exception as error:
                self._complain(error)
                time.sleep(PATIENCE)

    def _complain(self, error: Exception) -> None:
        """Once a failure of Redis, every time of anything else."""
        if self.has_ended:
            return
        if not isinstance(error, redis.RedisError):
            log.exception("an answer could not be handed on")
        elif not self._is_away:
            log.warning("answers cannot be read, trying again", error=str(error))
            self._is_away = True

    def _fetch(self) -> list[bytes]:
        """Answers, as soon as there are some. While callers wait this process is known to live."""
        if time.monotonic() - self._told > LIFE / 4:
            self._lines.ask((b"SET", PREFIX.encode() + b"caller:" + self.name, 1, b"EX", LIFE))
            self._told = time.monotonic()
        found = self._lines.ask((b"BLMPOP", BLOCK, 1, self.list, b"LEFT", b"COUNT", MANY))[0]
        if found is None and not self.waiting:
            self._needed.clear()
            if self.waiting:  # one came meanwhile
                self._needed.set()
        return found[1] if found else []

    def _wake(self, items: list[bytes]) -> None:
        for item in items:
            waiter = self.waiting.get(item[:16])
            if waiter and waiter.packed is None:  # the others have given up, or have their answer
                waiter.packed = item[16:]
                waiter.lock.release()


_replies = Replies()


def push(call: Call, *, counted: Sequence[Limit] = (), note: Callable[[Verdict], None] = lambda verdict: None) -> None:
    """Put a call in line, and expect its answer in this process until `forget`, or until `wait` has returned it.

    The rate limits `counted` are asked in the same trip; `note` is told how they stand, and raises what refuses a call that
    does not pass, which is not in line then. Raises Overloaded when the model's queue is full or the tenant waits for too
    much of it, Unavailable when Redis does not answer.
    """
    _replies.register(call.id.bytes)
    try:
        found = store.LINES.run(scripts.PUSH, *arguments_of(call, _replies.name, counted), keys=keys_of(counted))
    except redis.RedisError:
        forget(call.id)
        raise unreachable() from None
    verdict, refusal = outcome_of(found, counted)
    if refusal or not verdict.passed:
        forget(call.id)
    if counted:
        note(verdict)
    if refusal:
        raise refusal


def arguments_of(call: Call, caller: bytes, counted: Sequence[Limit], stamps: bytes = b"") -> tuple[str | bytes | int, ...]:
    """What the script PUSH is given; its keys are those of `counted`."""
    ticket = ticket_of(call, caller)
    figures = figures_of(counted) if counted else ()
    return (
        call.version_id.bytes, call.tenant_id.bytes, call.id.bytes, ticket, pack_body(call), caller, call.work, ticket[44],
        settings.MAAS_QUEUE_LIMIT, stamps, *figures,
    )  # fmt: skip


def outcome_of(found: list[Any], counted: Sequence[Limit]) -> tuple[Verdict, errors.Overloaded | None]:
    """What the script PUSH says: how the limits stand, and why there is no room. Raises Stale."""
    full, seconds, stands = found
    if full == scripts.STALE:
        raise Stale
    return verdict_of(counted, stands), _overloaded(seconds, whole=full == 2) if full else None


def unreachable() -> errors.Unavailable:
    """Redis did not answer to a push."""
    return errors.Unavailable("The queue cannot be reached. Nothing was charged; try again.")


def _overloaded(seconds: int, *, whole: bool) -> errors.Overloaded:
    who = "Too many calls" if whole else "Too many calls of your organisation"
    message = f"{who} wait for this model. Nothing was charged; try again."
    return errors.Overloaded(message, retry_after=min(max(seconds, 1), 60) if seconds >= 0 else 2)


def wait(call_id: UUID, seconds: float) -> Answer | None:
    """The answer to a call that this process pushed, or None when none came in time: then one may wait again."""
    waiter = _replies.waiting.get(call_id.bytes)
    if waiter is None or (waiter.packed is None and not waiter.lock.acquire(timeout=_bounded(seconds))):
        return None
    forget(call_id)
    return read_answer(waiter.packed) if waiter.packed else None


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), threading.TIMEOUT_MAX) if math.isfinite(seconds) else 0.0


def forget(call_id: UUID) -> None:
    """Expect no answer any more; doing it twice changes nothing."""
    _replies.waiting.pop(call_id.bytes, None)


def cancel(call: Call) -> None:
    """Say that the caller of a call went away, so that no server begins with it.

    One that has begun is not stopped; its answer can still be waited for. Nothing is lost when Redis is away: the call
    has a deadline.
    """
    try:
        store.LINES.ask((b"HDEL", PREFIX.encode() + b"bodies:" + call.version_id.bytes, call.id.bytes))
    except redis.RedisError as error:
        log.warning("a call is left to its deadline", call=str(call.id), error=str(error))


def _start_anew() -> None:
    """The child of a fork has callers of its own, and no thread yet."""
    global _replies
    _replies = Replies()


def _end() -> None:
    """A process that ends in good order leaves no calls behind."""
    if _replies._thread:
        _replies.has_ended = True
        try:
            store.LINES.ask((b"DEL", PREFIX.encode() + b"caller:" + _replies.name, _replies.list))
        except redis.RedisError:
            return


os.register_at_fork(after_in_child=_start_anew)
atexit.register(_end)
