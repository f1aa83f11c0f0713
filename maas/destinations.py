"""Where calls to addresses of customers may go: public addresses, over TLS, on ports that web servers use."""

import ipaddress
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.utils.translation import gettext as _

from maas import errors

RESOLVE_SECONDS = 5.0
URL_LIMIT = 2000
HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], list[str]]

NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Where clouds tell machines their credentials: refused even inside a network that is allowed.
METADATA = {ipaddress.ip_address(text) for text in ("169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254")}
# Not for the public internet, though some releases of Python call them global: relays, local NAT64, examples, segment routing.
SPECIAL = [ipaddress.ip_network(text) for text in ("192.88.99.0/24", "64:ff9b:1::/48", "3fff::/20", "5f00::/16", "fec0::/10")]


class Unreachable(Exception):
    """No answer came; the text says why."""


@dataclass(frozen=True)
class Destination:
    """A URL taken apart, with the addresses behind its name, all of them checked."""

    scheme: str
    host: str
    port: int
    target: str  # path and query
    addresses: tuple[str, ...]

    @property
    def authority(self) -> str:
        """What the header Host says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == {"https": 443, "http": 80}[self.scheme] else f"{host}:{self.port}"


# ---------- addresses ----------
def resolve(host: str, port: int) -> list[str]:
    """The addresses behind a name, in the order to try. Raises Unreachable when there are none within 5 s."""
    found: list[str] = []
    # The C library has no time limit of its own, so it works in a thread that may be left behind.
    thread = threading.Thread(target=lambda: found.extend(_look_up(host, port)), daemon=True)
    thread.start()
    thread.join(RESOLVE_SECONDS)
    if not found:
        raise Unreachable(_("The name %(host)s could not be resolved.") % {"host": host})
    return list(dict.fromkeys(found))


def _look_up(host: str, port: int) -> list[str]:
    try:
        return [str(row[4][0]) for row in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        return []


def is_allowed(address: Address) -> bool:
    """Whether the operator lets calls go there although it is not public (MAAS_WEBHOOK_ALLOW)."""
    plain = _unmap(address)
    return plain not in METADATA and any(plain in network for network in _allowed(tuple(settings.MAAS_WEBHOOK_ALLOW)))


def is_public(address: Address) -> bool:
    """Whether an address, and the one that it carries inside, belongs to the public internet."""
    return all(_is_public(one) for one in _carried(address))


def _is_public(address: Address) -> bool:
    odd = address.is_multicast or address.is_reserved or address.is_unspecified or address.is_link_local or address.is_loopback
    return address.is_global and not odd and address not in METADATA and not any(address in network for network in SPECIAL)


def _carried(address: Address) -> list[Address]:
    """The addresses that a packet to this one may reach: IPv6 has several ways to write an IPv4 address."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped:
        return [address.ipv4_mapped]
    if address in NAT64:
        return [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    return [address, *([address.sixtofour] if address.sixtofour else []), *(address.teredo or ())]


def _unmap(address: Address) -> Address:
    return getattr(address, "ipv4_mapped", None) or address


@cache
def _allowed(texts: tuple[str, ...]) -> list[Any]:
    return [ipaddress.ip_network(text) for text in texts]


# ---------- URLs ----------
def check_url(url: str, *, resolve: Resolve = resolve) -> Destination:
    """The destination of a URL, resolved.

    Raises BadRequest: `invalid_url` for one that cannot be called, `address_not_allowed` when it leads to an address that
    is not public.
    """
    scheme, host, port, target = _take_apart(url)
    try:
        addresses = resolve(host, port)
    except Unreachable as error:
        raise _invalid(str(error)) from None
    for text in addresses:
        _check_address(ipaddress.ip_address(text.partition("%")[0]), scheme, port)
    return Destination(scheme, host, port, target, tuple(addresses))


def _check_address(address: Address, scheme: str, port: int) -> None:
    """The answer never says which address it was: nobody shall map our network by our errors."""
    if is_allowed(address):
        return
    if not is_public(address):
        message = _("This leads to an address that is not public. Use one that can be reached from the internet.")
        raise errors.BadRequest(message, param="url", code="address_not_allowed")
    if scheme == "http":
        raise _invalid(_("Use https://. What we send must not be read on the way."))


def _take_apart(url: str) -> tuple[str, str, int, str]:
    if len(url) > URL_LIMIT or not url.isascii() or not url.isprintable() or set(url) & set(' "<>\\^`{|}'):
        raise _invalid(_("Write the address in up to %(n)d printable ASCII characters without spaces.") % {"n": URL_LIMIT})
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _invalid(_("This is not an address. Write one such as https://example.com/webhooks.")) from None
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme not in {"https", "http"} or not HOST.fullmatch(host):
        raise _invalid(_("This is not an address. Write one such as https://example.com/webhooks."))
    if "@" in parts.netloc or parts.fragment:
        raise _invalid(_("Leave out user name, password and what follows #. The signature says who sends."))
    port = {"https": 443, "http": 80}[parts.scheme] if port is None else port
    if port != 443 and port < 1024 and (parts.scheme, port) != ("http", 80):
        raise _invalid(_("Use port 443, or one from 1024 on."))
    return parts.scheme, host, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _invalid(message: str) -> errors.BadRequest:
    return errors.BadRequest(message, param="url", code="invalid_url")
