"""Calls to addresses that customers name, without a way into our own network.

The name is resolved once, every address behind it is checked (`maas.destinations`), and the connection goes to a checked
address: an answer that changes between the check and the call (DNS rebinding) changes nothing. No redirect is followed, no
proxy of the environment is used, and a call ends after 15 s whatever the other side does.
"""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import urllib3
from django.utils.translation import gettext as _
from urllib3.connection import HTTPConnection, HTTPSConnection

from maas.destinations import Destination, Resolve, Unreachable, check_url, resolve

CONNECT_SECONDS, TOTAL_SECONDS = 5.0, 15.0
BODY_LIMIT = HEADERS_LIMIT = 16 * 1024  # bytes of an answer that are read, characters of its headers that are kept


@dataclass(frozen=True)
class Answer:
    """What came back: the status, its headers and at most 16 KB of the body, as text."""

    status: int
    headers: dict[str, str]
    body: str


# ---------- calls ----------
def post(
    url: str, body: bytes, headers: Mapping[str, str], *, resolve: Resolve = resolve, trust: ssl.SSLContext | None = None,
    seconds: float = TOTAL_SECONDS,
) -> Answer:  # fmt: skip
    """Send a body and read the answer. Any status is an answer, a redirect too.

    Raises BadRequest for a URL that may not be called, Unreachable when no whole answer came within `seconds`.
    """
    with _Deadline(seconds) as deadline:
        destination = check_url(url, resolve=resolve)
        connection = _connection(destination, deadline, trust)
        try:
            return _exchange(connection, destination, body, headers, deadline)
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as error:
            raise Unreachable(deadline.sentence() or _say(error)) from None
        finally:
            connection.close()


def _exchange(
    connection: HTTPConnection, destination: Destination, body: bytes, headers: Mapping[str, str], deadline: "_Deadline"
) -> Answer:
    ours = {"Host": destination.authority, "Accept-Encoding": "identity", "Connection": "close", "User-Agent": "maas-webhooks/1"}
    connection.request(
        "POST", destination.target, body, {**ours, **headers}, preload_content=False, decode_content=False, enforce_content_length=False
    )
    response = connection.getresponse()
    raw = response.read(BODY_LIMIT, decode_content=False)
    if sentence := deadline.sentence():
        raise Unreachable(sentence)
    return Answer(response.status, _keep(response.headers), _text(raw))


def _keep(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers, up to 16 KB of them."""
    kept, left = {}, HEADERS_LIMIT
    for name, value in headers.items():
        left -= len(name) + len(value)
        if left < 0:
            break
        kept[name] = _text(value.encode("latin-1", "replace"))
    return kept


def _text(raw: bytes) -> str:
    """Bytes as text that a database can hold."""
    return raw.decode("utf-8", "replace").replace("\0", "�")


def _say(error: Exception) -> str:
    """A failure in words."""
    for cause in (error, error.__cause__, error.__context__):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _("The certificate is not valid for this address: %(why)s.") % {"why": cause.verify_message}
        if isinstance(cause, ssl.SSLError):
            return _("No TLS connection could be made: %(why)s.") % {"why": cause.reason or _("it was broken off")}
        if isinstance(cause, TimeoutError):
            return _("The server did not answer in time.")
        if isinstance(cause, ConnectionRefusedError):
            return _("The connection was refused. Is the server running?")
        if isinstance(cause, ConnectionError | http.client.RemoteDisconnected):
            return _("The server closed the connection without an answer.")
    if isinstance(error, OSError) and error.strerror:
        return _("No connection could be made: %(why)s.") % {"why": error.strerror}
    return _("The answer was not valid HTTP.")


# ---------- connections ----------
def _connection(destination: Destination, deadline: "_Deadline", trust: ssl.SSLContext | None) -> HTTPConnection:
    if destination.scheme == "http":
        return _Pinned(destination, deadline)
    return _PinnedTls(destination, deadline, trust or _trust())


@cache
def _trust() -> ssl.SSLContext:
    """The system's certificate authorities (SSL_CERT_FILE names others)."""
    return ssl.create_default_context()


class _Pinned(HTTPConnection):
    """A connection to the checked addresses; no name is looked up again."""

    def __init__(self, destination: Destination, deadline: "_Deadline", **options: Any) -> None:
        super().__init__(destination.host, destination.port, **options)
        self.pinned, self.deadline = destination.addresses, deadline

    def _new_conn(self) -> socket.socket:
        return _connect(self.pinned, self.port, self.deadline)


class _PinnedTls(HTTPSConnection):
    """The same with TLS: name and certificate are those of the URL's host."""

    def __init__(self, destination: Destination, deadline: "_Deadline", trust: ssl.SSLContext) -> None:
        super().__init__(destination.host, destination.port, ssl_context=trust, server_hostname=destination.host)
        self.pinned, self.deadline = destination.addresses, deadline

    def _new_conn(self) -> socket.socket:
        return _connect(self.pinned, self.port, self.deadline)


def _connect(addresses: tuple[str, ...], port: int, deadline: "_Deadline") -> socket.socket:
    """The first of the addresses that answers, watched by the deadline from then on."""
    failure: OSError = TimeoutError()
    for address in addresses:
        if deadline.left() <= 0:
            break
        try:
            sock = socket.create_connection((address, port), timeout=min(CONNECT_SECONDS, deadline.left()))
        except OSError as error:
            failure = error
            continue
        sock.settimeout(max(deadline.left(), 0.01))
        deadline.watch(sock)
        return sock
    raise failure


class _Deadline:
    """Shuts the socket down when time is up: a timeout alone starts again with every byte that a slow server sends."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.end = seconds, time.monotonic() + seconds
        self._lock = threading.Lock()
        self._copy: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._shut)
        self._timer.daemon = True

    def __enter__(self) -> "_Deadline":
        self._timer.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._timer.cancel()
        with self._lock:
            if self._copy:
                self._copy.close()
            self._copy = None

    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def sentence(self) -> str:
        """What to tell once time is up, else nothing."""
        return _("There was no whole answer within %(n)d s.") % {"n": self.seconds} if self.left() <= 0 else ""

    def watch(self, sock: socket.socket) -> None:
        """A copy of the descriptor: TLS takes the socket itself over."""
        with self._lock:
            self._copy = sock.dup()
        if self.left() <= 0:
            self._shut()

    def _shut(self) -> None:
        with self._lock:
            try:
                if self._copy:
                    self._copy.shutdown(socket.SHUT_RDWR)
            except OSError:
                return
