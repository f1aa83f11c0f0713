"""What makes lost messages and dead workers harmless, tells people of endpoints that were switched off, and forgets."""

from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext as _

from apps.accounts import mails
from apps.accounts.members import addresses_of
from apps.accounts.services import Role, Tenant
from apps.webhooks.claiming import count_due
from apps.webhooks.delivering import DELIVERERS
from apps.webhooks.models import Attempt, Delivery, Endpoint, Message
from maas import ids, queue
from maas.tenancy import SystemUse, as_system, as_tenant

KEEP = timedelta(days=30)  # the log of deliveries
STEP = 1000  # rows that one sweep removes
SETTLED = timedelta(hours=1)  # after which nothing refers to a deleted endpoint any more
MAIL_LEASE = timedelta(minutes=5)  # before a mail that did not get out is tried again


def sweep_webhooks() -> None:
    """Nudge what is due, mail what is to be told, remove what is old. Running it twice does no harm."""
    nudge_workers()
    tell_people()
    remove_old()


def nudge_workers() -> None:
    """One message for each endpoint that something is due for, unless messages wait already."""
    if queue.depth("webhooks"):
        return
    for _nudge in range(count_due(DELIVERERS)):
        queue.nudge("workers.tasks.deliver_webhooks", queue="webhooks")


# ---------- telling ----------
def tell_people() -> None:
    """Mail the owners and admins of endpoints that were switched off. A mail counts once it is out: a crash repeats it."""
    with as_system(SystemUse.DELIVER_WEBHOOKS):
        found = Endpoint.objects.filter(enabled=False, told_at=None, disabled_at__isnull=False, deleted_at=None)
        waiting = list(found.exclude(lease_until__gt=Now()).values_list("tenant_id", "id")[:20])
    for tenant_id, endpoint_id in waiting:
        with as_tenant(tenant_id):
            off = Endpoint.objects.filter(tenant_id=tenant_id, pk=endpoint_id, enabled=False, told_at=None)
            mine = off.exclude(lease_until__gt=Now()).update(lease_until=Now() + MAIL_LEASE)
            endpoint = off.select_related("tenant").first()
        if mine and endpoint and _mail(endpoint):
            with as_tenant(tenant_id):
                off.update(told_at=timezone.now(), lease_until=None)


def _mail(endpoint: Endpoint) -> bool:
    """Whether the mail server took it."""
    tenant: Tenant = endpoint.tenant
    words = {"url": endpoint.url, "tenant": tenant.slug, "address": f"{settings.MAAS_URL}/webhooks/{ids.encode(ids.WEBHOOK, endpoint.id)}"}
    paragraphs = [
        _reason(endpoint) % words,
        _("Events that happen while it is off are not sent. Once it answers again, switch it on and send what failed again:"),
        words["address"],
    ]
    subject = _("A webhook of %(tenant)s was switched off") % words
    return mails.send(tenant.id, subject=subject, paragraphs=paragraphs, to=addresses_of(tenant, Role.OWNER, Role.ADMIN))


def _reason(endpoint: Endpoint) -> str:
    if endpoint.disabled_reason == "gone":
        return _("%(url)s answered with status 410 (Gone), so the webhook of %(tenant)s that calls it was switched off.")
    return _("%(url)s has not accepted a single call for 5 days, so the webhook of %(tenant)s that calls it was switched off.")


# ---------- forgetting ----------
def remove_old() -> None:
    """Deliveries past their time and endpoints that were deleted, a few at a time."""
    with as_system(SystemUse.SWEEP):
        past = timezone.now() - KEEP
        old = list(Delivery.objects.filter(created_at__lt=past).values_list("id", flat=True)[:STEP])
        deleted = list(Endpoint.objects.filter(deleted_at__lt=timezone.now() - SETTLED).values_list("id", flat=True)[:STEP])
        old += list(Delivery.objects.filter(endpoint__in=deleted).values_list("id", flat=True)[:STEP]) if deleted else []
        _remove(old)
        Endpoint.objects.filter(pk__in=deleted, deliveries=None).delete()
        lonely = Message.objects.filter(created_at__lt=past, deliveries=None).values_list("id", flat=True)[:STEP]
        Message.objects.filter(pk__in=list(lonely)).delete()


def _remove(delivery_ids: list[UUID]) -> None:
    Attempt.objects.filter(delivery__in=delivery_ids).delete()
    Delivery.objects.filter(pk__in=delivery_ids).delete()
