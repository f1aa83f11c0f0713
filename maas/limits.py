"""Rate limits: one Redis script asks all limits of a call at once, and counts in all of them or in none.

The algorithm is GCRA (ITU-T I.371, "virtual scheduling"; for web APIs told by Brandur Leach, "Rate Limiting, Cells, and
GCRA", 2015). A limit of n a minute lets n pass at once and one more every 60/n seconds. All that is kept of it is one
moment: when the limit will be whole again.

While Redis does not answer, each process counts by itself, up to a quarter of each limit or one a second.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import redis
import structlog
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from maas.lines import Lines, Script

log = structlog.get_logger()
MINUTE = 60_000_000  # microseconds
REST = 5.0  # seconds without a try after Redis did not answer, so that one call waits for it once at most
PATIENCE = 0.5  # seconds
LOCAL_SHARE, LOCAL_LEAST = 4, 60  # without Redis: a quarter of a limit, but one a second
LOCAL_ENTRIES = 10_000  # limits that a process remembers without Redis

# Redis's own clock, because those of the web machines differ. Numbers stay below 2^53, and %.0f writes them in full.
COUNT = """
local function count(given)
  local now = tonumber(given[1])
  if now == 0 then local t = redis.call('TIME'); now = t[1] * 1000000 + t[2] end
  local wholes, answer = {}, {0}
  for i, key in ipairs(KEYS) do
    local step, most, cost = tonumber(given[3 * i - 1]), tonumber(given[3 * i]), tonumber(given[3 * i + 1])
    local whole = math.max(tonumber(redis.call('GET', key) or '0'), now)
    local wait = whole + step * cost - step * most - now
    if cost == 0 or wait < 0 then wait = 0 end
    if wait > 0 then answer[1] = 1 end
    wholes[i] = {whole, whole + step * cost, wait}
  end
  for i, key in ipairs(KEYS) do
    local before, after, wait = wholes[i][1], wholes[i][2], wholes[i][3]
    if answer[1] == 1 then after = before end
    if after > before then redis.call('SET', key, string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000) + 1000) end
    answer[#answer + 1] = wait
    answer[#answer + 1] = after - now
  end
  return answer
end
"""
TAKE = Script(COUNT + "return count(ARGV)")


@dataclass(frozen=True)
class Limit:
    """`most` of a `kind` (requests, units) a minute for a `scope` (tenant, key, model); a call costs `cost` of it.

    A cost of 0 only asks. `bucket` is the name under which it is counted, `subject` what the caller calls its owner.
    """

    scope: str
    kind: str
    bucket: str
    most: int
    cost: int = 0
    subject: str = ""

    @property
    def step(self) -> int:
        """Microseconds after which one more passes."""
        return MINUTE // self.most


@dataclass(frozen=True)
class Standing:
    """How a limit stands after a call: what is left, seconds until it is whole, and until a refused call would pass (0: it did)."""

    limit: Limit
    remaining: int
    reset: float
    wait: float


@dataclass(frozen=True)
class Verdict:
    """Whether a call passed, how each of its limits stands, and whether this process counted alone."""

    passed: bool
    standings: tuple[Standing, ...]
    is_local: bool = False


_lines: Lines | None = None
_away_until = 0.0  # on the monotonic clock
_local: dict[str, int] = {}  # what Redis would hold
_lock = Lock()


def clock() -> int:
    """Microseconds since 1970 by which calls are counted; 0 stands for Redis's own clock. Tests put another one here."""
    return 0


def connect() -> redis.Redis:
    """A client that gives up soon: a limit is not worth waiting for.

    A connection that died unnoticed is made anew at once. A call that timed out is not repeated, for it may have been counted.
    """
    again = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
    return redis.Redis.from_url(settings.REDIS_URL, retry=again, socket_connect_timeout=PATIENCE, socket_timeout=PATIENCE)


def take(limits: Sequence[Limit]) -> Verdict:
    """Count a call in all of its limits, or in none of them if one is used up. Never raises; one trip to Redis."""
    if not limits:
        return Verdict(True, ())
    answer = _ask(limits)
    if answer is None:
        smaller = [_smaller(limit) for limit in limits]
        return verdict_of(smaller, _take_here(smaller), is_local=True)
    return verdict_of(limits, answer)


def keys_of(limits: Sequence[Limit]) -> list[str]:
    """The KEYS that a script with COUNT in it needs."""
    return [limit.bucket for limit in limits]


def figures_of(limits: Sequence[Limit]) -> list[int]:
    """What such a script gives to `count`. A call that costs more than a limit waits until that is whole."""
    return [clock(), *(figure for limit in limits for figure in (limit.step, limit.most, min(limit.cost, limit.most)))]


def _ask(limits: Sequence[Limit]) -> list[int] | None:
    global _away_until
    if time.monotonic() < _away_until:
        return None
    try:
        return _asked().run(TAKE, *figures_of(limits), keys=keys_of(limits))  # type: ignore[no-any-return]
    except (redis.RedisError, OSError) as error:
        _away_until = time.monotonic() + REST
        log.warning("limits_counted_locally", seconds=REST, error=str(error))
        return None


def _asked() -> Lines:
    """This process's connections for it."""
    global _lines
    if _lines is None:
        _lines = Lines(connect, patience=PATIENCE)
    return _lines


def verdict_of(limits: Sequence[Limit], answer: list[int], *, is_local: bool = False) -> Verdict:
    """What `count` answered, for each limit."""
    pairs = zip(limits, answer[1::2], answer[2::2], strict=True)
    return Verdict(not answer[0], tuple(_standing(limit, wait, ahead) for limit, wait, ahead in pairs), is_local)


def _standing(limit: Limit, wait: int, ahead: int) -> Standing:
    left = (limit.step * limit.most - ahead) // limit.step
    return Standing(limit, max(0, left), ahead / 1e6, wait / 1e6)


# ---------- without Redis ----------
def _smaller(limit: Limit) -> Limit:
    most = min(limit.most, max(limit.most // LOCAL_SHARE, LOCAL_LEAST))
    return replace(limit, most=most, cost=min(limit.cost, most))


def _take_here(limits: Sequence[Limit]) -> list[int]:
    """What the script does, in this process."""
    now = clock() or time.time_ns() // 1000
    with _lock:
        if len(_local) > LOCAL_ENTRIES:
            _forget(now)
        befores = [max(_local.get(limit.bucket, 0), now) for limit in limits]
        afters = [before + limit.step * limit.cost for limit, before in zip(limits, befores, strict=True)]
        waits = [_wait(limit, after - now) for limit, after in zip(limits, afters, strict=True)]
        afters = befores if any(waits) else afters
        _local.update({limit.bucket: after for limit, after in zip(limits, afters, strict=True) if after > now})
    return [int(any(waits)), *(figure for wait, after in zip(waits, afters, strict=True) for figure in (wait, after - now))]


def _wait(limit: Limit, ahead: int) -> int:
    return max(0, ahead - limit.step * limit.most) if limit.cost else 0


def _forget(now: int) -> None:
    for bucket in [bucket for bucket, whole in _local.items() if whole <= now]:
        del _local[bucket]


def seconds(wait: float) -> int:
    """A wait as Retry-After wants it: whole seconds, at least one, never too few."""
    return max(1, math.ceil(wait))


def tightest(standings: Sequence[Standing], kind: str) -> Standing | None:
    """Of the limits of this kind the one that decides: the longest wait, else what leaves the least."""
    found: list[Any] = [standing for standing in standings if standing.limit.kind == kind]
    return min(found, key=lambda standing: (-standing.wait, standing.remaining), default=None)
