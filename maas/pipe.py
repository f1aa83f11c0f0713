"""One connection to Redis for all that an event loop asks: what is asked in one moment goes in one packet, and answers that
come together are read together."""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
import redis
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection

from maas.lines import ANSWER_SECONDS, SLEEP_SECONDS, Command, Script

Reply = asyncio.Future[Any]
CLOSED = "The connection was closed."


class Pipe:
    """A connection that is made when it is needed, and made anew after it broke. One event loop uses it.

    `client` has its settings; `seconds` is the longest that a command blocks. What was asked when the connection broke fails
    with redis.ConnectionError: it may have been done or not.
    """

    def __init__(self, client: Callable[[], Redis], seconds: float = 0.0) -> None:
        self._client = client
        self._patience = seconds + (SLEEP_SECONDS if seconds else ANSWER_SECONDS)
        self._unsent: list[bytes] = []
        self._waiting: deque[Reply] = deque()
        self._read = 0  # replies so far: a sign of life
        self._line: AbstractConnection | None = None
        self._life: asyncio.Task[None] | None = None
        self._writes: set[asyncio.Task[None]] = set()
        self._watch: asyncio.TimerHandle | None = None

    def ask(self, command: Command) -> Reply:
        """The reply to a command, to be awaited: it raises redis.RedisError."""
        loop = asyncio.get_running_loop()
        reply: Reply = loop.create_future()
        self._waiting.append(reply)
        self._unsent.append(hiredis.pack_command(tuple(command)))  # type: ignore[arg-type]
        if len(self._unsent) == 1:
            loop.call_soon(self._send)
        if self._watch is None:
            self._watch = loop.call_later(self._patience, self._look, self._read)
        return reply

    async def run(self, script: Script, *arguments: str | bytes | int | float, keys: Sequence[str] = ()) -> Any:
        """What a script returns."""
        try:
            return await self.ask(("EVALSHA", script.sha, len(keys), *keys, *arguments))
        except redis.exceptions.NoScriptError:
            return await self.ask(("EVAL", script.text, len(keys), *keys, *arguments))

    def close(self) -> None:
        """Let go of the connection; who waits is told."""
        if self._life:
            self._life.cancel()
        if self._watch:
            self._watch.cancel()
        self._fail(CLOSED)

    # ---------- the connection ----------
    def _send(self) -> None:
        """Everything that was asked since the last packet; a connection that is being made sends it itself."""
        if not self._unsent:
            return
        if self._life is None:
            self._life = asyncio.get_running_loop().create_task(self._live())
        elif self._line:
            write = asyncio.get_running_loop().create_task(self._line.send_packed_command(self._packet(), check_health=False))
            self._writes.add(write)
            write.add_done_callback(self._written)

    def _packet(self) -> list[bytes]:
        packet, self._unsent = [b"".join(self._unsent)], []
        return packet

    def _written(self, write: "asyncio.Task[None]") -> None:
        self._writes.discard(write)
        if not write.cancelled() and write.exception() and self._life:
            self._life.cancel()  # what could not be sent will not be answered

    async def _live(self) -> None:
        """Make a connection and read replies until it breaks, for whatever reason: then nobody waits for it any more."""
        line, told = self._connection(), CLOSED
        try:
            await line.connect()
            await line.send_packed_command(self._packet(), check_health=False)
            self._line = line
            if self._unsent:
                self._send()
            while True:
                self._hand_on(await _reply(line))
        except (redis.RedisError, OSError) as error:
            told = f"{error}"
        except asyncio.CancelledError:
            told = CLOSED
        finally:
            self._line = self._life = None  # what is asked from now on makes another
            for write in self._writes:
                write.cancel()  # it would connect anew, and read no reply
            self._fail(told)
            await line.disconnect(nowait=True)

    def _connection(self) -> AbstractConnection:
        pool = self._client().connection_pool
        return pool.connection_class(**{**pool.connection_kwargs, "socket_timeout": None})  # type: ignore[no-any-return]

    def _hand_on(self, reply: Any) -> None:
        self._read += 1
        waiter = self._waiting.popleft()
        if waiter.done():  # whoever asked has gone
            return
        if isinstance(reply, Exception):
            waiter.set_exception(reply)
        else:
            waiter.set_result(reply)

    def _fail(self, message: str) -> None:
        waiting, self._waiting = self._waiting, deque()
        self._unsent = []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_exception(redis.ConnectionError(message))

    def _look(self, read: int) -> None:
        """A Redis that says nothing for so long while somebody waits is given up."""
        self._watch = None
        if not self._waiting:
            return
        if self._read == read and self._life:
            self._life.cancel()
        else:
            self._watch = asyncio.get_running_loop().call_later(self._patience, self._look, self._read)


async def _reply(line: AbstractConnection) -> Any:
    """One reply, errors included: each belongs to somebody."""
    try:
        return await line.read_response(timeout=math.inf)
    except redis.ResponseError as error:
        return error
