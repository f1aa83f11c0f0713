# ruff: noqa: S608  # every piece of SQL is a constant of this file
"""Proof that ledger, allowances, credit, invoices and what Stripe was told are one, or what differs and where."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from uuid import UUID

from django.db import connection

from apps.billing.models import ClosedMonth, Collector
from apps.billing.money import to_cents
from maas.tenancy import SystemUse, as_system


@dataclass(frozen=True)
class Told:
    """What the collector of payments was told of a month: units, and cents of `invoices.charge_cents`."""

    tenant_id: UUID
    period: date
    units: int
    cents: int


@dataclass(frozen=True)
class Difference:
    """What differs, where, and both figures."""

    what: str
    where: str
    left: str
    right: str

    def __str__(self) -> str:
        return f"{self.what}: {self.where}: {self.left}, {self.right}"


@dataclass
class Totals:
    """What was compared."""

    tenants: set[UUID] = field(default_factory=set)
    months: int = 0
    units: int = 0
    cents: int = 0


_told: list[Callable[[], Iterable[Told]]] = []


def declare_told(function: Callable[[], Iterable[Told]]) -> None:
    """Name what says, for all tenants and months, what Stripe was told. Payments lie above billing and call this at the start."""
    if function not in _told:
        _told.append(function)


def differences(totals: Totals | None = None) -> Iterator[Difference]:
    """Every figure that is not what another one says. Work that goes on does not disturb it: a question is one statement."""
    totals = totals or Totals()
    for sql, what in QUESTIONS:
        for where, left, right in _rows(sql):
            yield Difference(what, where, left, right)
    yield from _closed_months(totals)


def _rows(sql: str) -> list[tuple[str, str, str]]:
    with as_system(SystemUse.RECONCILE_BILLING), connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


# ---------- closed months ----------
def _closed_months(totals: Totals) -> Iterator[Difference]:
    with as_system(SystemUse.RECONCILE_BILLING):
        closed = list(ClosedMonth.objects.order_by("period", "tenant_id"))
    told = {(row.tenant_id, row.period): row for function in _told for row in function()}
    for month in closed:
        totals.tenants.add(month.tenant_id)
        totals.months, totals.units = totals.months + 1, totals.units + month.units
        totals.cents += month.usage_cents
        yield from _priced(month)
        if _told and month.collected_by == Collector.STRIPE:
            yield from _collected(month, told.get((month.tenant_id, month.period)))


def _priced(month: ClosedMonth) -> Iterator[Difference]:
    above = 0 if month.included is None else max(0, month.units - month.included)
    cents = to_cents(above * month.unit_price)
    if cents != month.usage_cents:
        yield Difference("charge", _where(month), f"{cents} cents by its units", f"{month.usage_cents} cents closed")
    if month.credit_cents + month.waived_cents > month.usage_cents:
        yield Difference(
            "charge", _where(month), f"{month.usage_cents} cents", f"{month.credit_cents} by credit, {month.waived_cents} waived"
        )


def _collected(month: ClosedMonth, told: Told | None) -> Iterator[Difference]:
    due = month.usage_cents - month.credit_cents - month.waived_cents
    units, cents = (told.units, told.cents) if told else (0, 0)
    if units != month.units:
        yield Difference("units told to Stripe", _where(month), f"{month.units} in the ledger", f"{units} told")
    if cents != due:
        yield Difference("charge told to Stripe", _where(month), f"{due} cents due", f"{cents} told")


def _where(month: ClosedMonth) -> str:
    return f"tenant {month.tenant_id}, {month.period:%Y-%m}"


# ---------- questions ----------
# Lines belong to the UTC month in which they were charged. What an archived month held stands in the roll-ups.
LEDGER = """
    SELECT tenant_id, (date_trunc('month', hour, 'UTC') AT TIME ZONE 'UTC')::date AS month, model, key_id, sum(units)::bigint AS units
    FROM (SELECT tenant_id, hour, model, key_id, units FROM usage_usagehourly WHERE period IN (SELECT period FROM usage_archivedmonth)
          UNION ALL SELECT tenant_id, created_at, model, key_id, units FROM usage_usagerecord WHERE kind <> 'void') AS lines
    GROUP BY 1, 2, 3, 4"""
COUNTED = """CASE a.scope WHEN 'tenant' THEN true WHEN 'key' THEN l.key_id = a.subject::uuid ELSE l.model = a.subject END"""
PLACE = """'tenant ' || a.tenant_id || ', ' || to_char(a.period, 'YYYY-MM')"""
ROW = PLACE + """ || CASE a.scope WHEN 'tenant' THEN '' ELSE ', ' || a.scope || ' ' || a.subject END"""

USED = f"""
WITH ledger AS MATERIALIZED ({LEDGER})
SELECT {ROW}, coalesce(sum(l.units), 0) || ' units in the ledger', a.used || ' used'
FROM usage_allowance a LEFT JOIN ledger l ON l.tenant_id = a.tenant_id AND l.month = a.period AND {COUNTED}
GROUP BY a.id, a.tenant_id, a.period, a.scope, a.subject, a.used HAVING coalesce(sum(l.units), 0) <> a.used"""
# A tenant that once began a month reserves ever after: later lines without a row were charged past every limit.
UNCOUNTED = f"""
WITH ledger AS MATERIALIZED ({LEDGER}), first AS (SELECT tenant_id, min(period) AS period FROM usage_allowance GROUP BY 1)
SELECT {PLACE.replace("a.period", "a.month")}, sum(a.units) || ' units in the ledger', 'no allowance'
FROM ledger a JOIN first USING (tenant_id) WHERE a.month > first.period
    AND NOT EXISTS (SELECT FROM usage_allowance o WHERE o.tenant_id = a.tenant_id AND o.period = a.month AND o.scope = 'tenant')
