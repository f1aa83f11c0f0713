"""Facts that other parts may want to hear of.

A service publishes a fact inside its transaction; audit and webhooks subscribe in their `AppConfig.ready`, so what
they write commits or rolls back with the fact itself.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar
from uuid import UUID

from django.db import connection


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a tenant.

    `name` is what the audit log and webhooks call it, `target` the thing it happened to as the API spells its id, `label`
    what people call that thing. `before` and `after` hold what changed, as JSON, never a secret. `result` is `ok` or `refused`.
    """

    tenant_id: UUID
    label: str = ""
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    name: ClassVar[str] = "event"
    result: ClassVar[str] = "ok"

    @property
    def target(self) -> str:
        return f"org_{self.tenant_id.hex}"

    def data(self) -> dict[str, Any]:
        """What a webhook carries of it."""
        return {"id": self.target}


_subscribers: dict[type[Event], list[Callable[[Event], None]]] = defaultdict(list)


def subscribe(kind: type[Event], function: Callable[[Event], None]) -> None:
    """Call `function` with every event of this kind (`Event` itself: with every event)."""
    if function not in _subscribers[kind]:
        _subscribers[kind].append(function)


def unsubscribe(kind: type[Event], function: Callable[[Event], None]) -> None:
    """Tell `function` of this kind no longer; it has to be among those who are told."""
    _subscribers[kind].remove(function)


def publish(event: Event) -> None:
    """Tell the subscribers, in the publisher's transaction.

    Raises RuntimeError outside of a transaction: what a subscriber writes could outlive a fact that was undone.
    """
    if not connection.in_atomic_block:
        raise RuntimeError(f"{type(event).__name__} was published outside of a transaction.")
    for kind in type(event).__mro__:
        for function in _subscribers.get(kind, []):
            function(event)
