"""The two ways to have model work done: `enqueue` long work for Celery, `call` a model and wait for its answer.

The online queue. Calls wait in one Redis list per version and tenant. One script takes a batch from the tenants that
wait by deficit round robin (Shreedhar and Varghese, "Efficient Fair Queuing Using Deficit Round Robin", 1995), so a
tenant that floods a model delays the others by a round, not by its flood. Servers block on a doorbell and take all
that waits, up to a limit: an idle system adds no wait, and batches form by themselves under load. Every caller has
its own reply list and a deadline; whatever happens to a server, nobody waits longer than that.
"""

import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgpack
import redis
from django.conf import settings
from django.db import transaction
from redis.backoff import NoBackoff
from redis.retry import Retry

from maas import errors

PREFIX = "maas:online:"
BELL = PREFIX + "bell"
VERSIONS = PREFIX + "versions"
SERVERS = PREFIX + "server:"
QUANTUM = 8  # short inputs' worth of work that a tenant may take in one round
REPLY_SECONDS = 60
ONCE_MORE = Retry(NoBackoff(), 1)  # a pooled connection may have died unnoticed; a server that is away is told at once

PUSH = """
local waiting = tonumber(redis.call('GET', KEYS[1]) or '0')
if waiting + tonumber(ARGV[2]) > tonumber(ARGV[1]) then return 0 end
redis.call('INCRBY', KEYS[1], ARGV[2])
if redis.call('RPUSH', KEYS[2], ARGV[2] .. ':' .. ARGV[3]) == 1 then redis.call('RPUSH', KEYS[3], ARGV[4]) end
redis.call('SADD', KEYS[4], ARGV[5])
if redis.call('LLEN', KEYS[5]) < 64 then redis.call('RPUSH', KEYS[5], '1') end
return 1
"""

# One round visits each waiting tenant once, so the rounds end when the lists are empty or the batch is full.
TAKE = """
local ring, prefix, deficits = KEYS[1], KEYS[2], KEYS[3]
local limit, quantum, taken, total = tonumber(ARGV[1]), tonumber(ARGV[2]), {}, 0
while total < limit do
  local tenant = redis.call('LPOP', ring)
  if not tenant then redis.call('SREM', KEYS[5], ARGV[3]); break end
  local list = prefix .. tenant
  local deficit = quantum + tonumber(redis.call('HGET', deficits, tenant) or '0')
  local full = false
  while true do
    local head = redis.call('LINDEX', list, 0)
    if not head then break end
    local cost = tonumber(string.match(head, '^(%d+):'))
    if cost > deficit then break end
    if total > 0 and total + cost > limit then full = true; break end
    redis.call('LPOP', list)
    taken[#taken + 1] = string.sub(head, string.find(head, ':', 1, true) + 1)
    deficit = deficit - cost
    total = total + cost
    if total >= limit then break end
  end
  if redis.call('EXISTS', list) == 1 then
    redis.call('HSET', deficits, tenant, deficit)
    redis.call('RPUSH', ring, tenant)
  else
    redis.call('HDEL', deficits, tenant)
  end
  if full then break end
end
if total > 0 then redis.call('DECRBY', KEYS[4], total) end
return taken
"""


@dataclass(frozen=True)
class Call:
    """One waiting prediction call.

    `deadline` is Unix seconds; `inputs` are clean, as `workers.predict` takes them; `work` is what they weigh together,
    in short inputs. `reservation_id` pays for up to `units`.
    """

    id: UUID
    tenant_id: UUID
    key_id: UUID | None
    version_id: UUID
    inputs: list[Any]
    parameters: dict[str, Any]
    pushed: float
    deadline: float
    work: int
    reservation_id: UUID
    units: int


@dataclass(frozen=True)
class Answer:
    """What the server made of a call: its outputs, the units charged, milliseconds in the queue and in the model."""

    outputs: list[Any]
    units: int
    queue_ms: float
    compute_ms: float
    error: dict[str, Any] | None = None


_connection: redis.Redis | None = None


def connect() -> redis.Redis:
    """This process's Redis connections, made on first use."""
    global _connection
    if _connection is None:
        _connection = redis.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=2, socket_keepalive=True, retry=ONCE_MORE)
    return _connection


