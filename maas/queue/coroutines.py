"""The callers' side of the online queue for an event loop, where thousands can wait at once: what `callers` is for threads."""

import asyncio
import time
from collections.abc import Sequence
from uuid import UUID, uuid4

import redis
import structlog
from django.conf import settings
from redis.asyncio import Redis

from maas import errors
from maas.limits import Limit, Verdict, keys_of
from maas.pipe import Pipe
from maas.queue import scripts
from maas.queue.callers import BLOCK, LIFE, MANY, PATIENCE, Stale, arguments_of, outcome_of, unreachable
from maas.queue.calls import PREFIX, Answer, Call, read_answer

log = structlog.get_logger(__name__)


class LoopCallers:
    """The callers of one event loop; made inside of it."""

    def __init__(self) -> None:
        self.name = uuid4().bytes
        self._list = PREFIX.encode() + b"replies:" + self.name
        self._key = PREFIX.encode() + b"caller:" + self.name
        self._asking, self._reading = Pipe(_client), Pipe(_client, BLOCK)
        self._waiting: dict[bytes, asyncio.Future[Answer | None]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._told = 0.0  # when Redis last heard of this process from the reader; every push tells it too

    async def push(
        self, call: Call, *, counted: Sequence[Limit] = (), stamps: bytes = b""
    ) -> tuple[Verdict, errors.Overloaded | None]:  # fmt: skip
        """Put a call in line, and expect its answer until `forget`. How its rate limits stand comes back, and why there is no room.

        In line is what passed its limits and has room. Raises Stale when `stamps` are no longer those of the call's tenant and of
        everybody (`maas.stamps`), and Unavailable when Redis does not answer: then it may be in line all the same.
        """
        self.expect(call.id)
        if self._reader is None or self._reader.done():
            self._reader = asyncio.get_running_loop().create_task(self._read())
        try:
            found = await self._asking.run(scripts.PUSH, *arguments_of(call, self.name, counted, stamps), keys=keys_of(counted))
            verdict, refusal = outcome_of(found, counted)
        except redis.RedisError:
            self.forget(call.id)
            raise unreachable() from None
        except Stale:
            self.forget(call.id)
            raise
        if refusal or not verdict.passed:
            self.forget(call.id)
        return verdict, refusal

    def expect(self, call_id: UUID) -> "asyncio.Future[Answer | None]":
        """Wait for the answer to a call."""
        found = self._waiting[call_id.bytes] = asyncio.get_running_loop().create_future()
        return found

    def expected(self, call_id: UUID) -> "asyncio.Future[Answer | None]":
        """The answer to a call that was pushed; None when it was roused."""
        return self._waiting[call_id.bytes]

    def rouse(self, call_id: UUID) -> None:
        """Tell who waits for a call None. An answer that comes from this moment on is for who asks for `expected` again."""
        waiter = self._waiting.get(call_id.bytes)
        if waiter and not waiter.done():
            self.expect(call_id)
            waiter.set_result(None)

    def forget(self, call_id: UUID) -> None:
        """Expect no answer any more."""
        self._waiting.pop(call_id.bytes, None)

    async def cancel(self, call: Call) -> None:
        """Say that the caller went away, so that no server begins with the call."""
        try:
            await self._asking.ask((b"HDEL", PREFIX.encode() + b"bodies:" + call.version_id.bytes, call.id.bytes))
        except redis.RedisError as error:
            log.warning("a call is left to its deadline", call=str(call.id), error=str(error))

    def close(self) -> None:
        """End with the loop."""
        if self._reader:
            self._reader.cancel()
        self._asking.close()
        self._reading.close()

    # ---------- the reader ----------
    async def _read(self) -> None:
        """Hand on answers while somebody waits."""
        while self._waiting:
            try:
                for item in await self._fetch():
                    self._wake(item)
            except redis.RedisError as error:
                log.warning("answers cannot be read, trying again", error=str(error))
                await asyncio.sleep(PATIENCE)
            except Exception:
                log.exception("an answer could not be handed on")

    async def _fetch(self) -> list[bytes]:
        if time.monotonic() - self._told > LIFE / 4:
            await self._asking.ask((b"SET", self._key, 1, b"EX", LIFE))
            self._told = time.monotonic()
        found = await self._reading.ask((b"BLMPOP", BLOCK, 1, self._list, b"LEFT", b"COUNT", MANY))
        return found[1] if found else []

    def _wake(self, item: bytes) -> None:
        waiter = self._waiting.get(item[:16])
        if waiter and not waiter.done():  # the others have given up, or have their answer
            waiter.set_result(read_answer(item[16:]))


def _client() -> Redis:
    return Redis.from_url(settings.REDIS_URL, socket_connect_timeout=2, socket_keepalive=True)