GROUP BY a.tenant_id, a.month HAVING sum(a.units) <> 0"""
RESERVED = f"""
SELECT {ROW}, coalesce(sum(r.units - r.settled), 0) || ' units in open reservations', a.reserved || ' reserved'
FROM usage_allowance a LEFT JOIN usage_reservation r ON r.tenant_id = a.tenant_id AND r.period = a.period AND r.closed_at IS NULL
    AND CASE a.scope WHEN 'tenant' THEN true WHEN 'key' THEN r.key_id = a.subject::uuid ELSE r.model = a.subject END
GROUP BY a.id, a.tenant_id, a.period, a.scope, a.subject, a.reserved HAVING coalesce(sum(r.units - r.settled), 0) <> a.reserved"""
CLOSED = f"""
SELECT {PLACE}, coalesce(sum(l.units), 0) || ' units in the ledger', a.units || ' closed'
FROM billing_closedmonth a LEFT JOIN ({LEDGER}) l ON l.tenant_id = a.tenant_id AND l.month = a.period
GROUP BY a.id, a.tenant_id, a.period, a.units HAVING coalesce(sum(l.units), 0) <> a.units"""
DRAWN = f"""
SELECT {PLACE}, a.credit_cents || ' cents by credit', coalesce(-sum(e.amount), 0) || ' micro-dollars drawn'
FROM billing_closedmonth a LEFT JOIN billing_creditentry e ON e.tenant_id = a.tenant_id AND e.period = a.period AND e.kind = 'draw'
GROUP BY a.id, a.tenant_id, a.period, a.credit_cents HAVING coalesce(-sum(e.amount), 0) <> a.credit_cents * 10000"""
OVERDRAWN = """
SELECT 'tenant ' || lot.tenant_id || ', lot ' || lot.id, lot.amount || ' micro-dollars', -sum(e.amount) || ' taken'
FROM billing_creditentry lot JOIN billing_creditentry e ON e.lot_id = lot.id
GROUP BY lot.id, lot.tenant_id, lot.amount HAVING lot.amount + sum(e.amount) < 0 OR bool_or(e.tenant_id <> lot.tenant_id)"""
INVOICED = f"""
SELECT {PLACE} || ', invoice ' || a.number, a.total_cents || ' cents', coalesce(sum(l.amount_cents), 0) || ' by its lines'
FROM billing_invoice a LEFT JOIN billing_invoiceline l ON l.invoice_id = a.id WHERE a.collected_by = 'manual'
GROUP BY a.id, a.tenant_id, a.period, a.number, a.total_cents HAVING coalesce(sum(l.amount_cents), 0) <> a.total_cents"""
UNITS_LINE = f"""
SELECT {PLACE} || ', invoice ' || i.number, a.usage_cents - a.credit_cents - a.waived_cents || ' cents due',
    coalesce(sum(l.amount_cents), 0) || ' on the invoice'