# ---------- long work ----------
def enqueue(entry_point: str, *, queue: str = "default", **arguments: Any) -> None:
    """Nudge a Celery worker once the transaction has committed. A lost nudge is repeated by the sweep."""
    transaction.on_commit(lambda: nudge(entry_point, queue=queue, **arguments))


def nudge(entry_point: str, *, queue: str = "default", **arguments: Any) -> None:
    """Send the message now; with the broker down the row stays and the sweep finds it."""
    from maas.celery import app

    try:
        app.signature(entry_point, kwargs=arguments).apply_async(queue=queue, retry=False, ignore_result=True)
    except (OSError, redis.RedisError, app.connection_for_write().connection_errors):  # type: ignore[misc]
        return


def depth(name: str) -> int:
    """Messages that wait in a Celery queue; what a flushed or unreachable Redis holds is none."""
    try:
        return connect().llen(name)  # type: ignore[return-value]
    except redis.RedisError:
        return 0


# ---------- callers ----------
def push(call: Call) -> None:
    """Put a call in line.

    Raises Overloaded when the model's queue is full, Unavailable when Redis does not answer.
    """
    version, tenant = call.version_id.hex, call.tenant_id.hex
    keys = [_length(version), _list(version) + tenant, _ring(version), VERSIONS, BELL]
    body = msgpack.packb(_to_wire(call))
    try:
        accepted = connect().eval(PUSH, len(keys), *keys, settings.MAAS_QUEUE_LIMIT, call.work, body, tenant, version)
    except redis.RedisError:
        raise errors.Unavailable("The queue cannot be reached. Nothing was charged; try again.") from None
    if not accepted:
        raise errors.Overloaded("Too many calls wait for this model. Nothing was charged; try again.", retry_after=2)


def wait(call_id: UUID, seconds: float) -> Answer | None:
    """The answer to a call, or None when none came in time."""
    try:
        found = connect().blpop([_reply(call_id)], timeout=max(seconds, 0.01))
    except redis.RedisError:
        return None
    return Answer(**msgpack.unpackb(found[1])) if found else None  # type: ignore[index]


def alive() -> bool:
    """Whether an online server was heard from in the last seconds."""
    return next(connect().scan_iter(SERVERS + "*", count=100), None) is not None


# ---------- servers ----------
def listen(seconds: float) -> None:
    """Sleep until a call is pushed, at most this long."""
    connect().blpop([BELL], timeout=seconds)


def waiting_versions() -> list[UUID]:
    """The versions for which calls may wait."""
    return [UUID(hex=found.decode()) for found in connect().smembers(VERSIONS)]  # type: ignore[union-attr]


def take(version_id: UUID, limit: int) -> list[Call]:
    """Up to `limit` short inputs' worth of waiting calls of one version, fairly over tenants; one larger call comes alone."""
    version = version_id.hex
    keys = [_ring(version), _list(version), PREFIX + "deficit:" + version, _length(version), VERSIONS]
    taken = connect().eval(TAKE, len(keys), *keys, limit, QUANTUM, version)
    return [_from_wire(msgpack.unpackb(body)) for body in taken]  # type: ignore[union-attr]


def reply(answers: dict[UUID, Answer]) -> None:
    """Hand answers to their callers in one trip."""
    pipe = connect().pipeline(transaction=False)
    for call_id, answer in answers.items():
        pipe.rpush(_reply(call_id), msgpack.packb(answer.__dict__))
        pipe.expire(_reply(call_id), REPLY_SECONDS)
    pipe.execute()


def beat(server: str, seconds: int = 5) -> None:
    """Say that this server lives."""
    connect().set(SERVERS + server, int(time.time()), ex=seconds)


def _length(version: str) -> str:
    return f"{PREFIX}length:{version}"


def _list(version: str) -> str:
    return f"{PREFIX}calls:{version}:"


def _ring(version: str) -> str:
    return f"{PREFIX}ring:{version}"


def _reply(call_id: UUID) -> str:
    return f"{PREFIX}reply:{call_id.hex}"


def _to_wire(call: Call) -> dict[str, Any]:
    return {name: value.hex if isinstance(value, UUID) else value for name, value in call.__dict__.items()}


def _from_wire(fields: dict[str, Any]) -> Call:
    for name in ("id", "tenant_id", "key_id", "version_id", "reservation_id"):
        fields[name] = UUID(hex=fields[name]) if fields[name] else None
    return Call(**fields)
