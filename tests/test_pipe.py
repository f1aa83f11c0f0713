"""The one connection to Redis of an event loop: packets, replies in their order, and what breaks it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from django.conf import settings
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection

from maas import pipe as pipes
from maas import queue
from maas.lines import Script
from maas.pipe import Pipe

Work = Callable[[Pipe], Awaitable[Any]]
PAUSE_MS = 1500


def client() -> Redis:
    return Redis.from_url(settings.REDIS_URL, socket_connect_timeout=2, client_name="pipe-test")


def with_pipe(work: Work) -> Any:
    """What `work` returns; the pipe is closed, and no task outlives it."""

    async def run() -> Any:
        pipe = Pipe(client)
        try:
            return await asyncio.wait_for(work(pipe), 20)
        finally:
            pipe.close()
            await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            assert len(asyncio.all_tasks()) == 1

    return asyncio.run(run())


@pytest.fixture
def packets(monkeypatch) -> list[bytes]:
    """What was written, packet by packet, without the greeting of a connection."""
    found, real = [], AbstractConnection.send_packed_command

    async def listen(self: AbstractConnection, command: Any, check_health: bool = True) -> None:
        if check_health is False and isinstance(command, list) and len(command) == 1:
            found.append(command[0])
        await real(self, command, check_health)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", listen)
    return found


def end_connections() -> int:
    """Redis breaks the connections of these tests."""
    mine = [one["id"] for one in queue.connect().client_list() if one["name"] == "pipe-test"]
    return sum(queue.connect().client_kill_filter(_id=one) for one in mine)


@contextmanager
def paused(milliseconds: int = PAUSE_MS) -> Iterator[None]:
    """A Redis that takes commands and answers none."""
    queue.connect().client_pause(milliseconds)
    try:
        yield
    finally:
        queue.connect().ping()  # until it is over: other tests need it


def test_what_is_asked_in_one_moment_goes_in_one_packet_and_comes_back_in_order(packets) -> None:
    async def work(pipe: Pipe) -> list[bytes]:
        await pipe.ask(("PING",))
        packets.clear()
        return await asyncio.gather(*(pipe.ask(("ECHO", f"{n}")) for n in range(500)))

    assert with_pipe(work) == [b"%d" % n for n in range(500)]
    assert sum(b"ECHO" in packet for packet in packets) == 1


def test_what_is_asked_while_the_connection_is_made_is_sent_once(packets) -> None:
    async def work(pipe: Pipe) -> list[bytes]:
        first = pipe.ask(("ECHO", "first"))
        await asyncio.sleep(0)
        return await asyncio.gather(first, *(pipe.ask(("ECHO", f"{n}")) for n in range(5)))

    assert with_pipe(work) == [b"first", b"0", b"1", b"2", b"3", b"4"]
    assert b"".join(packets).count(b"ECHO") == 6


def test_an_error_goes_to_who_asked_for_it_alone() -> None:
    async def work(pipe: Pipe) -> list[Any]:
        asked = [pipe.ask(("ECHO", "a")), pipe.ask(("NO-SUCH",)), pipe.ask(("ECHO", "b"))]
        return await asyncio.gather(*asked, return_exceptions=True)

    first, error, last = with_pipe(work)
    assert (first, last) == (b"a", b"b") and isinstance(error, redis.ResponseError)


def test_a_script_that_redis_forgot_is_sent_whole() -> None:
    script = Script("return {ARGV[1], #KEYS}")

    async def work(pipe: Pipe) -> list[Any]:
        queue.connect().script_flush()
        return [await pipe.run(script, "x", keys=["k"]), await pipe.run(script, "y")]

    assert with_pipe(work) == [[b"x", 1], [b"y", 0]]


def test_a_connection_that_broke_is_made_anew() -> None:
    async def work(pipe: Pipe) -> list[Any]:
        await pipe.ask(("PING",))
        waits = pipe.ask(("BLPOP", "pipe-test-nothing", 0))
        await asyncio.sleep(0.05)
        assert end_connections() == 1
        with pytest.raises(redis.ConnectionError):
            await waits
        return await asyncio.gather(*(pipe.ask(("ECHO", f"{n}")) for n in range(3)))

    assert with_pipe(work) == [b"0", b"1", b"2"]


def test_a_connection_that_broke_while_nobody_waited_is_made_anew() -> None:
    async def work(pipe: Pipe) -> bytes:
        await pipe.ask(("PING",))
        assert end_connections() == 1
        await asyncio.sleep(0.05)
        return await pipe.ask(("ECHO", "x"))

    assert with_pipe(work) == b"x"


def test_who_stops_waiting_does_not_shift_the_replies() -> None:
    async def work(pipe: Pipe) -> list[bytes]:
        await pipe.ask(("PING",))
        asked = [pipe.ask(("ECHO", f"{n}")) for n in range(4)]
        asked[1].cancel()
        later = pipe.ask(("ECHO", "later"))
        return [await asked[0], await asked[2], await asked[3], await later]

    assert with_pipe(work) == [b"0", b"2", b"3", b"later"]


def test_a_redis_that_says_nothing_fails_who_waits_and_is_asked_anew(monkeypatch) -> None:
    monkeypatch.setattr(pipes, "ANSWER_SECONDS", 0.3)

    async def work(pipe: Pipe) -> bytes:
        await pipe.ask(("PING",))
        with paused():
            asked = [pipe.ask(("ECHO", f"{n}")) for n in range(3)]
            told = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(one) for one in told} == {redis.ConnectionError}
        return await pipe.ask(("ECHO", "x"))

    assert with_pipe(work) == b"x"


def test_a_redis_that_says_nothing_for_long_is_given_up_each_time(monkeypatch) -> None:
    monkeypatch.setattr(pipes, "ANSWER_SECONDS", 0.2)

    async def work(pipe: Pipe) -> bytes:
        await pipe.ask(("PING",))
        with paused():
            for _ in range(2):
                with pytest.raises(redis.RedisError):
                    await pipe.ask(("PING",))
        return await pipe.ask(("ECHO", "x"))

    assert with_pipe(work) == b"x"


def test_a_redis_that_is_away_is_told_at_once() -> None:
    async def work(_: Pipe) -> None:
        pipe = Pipe(lambda: Redis.from_url("redis://127.0.0.1:1"))
        for _ in range(2):
            with pytest.raises(redis.ConnectionError):
                await pipe.ask(("PING",))
        pipe.close()

    with_pipe(work)


def test_whatever_ends_the_connection_everybody_is_told_and_nothing_shifts(monkeypatch) -> None:
    async def work(pipe: Pipe) -> bytes:
        await pipe.ask(("PING",))
        waits = pipe.ask(("BLPOP", "pipe-test-nothing", 0))
        await asyncio.sleep(0.05)
        pipe._waiting.appendleft(None)  # type: ignore[arg-type]  # as a flaw of ours would: handing on fails
        queue.connect().lpush("pipe-test-nothing", "x")
        with pytest.raises(redis.ConnectionError):
            await waits
        return await pipe.ask(("ECHO", "mine"))

    assert with_pipe(work) == b"mine"


def test_who_waits_is_told_of_the_end() -> None:
    async def work(pipe: Pipe) -> None:
        await pipe.ask(("PING",))
        waits, unsent = pipe.ask(("BLPOP", "pipe-test-nothing", 0)), None
        await asyncio.sleep(0.05)
        unsent = pipe.ask(("PING",))
        pipe.close()
        told = await asyncio.gather(waits, unsent, return_exceptions=True)
        assert {type(one) for one in told} == {redis.ConnectionError}

    with_pipe(work)