FROM billing_closedmonth a JOIN billing_invoice i ON i.tenant_id = a.tenant_id AND i.period = a.period AND i.collected_by = 'manual'
    LEFT JOIN billing_invoiceline l ON l.invoice_id = i.id AND l.kind IN ('usage', 'credit', 'waived') WHERE a.collected_by = 'manual'
GROUP BY a.id, a.tenant_id, a.period, i.number
HAVING coalesce(sum(l.amount_cents), 0) <> a.usage_cents - a.credit_cents - a.waived_cents"""
NOT_INVOICED = f"""
SELECT {PLACE}, a.usage_cents - a.credit_cents - a.waived_cents || ' cents due', 'no invoice'
FROM billing_closedmonth a LEFT JOIN billing_invoice i ON i.tenant_id = a.tenant_id AND i.period = a.period AND i.collected_by = 'manual'
WHERE a.collected_by = 'manual' AND i.id IS NULL AND a.usage_cents > a.credit_cents + a.waived_cents
    AND NOT EXISTS (SELECT FROM billing_account c WHERE c.tenant_id = a.tenant_id AND c.collected_by = 'stripe')"""
DETAILS = f"""
SELECT {PLACE} || ', invoice ' || a.number, max(l.amount) FILTER (WHERE l.kind = 'usage') || ' micro-dollars of units',
    coalesce(sum(l.amount) FILTER (WHERE l.kind = 'detail'), 0) || ' by model and key'
FROM billing_invoice a JOIN billing_invoiceline l ON l.invoice_id = a.id WHERE a.collected_by = 'manual'
GROUP BY a.id, a.tenant_id, a.period, a.number
HAVING max(l.amount) FILTER (WHERE l.kind = 'usage') <> coalesce(sum(l.amount) FILTER (WHERE l.kind = 'detail'), 0)"""
NUMBERS = """
SELECT to_char(n.month, 'YYYY-MM'), n.last || ' numbers given', count(i.id) || ' invoices'
FROM billing_invoicenumber n LEFT JOIN billing_invoice i ON i.number LIKE 'MAAS-' || to_char(n.month, 'YYYY-MM') || '-%'
    AND i.collected_by = 'manual' GROUP BY n.month, n.last HAVING count(i.id) <> n.last"""
COUPONS = """
SELECT 'coupon ' || c.code, c.redeemed || ' counted', count(r.id) || ' redeemed'
FROM billing_coupon c LEFT JOIN billing_redemption r ON r.coupon_id = c.id
GROUP BY c.id, c.code, c.redeemed HAVING count(r.id) <> c.redeemed"""
QUESTIONS = (
    (USED, "units used"), (UNCOUNTED, "units not counted"), (RESERVED, "units reserved"), (CLOSED, "units closed"),
    (DRAWN, "credit drawn"), (OVERDRAWN, "credit"), (INVOICED, "invoice total"), (UNITS_LINE, "invoiced units"),
    (NOT_INVOICED, "invoice missing"), (DETAILS, "invoice details"), (NUMBERS, "invoice numbers"), (COUPONS, "coupons"),
)  # fmt: skip
