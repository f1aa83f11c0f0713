"""The application that the web server runs: a fast lane in the event loop for what is called most, and Django in threads for all else."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import cache, lru_cache
from typing import Any, Protocol

import structlog
from a2wsgi import WSGIMiddleware
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.request import split_domain_port, validate_host
from django.middleware.security import SecurityMiddleware
from django.utils.module_loading import import_string

from maas import ids
from maas.fast import Declined, Gone, Reply
from maas.wsgi import application as django

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = dict[bytes, bytes]

log = structlog.get_logger(__name__)
BODY_SECONDS = 30.0  # that a small body may take to come, and each piece of a large one
SEND_SECONDS = 60.0  # that a caller may take to read a piece of an answer
LONG = 256 * 1024  # bytes of an answer from which on it is watched whether its caller is still there
CALLER = "maas.caller"  # in the scope of a request on the long way


class Lane(Protocol):
    """See `apps.inference.lane`, which the settings name: what stands below does not know what stands above."""

    def fits(self, scope: Scope, headers: Headers) -> bool: ...
    async def serve(self, request_id: str, path: str, headers: Headers, body: bytes, receive: Receive) -> Reply: ...


class Application:
    """An ASGI application for HTTP. `lane` is made by the first request, inside of the event loop."""

    def __init__(self, lane: Callable[[], Lane], threads: int) -> None:
        self._make_lane = lane
        self._lane: Lane | None = None
        self._threads = WSGIMiddleware(_answered, workers=threads)  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        lane = self._lane = self._lane or self._make_lane()
        scope["headers"] = [(name, value) for name, value in scope["headers"] if b"_" not in name]  # to WSGI a _ is a -
        headers = dict(scope["headers"])
        try:
            if lane.fits(scope, headers) and _is_plain(scope, headers):
                receive = _Kept(await _read(receive), receive)
                await _serve(lane, scope, headers, receive, send)
                return
        except Declined as declined:
            scope[declined.mark] = True
        except Gone:
            return
        await self._long_way(scope, receive, send)

    async def _long_way(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = scope[CALLER] = _Caller(receive, send)
        try:
            await self._threads(scope, caller.receive, caller.send)  # type: ignore[arg-type]
        finally:
            caller.let_go()


async def _serve(lane: Lane, scope: Scope, headers: Headers, kept: "_Kept", send: Send) -> None:
    request_id = ids.encode(ids.REQUEST, ids.uuid7())
    reply = await lane.serve(request_id, scope["path"], headers, kept.body, kept.receive)
    await _answer(reply, request_id, send)


def _is_plain(scope: Scope, headers: Headers) -> bool:
    """A request whose host is one of ours, and that says nothing twice."""
    return _is_ours(headers.get(b"host", b"")) and len(headers) == len(scope["headers"])


@lru_cache(maxsize=256)
def _is_ours(host: bytes) -> bool:
    """Whether a request is for this host; if not, Django says so."""
    domain, _ = split_domain_port(host.decode("latin-1"))
    return bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)


async def _answer(reply: Reply, request_id: str, send: Send) -> None:
    headers = [*_standing(), (b"content-length", b"%d" % len(reply.body)), (b"x-request-id", request_id.encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in reply.headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


@cache
def _standing() -> list[tuple[bytes, bytes]]:
    """The headers of every answer, as Django's middleware makes them."""
    found = HttpResponse(content_type="application/json")
    SecurityMiddleware(lambda request: found)(HttpRequest())
    found["Cache-Control"] = "private"  # a proxy's cache must not hand it to anybody else
    return [(name.lower().encode(), value.encode()) for name, value in found.items()]


async def _read(receive: Receive) -> bytes:
    """The body of a request. Raises Gone when its caller went away, or does not send it."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _whole(receive)
    except TimeoutError:
        raise Gone from None


async def _whole(receive: Receive) -> bytes:
    found = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Gone
        found += message.get("body", b"")
        if not message.get("more_body"):
            return found


class _Kept:
    """A body that was read, for whoever has to read it once more."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self.body, self.receive, self._is_told = body, receive, False

    async def __call__(self) -> Message:
        if self._is_told:
            return await self.receive()
        self._is_told = True
        return {"type": "http.request", "body": self.body, "more_body": False}


class _Caller:
    """The caller of a request on the long way, whose threads must not wait for it for ever."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self.has_gone = False
        self._receive, self._send = receive, send
        self._watch: asyncio.Task[None] | None = None

    async def receive(self) -> Message:
        """A piece of the body; one that breaks off, or does not come, is an error for whoever reads it, and not its end."""
        async with asyncio.timeout(BODY_SECONDS):
            message = await self._receive()
        if message["type"] != "http.request":
            raise ConnectionResetError("The caller went away.")
        return message

    async def send(self, message: Message) -> None:
        """What is written for a caller that went away, or reads nothing, is thrown away."""
        if self.has_gone:
            return
        if message["type"] == "http.response.start" and _is_long(dict(message["headers"])):
            self._watch = asyncio.get_running_loop().create_task(self._see_it_go())
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._send(message)
        except Exception:
            self.has_gone = True

    async def _see_it_go(self) -> None:
        """The server says nothing to those who write to a caller that has left."""
        while (await self._receive())["type"] == "http.request":
            pass
        self.has_gone = True

    def let_go(self) -> None:
        """The request is over."""
        if self._watch:
            self._watch.cancel()


def _is_long(headers: Headers) -> bool:
    return int(headers.get(b"content-length", LONG)) >= LONG


def _answered(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
    """Django's answer, piece by piece for as long as its caller is there."""
    caller: _Caller = environ["asgi.scope"][CALLER]
    pieces: Any = django(environ, start_response)
    try:
        for piece in pieces:
            if caller.has_gone:
                return
            if piece:
                yield piece
    finally:
        pieces.close()


application = Application(import_string(settings.MAAS_LANE), settings.MAAS_WEB_THREADS)
