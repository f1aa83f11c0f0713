"""The application that the web server runs: a fast lane in the event loop for what is called most, and Django in threads for all else."""

from collections.abc import Awaitable, Callable
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


class Lane(Protocol):
    """See `apps.inference.lane`, which the settings name: what stands below does not know what stands above."""

    def fits(self, scope: Scope, headers: Headers) -> bool: ...
    async def serve(self, request_id: str, path: str, headers: Headers, body: bytes, receive: Receive) -> Reply: ...


class Application:
    """An ASGI application for HTTP. `lane` is made by the first request, inside of the event loop."""

    def __init__(self, lane: Callable[[], Lane], threads: int) -> None:
        self._make_lane = lane
        self._lane: Lane | None = None
        self._long_way = WSGIMiddleware(django, workers=threads)  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        lane = self._lane = self._lane or self._make_lane()
        headers = dict(scope["headers"])
        try:
            if lane.fits(scope, headers) and _is_ours(headers.get(b"host", b"")):
                receive = _Kept(await _read(receive), receive)
                await _serve(lane, scope, headers, receive, send)
                return
        except Declined as declined:
            scope[declined.mark] = True
        except Gone:
            return
        await self._long_way(scope, _or_gone(receive), _while_there(send))  # type: ignore[arg-type]


async def _serve(lane: Lane, scope: Scope, headers: Headers, kept: "_Kept", send: Send) -> None:
    request_id = ids.encode(ids.REQUEST, ids.uuid7())
    reply = await lane.serve(request_id, scope["path"], headers, kept.body, kept.receive)
    await _answer(reply, request_id, send)


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
    """The body of a request. Raises Gone when its caller went away."""
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


def _or_gone(receive: Receive) -> Receive:
    """A body that breaks off is an error for whoever reads it, and not its end."""

    async def checked() -> Message:
        message = await receive()
        if message["type"] != "http.request":
            raise ConnectionResetError("The caller went away.")
        return message

    return checked


def _while_there(send: Send) -> Send:
    """What is written for a caller that went away is thrown away: the thread that writes it must not wait for ever."""
    gone = False

    async def sent(message: Message) -> None:
        nonlocal gone
        if gone:
            return
        try:
            await send(message)
        except (OSError, RuntimeError):
            gone = True

    return sent


application = Application(import_string(settings.MAAS_LANE), settings.MAAS_WEB_THREADS)
