"""Trips to Redis. redis-py makes and configures connections; the commands of the hot path go over them packed, a trip at
a time, because its general client takes several times as long for each."""

import hashlib
import os
from collections.abc import Sequence
from typing import Any

import hiredis
import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

ONCE_MORE = Retry(NoBackoff(), 1)  # a pooled connection may have died unnoticed; a server that is away is told at once
ANSWER_SECONDS = 10.0  # that Redis may take to answer
SLEEP_SECONDS = 30.0  # the same beside what a command blocks: who waits for nothing certain has time
Command = Sequence[str | bytes | int | float]

_client: redis.Redis | None = None


class Script:
    """A Lua script that is called by its hash, and sent whole to a Redis that does not know it (yet, or any more)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Lines:
    """Connections to one Redis, each used by one thread at a time; as many as there are trips at once.

    `seconds` is the longest that a command blocks. All methods raise redis.RedisError.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._patience = seconds + SLEEP_SECONDS if seconds else ANSWER_SECONDS
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

    def run(self, script: Script, *arguments: str | bytes | int | float) -> Any:
        """What a script returns."""
        try:
            return self.ask(("EVALSHA", script.sha, 0, *arguments))[0]
        except redis.exceptions.NoScriptError:
            return self.ask(("EVAL", script.text, 0, *arguments))[0]

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
        pool = connect().connection_pool
        line = pool.connection_class(**{**pool.connection_kwargs, "socket_timeout": self._patience})
        line.connect()
        return line  # type: ignore[no-any-return]


def _read(line: redis.Connection) -> Any:
    """One answer, errors included: all that were asked for have to be read."""
    try:
        return line.read_response()
    except redis.ResponseError as error:
        return error


def connect() -> redis.Redis:
    """This process's Redis client, made on first use."""
    global _client
    if _client is None:
        _client = redis.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=2, socket_keepalive=True, retry=ONCE_MORE)
    return _client


def _start_anew() -> None:
    """A child of a fork makes connections of its own."""
    global _client, LINES
    _client, LINES = None, Lines()


LINES = Lines()
os.register_at_fork(after_in_child=_start_anew)
