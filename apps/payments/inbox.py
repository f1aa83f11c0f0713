"""What Stripe tells by webhook: verified, stored, answered; then followed once, in whatever order it came.

Following an event means looking at its object again, so an event that comes late, twice or out of order changes nothing.
"""

import json
from datetime import timedelta
from typing import Any

import stripe
import structlog
from django.conf import settings
from django.db.models import F
from django.utils import timezone
from django.utils.translation import gettext as _

from apps.payments import calls, customers, fetching, mirroring
from apps.payments.models import StripeEvent
from apps.payments.sending import wait_after
from maas import errors
from maas.queue import enqueue
from maas.tenancy import SystemUse, as_system, as_tenant

log = structlog.get_logger(__name__)
TOLERANCE = 300  # seconds that a signature may be old
LEASE = timedelta(minutes=3)
TRIED_FOR = timedelta(days=3)
PATIENCE = 3  # failures that end a sweep
KEPT = timedelta(days=90)
AT_ONCE = 50  # events that one sweep follows
KINDS = {
    "checkout.session.completed": "session",
    "customer.updated": "customer", "customer.deleted": "customer",
    **{f"customer.subscription.{what}": "subscription" for what in ("created", "updated", "deleted", "paused", "resumed")},
    **{
        f"invoice.{what}": "invoice"
        for what in ("created", "finalized", "paid", "payment_failed", "voided", "marked_uncollectible", "updated")
    },
}  # fmt: skip


# ---------- receiving ----------
def receive(body: bytes, signature: str | None) -> bool:
    """Store an event; False for one that was stored before.

    Raises NotFound where Stripe is not set up, BadRequest for a signature that is missing, wrong or older than 5 minutes.
    """
    event = _verified(body, signature)
    ours, now = event["type"] in KINDS, timezone.now()
    waiting = {"next_at": now} if ours else {"processed_at": now, "outcome": "ignored"}
    with as_system(SystemUse.COLLECT_PAYMENTS):
        row, made = StripeEvent.objects.get_or_create(pk=event.pop("id"), defaults={**event, "received_at": now, **waiting})
        if made and ours:
            enqueue("workers.tasks.follow_stripe_event", event_id=row.id)
    return made


def _verified(body: bytes, signature: str | None) -> dict[str, str]:
    if not (calls.is_on() and settings.STRIPE_WEBHOOK_SECRET):
        raise errors.NotFound("Stripe is not set up here: set STRIPE_SECRET_KEY and STRIPE_WEBHOOK_SECRET.", code="payments_off")
    signature = signature if signature and signature.isascii() else None  # others cannot be compared
    try:
        stripe.Webhook.construct_event(body, signature, settings.STRIPE_WEBHOOK_SECRET, TOLERANCE, api_key=settings.STRIPE_SECRET_KEY)
        payload = json.loads(body)
        found = {"id": payload["id"], "type": payload["type"], "object_id": _object_id(payload)}
    except stripe.SignatureVerificationError as error:
        raise errors.BadRequest(_("The signature does not fit: %(why)s.") % {"why": error.user_message}, code="invalid_signature") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise errors.BadRequest(_("This is no event of Stripe's."), code="invalid_event") from None
    if not all(isinstance(value, str) and len(value) <= 100 and "\0" not in value for value in found.values()):
        raise errors.BadRequest(_("This is no event of Stripe's."), code="invalid_event")
    return {**found, "payload": body.decode()}


def _object_id(payload: dict[str, Any]) -> str:
    """Some objects have none, such as an invoice that is only foretold."""
    return payload["data"]["object"].get("id") or ""


# ---------- following ----------
def follow(event_id: str) -> bool:
    """Mirror what an event is about, unless that was done or another worker is at it. False for a failure: it is tried again later."""
    event = _claim(event_id) if calls.is_on() else None
    if event is None:
        return True
    try:
        look = fetching.look_at(KINDS[event.type], event.object_id, retries=0)
        _mirror(event, look)
    except Exception as error:
        # Whatever it is, the event must not be lost nor hold up others.
        log.warning("a stripe event was not followed", event_id=event.id, type=event.type, error=str(error))
        _put_off(event, f"{type(error).__name__}: {error}")
        return False
    return True


def follow_due() -> None:
    """Follow the events whose time has come: those whose nudge was lost, and those that failed."""
    with as_system(SystemUse.COLLECT_PAYMENTS):
        due = StripeEvent.objects.filter(processed_at=None, next_at__lte=timezone.now()).order_by("next_at")
        waiting = list(due.values_list("id", flat=True)[:AT_ONCE])
    failures = 0
    for event_id in waiting:
        failures += not follow(event_id)
        if failures >= PATIENCE:  # each may take as long as a call may: the others come with the next sweep
            return


def _claim(event_id: str) -> StripeEvent | None:
    now = timezone.now()
    with as_system(SystemUse.COLLECT_PAYMENTS):
        due = StripeEvent.objects.filter(pk=event_id, processed_at=None, next_at__lte=now)
        taken = due.update(attempts=F("attempts") + 1, next_at=now + LEASE)
        return StripeEvent.objects.get(pk=event_id) if taken else None


def _mirror(event: StripeEvent, look: fetching.Look) -> None:
    """Write what was seen and that the event is done in one transaction."""
    tenant_id = customers.tenant_of(look.customer, look.subscription) if look.objects else None
    if not look.objects:
        return _end(event, "ignored", "Stripe no longer has the object.")
    if tenant_id is None:
        return _end(event, "failed", f"No organisation belongs to the customer '{look.customer}'.")
    with as_tenant(tenant_id):
        mirroring.write(tenant_id, look)
        _end(event, "mirrored")
    return None


def _end(event: StripeEvent, outcome: str, error: str = "") -> None:
    with as_system(SystemUse.COLLECT_PAYMENTS):
        done = timezone.now() if outcome != "failed" else None
        StripeEvent.objects.filter(pk=event.pk).update(processed_at=done, outcome=outcome, next_at=None, error=error[:300])


def _put_off(event: StripeEvent, error: str) -> None:
    """Try again after 5, 10, 20 seconds, up to an hour; after three days nothing more is tried."""
    now = timezone.now()
    if now > event.received_at + TRIED_FOR:
        return _end(event, "failed", error)
    with as_system(SystemUse.COLLECT_PAYMENTS):
        mine = StripeEvent.objects.filter(pk=event.pk, processed_at=None, attempts=event.attempts)
        mine.update(next_at=now + wait_after(event.attempts), error=error[:300])
    return None


def follow_again(event_id: str) -> bool:
    """Let an event that failed be tried once more, for the operator; False when there is no such one."""
    with as_system(SystemUse.COLLECT_PAYMENTS):
        failed = StripeEvent.objects.filter(pk=event_id, outcome="failed")
        found = failed.update(outcome="", next_at=timezone.now(), error="", received_at=timezone.now())
    follow(event_id)
    return bool(found)


def forget_old() -> int:
    """Remove events that were done long ago, a few at a time; how many."""
    with as_system(SystemUse.COLLECT_PAYMENTS):
        old = StripeEvent.objects.filter(processed_at__lt=timezone.now() - KEPT).values_list("id", flat=True)[:1000]
        return StripeEvent.objects.filter(pk__in=list(old)).delete()[0]
