"""Whether what Stripe was told, and what it invoiced, is what billing says; and what waits for the operator."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from django.db import connection
from django.db.models import Q, Sum
from django.utils import timezone

from apps.billing.reconciling import Difference, Told
from apps.payments import calls
from apps.payments.catalogue import CHARGES, UNITS
from apps.payments.models import MeterEvent, StripeEvent
from apps.usage.periods import month_after
from maas.tenancy import SystemUse, as_system

LATE = timedelta(hours=1)  # that something may wait
INVOICED = """
SELECT i.tenant_id, i.period, sum(l.amount_cents) FROM billing_invoice i JOIN billing_invoiceline l ON l.invoice_id = i.id
WHERE i.collected_by = 'stripe' AND i.state NOT IN ('draft', 'void') AND l.kind = 'usage' GROUP BY 1, 2"""


def told() -> list[Told]:
    """What Stripe has taken for certain, for every tenant and month."""
    with as_system(SystemUse.RECONCILE_BILLING):
        rows = MeterEvent.objects.filter(sent_at__isnull=False).values("tenant_id", "period").order_by("period", "tenant_id")
        sums = rows.annotate(units=Sum("value", filter=Q(meter=UNITS), default=0), cents=Sum("value", filter=Q(meter=CHARGES), default=0))
        return [Told(row["tenant_id"], row["period"], row["units"], row["cents"]) for row in sums]


def differences(*, ask_stripe: bool = False) -> Iterator[Difference]:
    """What is not as it should be: events that are held or late, and invoices of Stripe that do not hold what it was told.

    With `ask_stripe` the meters at Stripe are compared too, one question for each tenant, month and meter of the last 40 days.
    """
    yield from _held()
    yield from _unfollowed()
    yield from _invoiced()
    if ask_stripe:
        yield from _at_stripe()


def _held() -> Iterator[Difference]:
    with as_system(SystemUse.RECONCILE_BILLING):
        late = Q(held_at__isnull=False) | Q(created_at__lt=timezone.now() - LATE)
        rows = list(MeterEvent.objects.filter(late, sent_at=None).order_by("id"))
    for row in rows:
        state = "held: Stripe may have it or not" if row.held_at else f"waiting: {row.last_error or 'not sent'}"
        yield Difference("meter event", f"tenant {row.tenant_id}, {row.identifier}", f"{row.value} of {row.meter}", state)


def _unfollowed() -> Iterator[Difference]:
    with as_system(SystemUse.RECONCILE_BILLING):
        late = Q(outcome="failed") | Q(received_at__lt=timezone.now() - LATE)
        rows = list(StripeEvent.objects.filter(late, processed_at=None).order_by("received_at").defer("payload"))
    for row in rows:
        yield Difference(
            "event of Stripe", f"{row.id}, {row.type}", f"received {row.received_at:%Y-%m-%d %H:%M}", row.error or "not followed"
        )


def _invoiced() -> Iterator[Difference]:
    """A month is on the invoice of the 1st after it. Below zero Stripe charges nothing."""
    with as_system(SystemUse.RECONCILE_BILLING), connection.cursor() as cursor:
        cursor.execute(INVOICED)
        invoiced = {(tenant_id, period): int(cents) for tenant_id, period, cents in cursor.fetchall()}
    for row in told():
        found = invoiced.get((row.tenant_id, row.period))
        if found is not None and found != max(0, row.cents):
            yield Difference(
                "invoice of Stripe", f"tenant {row.tenant_id}, {row.period:%Y-%m}", f"{row.cents} cents told", f"{found} invoiced"
            )


def _at_stripe() -> Iterator[Difference]:
    meters = {meter.event_name: meter.id for meter in calls.client().v1.billing.meters.list({"limit": 100}).auto_paging_iter()}
    with as_system(SystemUse.RECONCILE_BILLING):
        lately = MeterEvent.objects.filter(timestamp__gt=timezone.now() - timedelta(days=40), sent_at__isnull=False)
        sums = list(lately.values("tenant_id", "customer", "period", "meter").annotate(told=Sum("value")).order_by("period", "tenant_id"))
    for row in sums:
        start, end = (
            int(datetime.combine(day, datetime.min.time(), UTC).timestamp()) for day in (row["period"], month_after(row["period"]))
        )
        span = {"customer": row["customer"], "start_time": start, "end_time": end}
        found = calls.client().v1.billing.meters.event_summaries.list(meters[row["meter"]], span).data  # type: ignore[arg-type]
        counted = sum(int(one.aggregated_value) for one in found)
        if counted != row["told"]:
            where = f"tenant {row['tenant_id']}, {row['period']:%Y-%m}, {row['meter']}"
            yield Difference("meter at Stripe", where, f"{row['told']} told", f"{counted} counted")
