"""From an event to an entry of the log, in the publisher's transaction."""

import json
import time
from typing import Any
from uuid import UUID

from django.db import connection

from apps.audit.redaction import redact
from maas import ids
from maas.actors import Actor, current_actor
from maas.events import Event

INSERT = "INSERT INTO audit_entry (id, tenant_id, body) VALUES (%s, %s, %s)"


def record(event: Event) -> None:
    """Write down who did what, from where. It commits, or rolls back, with the fact itself."""
    entry_id = ids.uuid7()
    with connection.cursor() as cursor:
        cursor.execute(INSERT, [entry_id, event.tenant_id, canonical(describe(event, entry_id, current_actor()))])


def describe(event: Event, entry_id: UUID, actor: Actor) -> dict[str, Any]:
    """The entry as JSON, secrets taken out. `at` is Unix milliseconds."""
    who = {"kind": actor.kind, "id": _actor_id(actor), "name": actor.name, "role": actor.role}
    said = {
        "actor": who, "action": event.name, "target": event.target, "label": event.label, "address": actor.address,
        "request_id": actor.request_id, "before": event.before, "after": event.after, "result": event.result,
    }  # fmt: skip
    fixed = {"id": ids.encode(ids.AUDIT, entry_id), "tenant": tenant_id(event.tenant_id), "at": time.time_ns() // 1_000_000}
    return {**redact(said), **fixed}


def canonical(value: dict[str, Any]) -> str:
    """One text for one value: sorted names, no spaces, no escapes that UTF-8 does not need."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def tenant_id(tenant: UUID) -> str:
    """org_... as entries and anchors name a tenant."""
    return ids.encode("org_", tenant)


def _actor_id(actor: Actor) -> str:
    """As targets are spelled, so that what somebody did and what was done to them is found by the same text."""
    return f"user_{actor.id}" if actor.kind == "user" else actor.id
