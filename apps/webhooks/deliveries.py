"""What was sent: the log, sending again, and sending a test."""

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext as _

from apps.accounts.services import Tenant
from apps.webhooks.models import Attempt, Delivery, Endpoint, State
from apps.webhooks.outbox import TEST, add_message, nudge_after_commit
from apps.webhooks.services import get_endpoint
from maas import errors, ids
from maas.actors import Permission, require
from maas.events import DeliveryReplayed, publish
from maas.tenancy import as_tenant

ANEW: dict[str, Any] = {"state": State.PENDING, "step": 0, "next_at": Now(), "ended_at": None}


# ---------- looking ----------
def list_deliveries(
    tenant: Tenant, endpoint_id: UUID, *, state: str | None = None, after: UUID | None = None, limit: int = 20
) -> tuple[list[Delivery], bool]:
    """A page of deliveries of an endpoint, newest first, each with `.message`, and whether there are more."""
    endpoint = get_endpoint(tenant, endpoint_id)
    rows = _deliveries(tenant, endpoint)
    if state:
        rows = rows.filter(state=state)
    if after:
        rows = rows.filter(id__lt=after)
    with as_tenant(tenant.id):
        found = list(rows.order_by("-id")[: limit + 1])
    return found[:limit], len(found) > limit


def get_delivery(tenant: Tenant, endpoint_id: UUID, delivery_id: UUID) -> tuple[Delivery, list[Attempt]]:
    """A delivery and its attempts, newest first; NotFound when the endpoint has no such one."""
    endpoint = get_endpoint(tenant, endpoint_id)
    with as_tenant(tenant.id):
        found = _deliveries(tenant, endpoint).filter(pk=delivery_id).first() or _missing(delivery_id)
        return found, list(Attempt.objects.filter(tenant=tenant, delivery=found).order_by("-id"))


def count_failed(tenant: Tenant, endpoint_id: UUID) -> int:
    """Deliveries of an endpoint that could be sent again."""
    with as_tenant(tenant.id):
        return Delivery.objects.filter(tenant=tenant, endpoint_id=endpoint_id, state=State.FAILED).count()


def _deliveries(tenant: Tenant, endpoint: Endpoint) -> QuerySet[Delivery]:
    return Delivery.objects.filter(tenant=tenant, endpoint=endpoint).select_related("message")


def _missing(delivery_id: UUID) -> Any:
    message = _("There is no delivery '%(id)s'. They are kept for 30 days.") % {"id": ids.encode(ids.DELIVERY, delivery_id)}
    raise errors.NotFound(message, param="id")


# ---------- sending again ----------
def replay_delivery(tenant: Tenant, endpoint_id: UUID, delivery_id: UUID) -> Delivery:
    """Send a message once more, with the same id and body and a new time and signature.

    Raises BadRequest while the endpoint is switched off.
    """
    require(tenant.id, Permission.WEBHOOKS)
    endpoint = _require_enabled(tenant, endpoint_id)
    with as_tenant(tenant.id):
        if not Delivery.objects.filter(tenant=tenant, endpoint=endpoint, pk=delivery_id).update(**ANEW):
            _missing(delivery_id)
        _wake(endpoint)
        after = {"delivery": ids.encode(ids.DELIVERY, delivery_id)}
        publish(DeliveryReplayed(tenant_id=tenant.id, endpoint_id=endpoint.id, label=endpoint.url, after=after))
    return get_delivery(tenant, endpoint_id, delivery_id)[0]


def replay_failed(tenant: Tenant, endpoint_id: UUID, *, since: datetime | None = None) -> int:
    """Send everything again that failed, or what failed of the events since a time; says how many.

    Raises BadRequest while the endpoint is switched off.
    """
    require(tenant.id, Permission.WEBHOOKS)
    endpoint = _require_enabled(tenant, endpoint_id)
    with as_tenant(tenant.id):
        lately = Q(created_at__gte=since) if since else Q()
        count = Delivery.objects.filter(lately, tenant=tenant, endpoint=endpoint, state=State.FAILED).update(**ANEW)
        if count:
            _wake(endpoint)
            after = {"deliveries": count, "since": since.isoformat() if since else None}
            publish(DeliveryReplayed(tenant_id=tenant.id, endpoint_id=endpoint.id, label=endpoint.url, after=after))
    return count


def send_test(tenant: Tenant, endpoint_id: UUID) -> Delivery:
    """Send the event webhook.test to this endpoint alone. Raises BadRequest while it is switched off."""
    require(tenant.id, Permission.WEBHOOKS)
    endpoint = _require_enabled(tenant, endpoint_id)
    with as_tenant(tenant.id):
        _wake(endpoint)
        made = add_message(tenant.id, type=TEST, data={"id": ids.encode(ids.WEBHOOK, endpoint.id)}, endpoint_ids=[endpoint.id])
    return get_delivery(tenant, endpoint_id, made[0].id)[0]


def _require_enabled(tenant: Tenant, endpoint_id: UUID) -> Endpoint:
    endpoint = get_endpoint(tenant, endpoint_id)
    if not endpoint.enabled:
        raise errors.BadRequest(_("This webhook is switched off. Switch it on first."), param="id", code="webhook_disabled")
    return endpoint


def _wake(endpoint: Endpoint) -> None:
    """Somebody waits for the answer, so the pause after a failure ends now."""
    Endpoint.objects.filter(pk=endpoint.pk, pause_until__gt=timezone.now()).update(pause_until=None)
    nudge_after_commit()
