"""What Stripe is told of a month: all units, and the cents that billing works out, each as the change since it was last told."""

from datetime import date, datetime, timedelta
from uuid import UUID

import structlog
from django.db.models import Q
from django.utils import timezone

from apps.accounts.services import Tenant
from apps.billing.invoices import charge_cents
from apps.payments import calls
from apps.payments.catalogue import CHARGES, UNITS
from apps.payments.mirroring import LIVING
from apps.payments.models import Meter, MeterEvent, Subscription
from apps.usage import allowances
from apps.usage.periods import end_of, month_after, month_of, start_of
from maas import queue
from maas.tenancy import SystemUse, as_system, as_tenant

log = structlog.get_logger(__name__)


def tell_usage() -> None:
    """Write down what Stripe is to be told of the running month and the one before, for every tenant that it collects from.

    Running it twice, or in two places at once, tells nothing twice.
    """
    if not calls.is_on():
        return
    months = _months(timezone.now())
    for tenant_id in _payers(months[0]):
        for period in months:
            _tell_safely(tenant_id, period)
    queue.nudge("workers.tasks.send_meter_events")


def tell_month(tenant_id: UUID, period: date) -> int:
    """Write what changed in a month since Stripe was last told; how many events that makes.

    The meter's row is held while usage is read, so two tellings never count the same units.
    """
    with as_tenant(tenant_id):
        customer = payer(tenant_id, period)
        if customer is None:
            return 0
        Meter.objects.get_or_create(tenant_id=tenant_id, period=period)
        meter = Meter.objects.select_for_update().get(tenant_id=tenant_id, period=period)
        units, cents = totals(tenant_id, period)
        changes = {UNITS: units - meter.units_told, CHARGES: cents - meter.cents_told}
        events = _write(meter, customer, {name: value for name, value in changes.items() if value})
        if events:
            Meter.objects.filter(pk=meter.pk).update(units_told=units, cents_told=cents, sequence=meter.sequence + 1)
        return events


def totals(tenant_id: UUID, period: date) -> tuple[int, int]:
    """Units and cents of a month as the ledger and billing have them now, in the caller's transaction."""
    used = [row.used for row in allowances.standings(tenant_id, period) if row.scope == "tenant"]
    return sum(used), charge_cents(Tenant.objects.get(pk=tenant_id), period)


def payer(tenant_id: UUID, period: date) -> str | None:
    """Stripe's customer that a month is told of: the one whose subscription lived in it last."""
    start, end = start_of(period), end_of(period)
    lived = Q(ended_at=None, status__in=LIVING) | Q(ended_at__gt=start)
    rows = Subscription.objects.filter(lived, tenant_id=tenant_id, started_at__lt=end)
    return rows.order_by("-started_at").values_list("customer", flat=True).first()


def identifier(tenant_id: UUID, period: date, meter: str, sequence: int) -> str:
    """By this Stripe knows an event again."""
    return f"maas-{tenant_id.hex}-{period:%Y%m}-{meter}-{sequence}"


def _write(meter: Meter, customer: str, changes: dict[str, int]) -> int:
    """Stripe counts an event in the month of its time, so what is told after the end is dated to the last second."""
    now = timezone.now().replace(microsecond=0)
    moment = min(now, end_of(meter.period) - timedelta(seconds=1))
    number = meter.sequence + 1
    events = [
        MeterEvent(
            tenant_id=meter.tenant_id, period=meter.period, sequence=number, meter=name, value=value, customer=customer,
            identifier=identifier(meter.tenant_id, meter.period, name, number), timestamp=moment, next_at=now,
        )
        for name, value in changes.items()
    ]  # fmt: skip
    return len(MeterEvent.objects.bulk_create(events))


def _tell_safely(tenant_id: UUID, period: date) -> None:
    """One tenant's trouble is not the others'; the next run tries again."""
    try:
        tell_month(tenant_id, period)
    except Exception:
        log.exception("usage could not be told", tenant_id=str(tenant_id), period=str(period))


def _payers(since: date) -> list[UUID]:
    with as_system(SystemUse.COLLECT_PAYMENTS):
        rows = Subscription.objects.filter(Q(ended_at=None, status__in=LIVING) | Q(ended_at__gt=start_of(since)))
        return sorted(set(rows.values_list("tenant_id", flat=True)))


def _months(now: datetime) -> list[date]:
    return [month_after(month_of(now), -1), month_of(now)]
