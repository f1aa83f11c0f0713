"""Trips to Redis. redis-py makes and configures connections; the commands of the hot path go over them packed, a trip at
a time, because its general client takes several times as long for each."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
import redis

ANSWER_SECONDS = 10.0  # that Redis may take to answer
SLEEP_SECONDS = 30.0  # the same beside what a command blocks: who waits for nothing certain has time
Command = Sequence[str | bytes | int | float]


class Script:
    """A Lua script that is called by its hash, and sent whole to a Redis that does not know it (yet, or any more)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Lines:
    """Connections to one Redis, each used by one thread at a time; as many as there are trips at once.

    `client` has the settings of the connections, `seconds` is the longest that a command blocks, `patience` how long an answer
    may take. All methods raise redis.RedisError.
    """

    def __init__(self, client: Callable[[], redis.Redis], seconds: float = 0.0, *, patience: float | None = None) -> None:
        self._patience = patience or (seconds + SLEEP_SECONDS if seconds else ANSWER_SECONDS)
        self._client = client
        self._idle: list[redis.Connection] = []

    def ask(self, *commands: Command) -> list[Any]:
        """The answers to commands that are sent together; the first that is an error is raised."""
        packed = b"".join(map(hiredis.pack_command, map(tuple, commands)))  # type: ignore[arg-type]
        try:
            line = self._idle.pop()
        except IndexError:
            return self._talk(self._connect(), packed, len(commands))
        try:
            return self._talk(line, packed, len(commands))
        except redis.ConnectionError:
            self._idle.clear()  # the others are as old
            return self._talk(self._connect(), packed, len(commands))

    def run(self, script: Script, *arguments: str | bytes | int | float, keys: Sequence[str | bytes] = ()) -> Any:
        """What a script returns."""
        try:
            return self.ask(("EVALSHA", script.sha, len(keys), *keys, *arguments))[0]
        except redis.exceptions.NoScriptError:
            return self.ask(("EVAL", script.text, len(keys), *keys, *arguments))[0]

    def _talk(self, line: redis.Connection, packed: bytes, answers: int) -> list[Any]:
        try:
            line.send_packed_command([packed], check_health=False)
            found = [_read(line) for _ in range(answers)]
        except BaseException:
            line.disconnect()  # an answer may still be on its way: nobody else may read it
            raise
        self._idle.append(line)
        for one in found:
            if isinstance(one, redis.ResponseError):
                raise one
        return found

    def _connect(self) -> redis.Connection:
        pool = self._client().connection_pool
        line = pool.connection_class(**{**pool.connection_kwargs, "socket_timeout": self._patience})
        line.connect()
        return line  # type: ignore[no-any-return]


def _read(line: redis.Connection) -> Any:
    """One answer, errors included: all that were asked for have to be read."""
    try:
        return line.read_response()
    except redis.ResponseError as error:
        return error
