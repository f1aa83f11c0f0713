"""Stamps: whether what a process read from the database a moment ago is still what the database says.

Every owner (an organisation, or EVERYBODY for what is shared) has a random stamp in Redis. A process reads the stamp, then
the database, and may use what it found for as long as the stamp is the same, and LIFE seconds from the reading of the stamp
at most. Whoever changes something gives its owner another stamp once that is committed.

The stamp is read first: what is committed between the two reads comes with a stamp that is renewed a moment later, so it is
read once more and nothing worse.
"""

import os
import time
from uuid import UUID

import redis
import structlog
from django.conf import settings
from django.db import transaction
from redis.backoff import NoBackoff
from redis.retry import Retry

from maas.lines import Lines, Script

log = structlog.get_logger()
LIFE = 5.0  # seconds from the reading of its stamp that anything is remembered, whatever happens
EVERYBODY = UUID(int=0)  # the owner of what is shared: the catalogue that everybody sees
PREFIX = "maas:stamp:"
SIZE = 16  # bytes of a stamp, random: a counter would come to the same value again after Redis lost some seconds of its data
EXPIRY = 86_400  # seconds after which Redis forgets the stamp of an owner who does nothing
PATIENCE = 1.0  # seconds that Redis may take to connect, and to answer

# A stamp that is missing is made, so that an emptied Redis ends all that was remembered. KEYS: stamps; ARGV: expiry, and a new
# stamp for each of them.
READ = Script(
    """
local found = {}
for i, key in ipairs(KEYS) do
  found[i] = redis.call('GET', key)
  if not found[i] then
    found[i] = ARGV[i + 1]
    redis.call('SET', key, found[i], 'NX', 'EX', ARGV[1])
  end
end
return table.concat(found)
"""
)
sleep = time.sleep  # tests put another one here


def key_of(owner: UUID) -> bytes:
    """Where an owner's stamp lies in Redis."""
    return PREFIX.encode() + owner.bytes


def read(*owners: UUID) -> bytes:
    """The owners' stamps, 16 bytes each in this order; one trip, in which missing ones are made. Raises redis.RedisError."""
    made = [os.urandom(SIZE) for _ in owners]
    return LINES.run(READ, EXPIRY, *made, keys=[key_of(owner) for owner in owners])  # type: ignore[no-any-return]


def renew(owner: UUID) -> None:
    """Give an owner another stamp: when this returns, nothing is used any more that was remembered before. Never raises.

    While Redis does not answer, this waits until what was remembered has ended by itself, LIFE seconds: processes that do not
    reach it cannot put a call in line, but it may come back with the stamps that it had.
    """
    if _replace(owner):
        return
    log.warning("stamp_not_renewed", owner=str(owner), waits_seconds=LIFE)
    sleep(LIFE)
    _replace(owner)


def renew_on_commit(owner: UUID) -> None:
    """Give an owner another stamp when this transaction is committed (at once outside of one), and none if it is undone.

    What goes wrong then is logged: the change is made, and whoever asked for it shall not hear that it was not.
    """
    transaction.on_commit(lambda: renew(owner), robust=True)


def _replace(owner: UUID) -> bool:
    """Whether Redis has another stamp now."""
    try:
        LINES.ask(("SET", key_of(owner), os.urandom(SIZE), "EX", EXPIRY))
    except (redis.RedisError, OSError) as error:
        log.warning("stamp_refused", owner=str(owner), error=str(error))
        return False
    return True


def connect() -> redis.Redis:
    """A client that tells at once when Redis is away."""
    again = Retry(NoBackoff(), 0)
    return redis.Redis.from_url(settings.REDIS_URL, retry=again, socket_connect_timeout=PATIENCE, socket_timeout=PATIENCE)


def _start_anew() -> None:
    """A child of a fork makes connections of its own."""
    global LINES
    LINES = Lines(connect, patience=PATIENCE)


LINES = Lines(connect, patience=PATIENCE)
os.register_at_fork(after_in_child=_start_anew)
