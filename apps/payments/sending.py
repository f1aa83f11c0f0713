"""From the outbox to Stripe, each event once, whatever dies in between.

An attempt is claimed in one transaction, made outside of any, and noted in another. When nobody knows whether it arrived,
it is made again under the same identifier, which Stripe refuses if it has it. Stripe forgets identifiers after a day; so
an event whose first uncertain attempt is older than 23 hours is held, and the reconciliation names it.
"""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta

import stripe
import structlog
from django.conf import settings
from django.utils import timezone

from apps.payments import calls
from apps.payments.models import MeterEvent
from maas import queue
from maas.tenancy import SystemUse, as_system, as_tenant

log = structlog.get_logger(__name__)
REMEMBERED = timedelta(hours=23)  # Stripe tells a repeat by its identifier for 24
LONGEST_WAIT = timedelta(hours=1)
TURN_SECONDS = 60.0
PATIENCE = 3  # attempts without an answer that end a turn
SPARE = timedelta(seconds=30)  # that a lease lasts beyond the longest call
HAS_IT = "already exists with identifier"


@dataclass(frozen=True)
class Result:
    """What came of an attempt: `arrived`, `refused` (Stripe does not have it) or `unknown`."""

    kind: str
    error: str = ""


@dataclass(frozen=True)
class Claim:
    """An event in this worker's hands until its lease ends. `uncertain_since` is what it was before this attempt."""

    event: MeterEvent
    uncertain_since: datetime | None


def send_due() -> None:
    """Send what is due until nothing is or the turn is over; then ask for another turn."""
    if not calls.is_on():
        return
    end, failures = time.monotonic() + TURN_SECONDS, 0
    while (claim := claim_event()) is not None:
        result = send(claim.event)
        settle(claim, result)
        failures += result.kind == "unknown"
        if failures >= PATIENCE:  # each may take as long as a call may: the others come with the next sweep
            return
        if time.monotonic() > end:
            queue.nudge("workers.tasks.send_meter_events")
            return


def claim_event() -> Claim | None:
    """Take the event that is due first. Those that Stripe could count twice are set aside on the way."""
    while True:
        with as_system(SystemUse.COLLECT_PAYMENTS):
            due = MeterEvent.objects.filter(sent_at=None, held_at=None, next_at__lte=timezone.now())
            event = due.select_for_update(skip_locked=True, of=("self",)).order_by("next_at", "id").first()
            if event is None:
                return None
            if not _is_forgotten(event):
                return _take(event)
            _hold(event)


def send(event: MeterEvent) -> Result:
    """One call, outside of any transaction."""
    payload = {"stripe_customer_id": event.customer, "value": str(event.value)}
    try:
        calls.client().v1.billing.meter_events.create(
            {"event_name": event.meter, "identifier": event.identifier, "timestamp": int(event.timestamp.timestamp()), "payload": payload},
            {"max_network_retries": 0},
        )
    except stripe.InvalidRequestError as error:
        return Result("arrived") if HAS_IT in str(error) else Result("refused", str(error))
    except calls.UNCERTAIN as error:
        return Result("refused" if calls.never_sent(error) else "unknown", str(error))
    except stripe.StripeError as error:
        return Result("refused", str(error))
    return Result("arrived")


def settle(claim: Claim, result: Result) -> None:
    """Note what came of an attempt. That it arrived is true whoever holds the event by now; a failure is the holder's to note."""
    event, error = claim.event, result.error[:300]
    with as_tenant(event.tenant_id):
        rows = MeterEvent.objects.filter(tenant_id=event.tenant_id, pk=event.pk, sent_at=None)
        if result.kind == "arrived":
            rows.update(sent_at=timezone.now(), next_at=None, held_at=None, last_error="")
            return
        log.warning("a meter event was not taken", identifier=event.identifier, error=error, known=result.kind)
        since = event.uncertain_since if result.kind == "unknown" else claim.uncertain_since
        rows.filter(attempts=event.attempts).update(
            uncertain_since=since, next_at=timezone.now() + wait_after(event.attempts), last_error=error
        )


def decide(identifier: str, *, arrived: bool) -> bool:
    """What the operator found out about a held event: Stripe has it, or it is to be sent; False when none is held."""
    now = timezone.now()
    known = {"sent_at": now} if arrived else {"next_at": now, "uncertain_since": None}
    with as_system(SystemUse.COLLECT_PAYMENTS):
        held = MeterEvent.objects.filter(identifier=identifier, sent_at=None, held_at__isnull=False)
        return bool(held.update(held_at=None, **known))


def wait_after(attempts: int) -> timedelta:
    """5, 10, 20 seconds, up to an hour."""
    return min(LONGEST_WAIT, timedelta(seconds=5 * 2 ** min(attempts - 1, 12)))


def _is_forgotten(event: MeterEvent) -> bool:
    return event.uncertain_since is not None and event.uncertain_since < timezone.now() - REMEMBERED


def _hold(event: MeterEvent) -> None:
    MeterEvent.objects.filter(pk=event.pk).update(held_at=timezone.now(), next_at=None)
    log.error("a meter event is held: nobody knows whether Stripe has it", identifier=event.identifier)


def _take(event: MeterEvent) -> Claim:
    before, now = event.uncertain_since, timezone.now()
    event.attempts += 1
    event.uncertain_since = before or now
    event.next_at = now + timedelta(seconds=settings.MAAS_STRIPE_TIMEOUT) + SPARE
    event.save(update_fields=["attempts", "uncertain_since", "next_at"])
    return Claim(event, before)
