"""What a request was counted as, and the headers that tell its caller.

The middleware opens a meter for every request; whoever counts (a throttle at the door, the service behind it) writes on
it, so that each answer, refusals and errors too, says how the limits stand. Outside of a request nothing is metered.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from django.http import HttpRequest, HttpResponse

from maas.limits import Standing, Verdict, tightest

KINDS = ("requests", "units")


@dataclass
class Meter:
    """`key` is the `accounts.ApiKey` that calls, if one does; `is_counted` once the request itself was counted."""

    key: Any = None
    is_counted: bool = False
    headers: dict[str, str] = field(default_factory=dict)

    def note(self, verdict: Verdict) -> None:
        """Keep what the answer will say. A refused call is not counted, and not tried again either."""
        self.is_counted = True
        self.headers |= headers_of(verdict)


_current: ContextVar[Meter | None] = ContextVar("maas_meter", default=None)


def current_meter() -> Meter | None:
    """The meter of the request that runs, None in workers and commands."""
    return _current.get()


@contextmanager
def metering() -> Iterator[Meter]:
    """A fresh meter for this block."""
    meter = Meter()
    token = _current.set(meter)
    try:
        yield meter
    finally:
        _current.reset(token)


class TellLimits:
    """Put what the request was counted as on its answer."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with metering() as meter:
            response = self.get_response(request)
        for name, value in meter.headers.items():
            response[name] = value
        return response


def headers_of(verdict: Verdict) -> dict[str, str]:
    """The names that OpenAI's clients know, and the IETF's draft "RateLimit header fields for HTTP", from its number 08 on."""
    found = [standing for kind in KINDS if (standing := tightest(verdict.standings, kind))]
    if not found:
        return {}
    headers = {name: value for standing in found for name, value in _plain(standing).items()}
    headers["RateLimit-Policy"] = ", ".join(f'"{one.limit.kind}";q={one.limit.most};w=60' for one in found)
    headers["RateLimit"] = ", ".join(f'"{one.limit.kind}";r={one.remaining};t={math.ceil(one.reset)}' for one in found)
    return headers | ({"x-ratelimit-degraded": "true"} if verdict.is_local else {})


def _plain(standing: Standing) -> dict[str, str]:
    kind = standing.limit.kind
    return {
        f"x-ratelimit-limit-{kind}": str(standing.limit.most),
        f"x-ratelimit-remaining-{kind}": str(standing.remaining),
        f"x-ratelimit-reset-{kind}": f"{standing.reset:.3f}s",
    }
