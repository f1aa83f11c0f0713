"""What a process remembers between calls: who a key speaks for, and which version it means by a model's name.

It holds while the stamps of the organisation and of the shared catalogue are those that were read before the database was
asked. The queue compares them when a call is put in line (`maas.stamps`), so what is remembered is never acted on after it
changed: a key that was revoked, a model that was promoted.
"""

import time
from dataclasses import dataclass
from threading import Lock
from uuid import UUID

import redis

from apps.accounts import secrets
from apps.accounts.keys import Caller
from apps.catalog.services import Version
from maas import stamps

MOST = 10_000  # openings, and keys whose organisation is known


@dataclass(frozen=True, slots=True)
class Opening:
    """Who calls, and what they call by the digest of their secret and the model's name.

    Valid with these stamps, and until a moment on the monotonic clock at most.
    """

    name: tuple[bytes, str]
    caller: Caller
    version: Version
    stamps: bytes
    until: float


@dataclass(frozen=True, slots=True)
class Begun:
    """Stamps that were read before the database, and how long what it says is remembered."""

    stamps: bytes
    until: float


_lock = Lock()
_owners: dict[bytes, UUID] = {}  # by the digest of a secret: no key changes its organisation
_openings: dict[tuple[bytes, str], Opening] = {}


def begin(secret: str) -> Begun | None:
    """To be called before the database is asked for a key; None when nothing of it can be remembered yet."""
    owner = _owners.get(secrets.digest(secret))
    if owner is None:
        return None
    until = time.monotonic() + stamps.LIFE
    try:
        return Begun(stamps.read(owner, stamps.EVERYBODY), until)
    except (redis.RedisError, OSError):
        return None


def keep(secret: str, reference: str, caller: Caller, version: Version, begun: Begun | None) -> None:
    """Remember what the database said of a call that was let in.

    Not that of a key that is bound to addresses, or has been rotated: those are looked at anew each time.
    """
    digest = secrets.digest(secret)
    _put(_owners, digest, caller.tenant.id)
    if begun and not caller.is_fading and not caller.key.allowed_addresses:
        name = digest, reference
        _put(_openings, name, Opening(name, caller, version, begun.stamps, begun.until))


def find(secret: str, reference: str) -> Opening | None:
    """What is remembered of such a call; the queue has still to compare its stamps."""
    found = _openings.get((secrets.digest(secret), reference))
    if found is None or found.until < time.monotonic() or found.caller.key.status != "active":
        return None
    return found


def forget(opening: Opening) -> None:
    """Its stamps are no longer the right ones."""
    with _lock:
        if _openings.get(opening.name) is opening:
            _openings.pop(opening.name)


def _put(where: dict, name: object, value: object) -> None:  # type: ignore[type-arg]
    """Newest last; the oldest goes when there are too many."""
    with _lock:  # threads do this
        where.pop(name, None)
        where[name] = value
        while len(where) > MOST:
            where.pop(next(iter(where)))
