"""From an event to messages that wait to be sent, in the publisher's transaction."""

import time
from collections.abc import Iterable
from typing import Any
from uuid import UUID

import orjson
from django.db.models.functions import Now

from apps.webhooks.models import Delivery, Endpoint, Message
from maas import ids
from maas.events import Event
from maas.queue import enqueue

# What receivers can ask for. Those that nothing publishes yet are accepted, so that a subscription need not change later.
PUBLIC = (
    "batch.completed", "batch.failed", "batch.cancelled", "batch.expired",
    "fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled",
    "key.created", "key.revoked", "budget.threshold", "model.version_created",
)  # fmt: skip
EVERYTHING = "*"
TEST = "webhook.test"


def record(event: Event) -> None:
    """Write down what is to be sent to whom. It commits, or rolls back, with the fact itself."""
    if event.name not in PUBLIC:
        return
    wanted = Endpoint.objects.filter(tenant_id=event.tenant_id, enabled=True, deleted_at=None).values_list("id", "events")
    takers = [endpoint_id for endpoint_id, events in wanted if event.name in events or EVERYTHING in events]
    if takers:
        add_message(event.tenant_id, type=event.name, data=event.data(), endpoint_ids=takers)


def add_message(tenant_id: UUID, *, type: str, data: dict[str, Any], endpoint_ids: Iterable[UUID]) -> list[Delivery]:
    """A message and its deliveries; workers are nudged once the transaction has committed."""
    message_id = ids.uuid7()
    body = {"id": ids.encode(ids.EVENT, message_id), "object": "event", "created_at": int(time.time()), "type": type, "data": data}
    message = Message.objects.create(id=message_id, tenant_id=tenant_id, type=type, body=orjson.dumps(body).decode())
    rows = [Delivery(tenant_id=tenant_id, endpoint_id=endpoint_id, message=message, next_at=Now()) for endpoint_id in endpoint_ids]
    for _delivery in Delivery.objects.bulk_create(rows):
        nudge_after_commit()
    return rows


def nudge_after_commit() -> None:
    """Tell a worker that something is due; which endpoint it takes is decided by whose turn it is."""
    enqueue("workers.tasks.deliver_webhooks", queue="webhooks")
