"""Server-sent events (HTML standard, section "Server-sent events"): what a caller watches instead of asking again and again."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import orjson
from django.http import StreamingHttpResponse

from maas import env, errors

POLL_SECONDS, PING_SECONDS = 1.0, 15.0
LONGEST_SECONDS = 300.0  # then the caller comes back with Last-Event-ID, maybe to another process
# Each stream holds a thread of the web server, so most threads stay free for calls.
SLOTS = threading.BoundedSemaphore(max(1, env.number("MAAS_WEB_THREADS", 64, least=1) // 4))
PING = b": still here\n\n"


def frame(kind: str, data: Any, *, id: str | None = None) -> bytes:
    """One event on the wire. `id` is what a caller that lost the connection sends back in Last-Event-ID."""
    head = f"id: {id}\n" if id else ""
    return f"{head}event: {kind}\ndata: ".encode() + orjson.dumps(data) + b"\n\n"


def stream(look: Callable[[], tuple[Iterable[bytes], bool]]) -> StreamingHttpResponse:
    """An answer that goes on: `look` gives what is new and whether that was the end, and is asked once a second.

    Raises Unavailable when this process has enough streams open.
    """
    if not SLOTS.acquire(blocking=False):
        raise errors.Unavailable("Too many streams are open. Try again, or ask without 'stream'.", code="too_many_streams", retry_after=5)
    response = StreamingHttpResponse(_Held(_follow(look)), content_type="text/event-stream")
    response["Cache-Control"], response["X-Accel-Buffering"] = "no-store", "no"  # no proxy keeps it or holds it back
    return response


def _follow(look: Callable[[], tuple[Iterable[bytes], bool]]) -> Iterator[bytes]:
    end = time.monotonic() + LONGEST_SECONDS
    said = time.monotonic()
    yield b"retry: 1000\n\n"  # milliseconds until a caller comes back
    while True:
        news, is_over = look()
        for piece in news:
            said = time.monotonic()
            yield piece
        if is_over or time.monotonic() > end:
            return
        is_silent = time.monotonic() - said > PING_SECONDS
        said = time.monotonic() if is_silent else said
        yield PING if is_silent else b""  # nothing: the web server looks whether the caller is still there
        time.sleep(POLL_SECONDS)


class _Held:
    """A body that gives its slot back when the server closes it, even if nothing of it was ever read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._open = pieces, True

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        if self._open:
            self._open = False
            SLOTS.release()
