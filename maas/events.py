"""Facts that other parts may want to hear of.

A service publishes a fact inside its transaction; audit and webhooks subscribe in their `AppConfig.ready`, so what
they write commits or rolls back with the fact itself.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from django.db import connection


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a tenant. `name` is what webhooks call it."""

    tenant_id: UUID
    name = "event"


@dataclass(frozen=True, kw_only=True)
class TenantCreated(Event):
    user_id: int
    name = "tenant.created"


@dataclass(frozen=True, kw_only=True)
class KeyCreated(Event):
    key_id: UUID
    name = "key.created"


@dataclass(frozen=True, kw_only=True)
class KeyRevoked(Event):
    key_id: UUID
    name = "key.revoked"


@dataclass(frozen=True, kw_only=True)
class FileDeleted(Event):
    """A file is gone for its tenant; `reason` is deleted or expired."""

    file_id: UUID
    reason: str
    name = "file.deleted"


@dataclass(frozen=True, kw_only=True)
class BatchCreated(Event):
    job_id: UUID
    name = "batch.created"


@dataclass(frozen=True, kw_only=True)
class BatchCompleted(Event):
    job_id: UUID
    name = "batch.completed"


@dataclass(frozen=True, kw_only=True)
class BatchFailed(Event):
    job_id: UUID
    name = "batch.failed"


@dataclass(frozen=True, kw_only=True)
class BatchCancelled(Event):
    job_id: UUID
    name = "batch.cancelled"


@dataclass(frozen=True, kw_only=True)
class BatchExpired(Event):
    job_id: UUID
    name = "batch.expired"


_subscribers: dict[type[Event], list[Callable[[Event], None]]] = defaultdict(list)


def subscribe(kind: type[Event], function: Callable[[Event], None]) -> None:
    """Call `function` with every event of this kind (`Event` itself: with every event)."""
    if function not in _subscribers[kind]:
        _subscribers[kind].append(function)


def publish(event: Event) -> None:
    """Tell the subscribers, in the publisher's transaction.

    Raises RuntimeError outside of a transaction: what a subscriber writes could outlive a fact that was undone.
    """
    if not connection.in_atomic_block:
        raise RuntimeError(f"{type(event).__name__} was published outside of a transaction.")
    for kind in type(event).__mro__:
        for function in _subscribers.get(kind, []):
            function(event)
