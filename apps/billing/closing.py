"""The end of a month: work that is still open is closed, credit is drawn, the invoice is made. Once, whoever comes first."""

from datetime import date, datetime, timedelta

import structlog
from django.db import connection
from django.db.models import Exists, Max, OuterRef, Q
from django.utils import timezone

from apps.accounts.services import Tenant
from apps.billing import alerts, credits, history, lots, terms
from apps.billing.models import ClosedMonth, Collector, Invoice, InvoiceLine, InvoiceState, PlanChange
from apps.billing.months import end_of, hold_money, stand_in_line, this_month
from apps.billing.plans import every_plan
from apps.billing.statements import Line, Statement, lines_of, state_month
from apps.usage import allowances, reservations
from apps.usage.models import Allowance, Scope
from apps.usage.periods import month_after, month_of
from maas.events import InvoiceChanged, publish
from maas.tenancy import SystemUse, as_system, as_tenant

SETTLED = timedelta(hours=1)  # after a month's end: what began in it has been charged, or will not be
DUE = timedelta(days=14)  # after an invoice was made
NEXT_NUMBER = """INSERT INTO billing_invoicenumber (month, last) VALUES (%s, 1)
    ON CONFLICT (month) DO UPDATE SET last = billing_invoicenumber.last + 1 RETURNING last"""
log = structlog.get_logger(__name__)


def close_months() -> int:
    """Close what is over for an hour, for all tenants, the earliest month first; how many months. It may be killed anywhere."""
    closed = 0
    for tenant, period in due_months():
        try:
            closed += close_month(tenant, period)
        except Exception:  # one tenant's trouble must not keep the others' invoices back; the next beat tries again
            log.exception("month not closed", tenant=str(tenant.id), period=str(period))
    return closed


def close_month(tenant: Tenant, period: date) -> bool:
    """Close one month of one tenant in one transaction; False when it was closed before, or is not over for an hour yet."""
    now = timezone.now()
    if now < end_of(period) + SETTLED:
        return False
    with as_tenant(tenant.id):
        stand_in_line(tenant.id, this_month())
        allowances.lock_month(tenant.id, period)
        hold_money(tenant.id)
        if ClosedMonth.objects.filter(tenant=tenant, period=period).exists():
            return False
        reservations.release_month(tenant.id, period)
        lots.write_off(tenant.id, now)
        alerts.tell(tenant, period)
        _close(tenant, period, now)
        terms.refresh(tenant, now)
    return True


def due_months() -> list[tuple[Tenant, date]]:
    """Months that are over for an hour and not closed: those in which something was used, and those that a plan is paid for."""
    latest = month_after(month_of(timezone.now() - SETTLED), -1)
    with as_system(SystemUse.CLOSE_MONTHS):
        closed = ClosedMonth.objects.filter(tenant_id=OuterRef("tenant_id"), period=OuterRef("period"))
        begun = Allowance.objects.filter(~Exists(closed), scope=Scope.TENANT, period__lte=latest).select_related("tenant")
        due = {(row.tenant, row.period) for row in begun}
        paying = _paying(end_of(latest))
        last = dict(ClosedMonth.objects.values_list("tenant_id").annotate(last=Max("period")))
    for tenant in paying:
        due |= {(tenant, period) for period in _paid_months(tenant, last.get(tenant.id), latest)}
    return sorted(due, key=lambda row: (row[1], row[0].id))


def _paying(before: datetime) -> list[Tenant]:
    """Who may have a plan to pay for, of those that were there at that moment."""
    priced = [name for name, plan in every_plan().items() if plan.monthly_price]
    changed = PlanChange.objects.filter(Q(before__in=priced) | Q(after__in=priced)).values("tenant_id")
    return list(Tenant.objects.filter(Q(plan__in=priced) | Q(pk__in=changed), created_at__lt=before))


def _paid_months(tenant: Tenant, last_closed: date | None, latest: date) -> list[date]:
    """The months since the last closed one (the latest alone, if none was) after which a plan with a price is to be paid."""
    first = month_after(last_closed) if last_closed else latest
    count = (latest.year - first.year) * 12 + latest.month - first.month + 1
    if count < 1:
        return []
    with as_tenant(tenant.id):
        return [period for period in (month_after(first, step) for step in range(count)) if _has_price(tenant, period)]


def _has_price(tenant: Tenant, period: date) -> bool:
    known = every_plan()
    names = [change.after for change in history.changes_in(tenant.id, period)]
    return any(known[name].monthly_price for name in names if name in known) or bool(
        history.plan_at_start(tenant.id, month_after(period)).monthly_price
    )


def _close(tenant: Tenant, period: date, now: datetime) -> None:
    statement = state_month(tenant, period)
    credits.draw_month(tenant, period, statement.credit_cents)
    lines = lines_of(tenant, statement)
    payer = history.collector_of(tenant.id, month_after(period))
    same = ("plan", "units", "included", "unit_price", "usage_cents", "credit_cents", "waived_cents")
    collector = history.collector_of(tenant.id, period)
    ClosedMonth.objects.create(
        tenant=tenant, period=period, collected_by=collector, **{name: getattr(statement, name) for name in same}
    )  # fmt: skip
    total = sum(line.cents for line in lines)
    if payer == Collector.MANUAL and total > 0:
        _make_invoice(tenant, statement, lines, total, now)


def _make_invoice(tenant: Tenant, statement: Statement, lines: list[Line], total: int, now: datetime) -> None:
    invoice = Invoice.objects.create(
        tenant=tenant, period=statement.period, state=InvoiceState.OPEN, collected_by=Collector.MANUAL, subtotal_cents=total,
        total_cents=total, issued_at=now, due_at=now + DUE, number=_take_number(month_after(statement.period)),
    )  # fmt: skip
    InvoiceLine.objects.bulk_create(invoice_lines(invoice, statement, lines))
    after = {"state": invoice.state, "total": total}
    publish(InvoiceChanged(tenant_id=tenant.id, label=invoice.number, after=after))


def invoice_lines(invoice: Invoice, statement: Statement, lines: list[Line]) -> list[InvoiceLine]:
    """The lines, and below the one of the units what it is made of."""
    rows = []
    for line in lines:
        facts = {name: getattr(line, name) for name in ("kind", "text", "units", "included", "charged", "unit_price", "amount")}
        rows.append(InvoiceLine(**facts, amount_cents=line.cents))
        if line.kind == "usage":
            rows += [_detail_line(statement, part) for part in statement.details]
    for position, row in enumerate(rows):
        row.tenant_id, row.invoice, row.position = invoice.tenant_id, invoice, position
    return rows


def _detail_line(statement: Statement, part: object) -> InvoiceLine:
    facts = {name: getattr(part, name) for name in ("model", "key_id", "units", "included", "charged", "amount")}
    return InvoiceLine(kind="detail", text=facts["model"], unit_price=statement.unit_price, **facts)


def _take_number(month: date) -> str:
    """Taken last and given back with the transaction: no number is missing and none is there twice."""
    with connection.cursor() as cursor:
        cursor.execute(NEXT_NUMBER, [month])
        return f"MAAS-{month:%Y-%m}-{cursor.fetchone()[0]:04}"
