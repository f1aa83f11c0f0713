"""Invoices: what the next one will hold, those that were made, and copies of those that Stripe made."""

from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from django.utils import timezone
from django.utils.translation import gettext as _

from apps.accounts.services import Tenant
from apps.billing import history, subscriptions
from apps.billing.closing import close_month, close_months
from apps.billing.models import Collector, Invoice, InvoiceLine, InvoiceState
from apps.billing.money import CENT
from apps.billing.months import hold_money, this_month
from apps.billing.statements import Detail, Line, Statement, lines_of, state_month
from apps.usage.periods import month_after
from maas import errors, ids
from maas.actors import require_operator
from maas.events import InvoiceChanged, publish
from maas.tenancy import SystemUse, as_system, as_tenant

__all__ = ["Detail", "Invoice", "InvoiceState", "Line", "Statement", "close_month", "close_months"]  # what the layers above may name


@dataclass(frozen=True)
class Preview:
    """The invoice of the 1st after a month, as it stands; of a closed month it is what was made."""

    statement: Statement
    lines: list[Line]
    issued_on: date
    collected_by: str

    @property
    def total_cents(self) -> int:
        return sum(line.cents for line in self.lines)

    @property
    def charge_cents(self) -> int:
        """What the month's units cost besides credit: what Stripe is told."""
        return self.statement.due_cents

    @property
    def details(self) -> list[Detail]:
        return self.statement.details


# ---------- looking ----------
def preview(tenant: Tenant, period: date | None = None) -> Preview:
    """What the units of a month (this one if None) cost so far, line by line, and the plan that is paid with them."""
    period = period or this_month()
    with as_tenant(tenant.id):
        statement = state_month(tenant, period)
        made = Invoice.objects.filter(tenant=tenant, period=period, collected_by=Collector.MANUAL).first()
        lines = _made_lines(made) if made else lines_of(tenant, statement)
        following = month_after(period)
        return Preview(statement, lines, following, history.collector_of(tenant.id, following))


def charge_cents(tenant: Tenant, period: date) -> int:
    """What the units of a month cost besides credit, cumulative, in cents: what Stripe is told. It may fall when credit comes."""
    with as_tenant(tenant.id):
        return state_month(tenant, period).due_cents


def list_invoices(tenant: Tenant, *, after: UUID | None = None, limit: int = 20) -> tuple[list[Invoice], bool]:
    """A page of invoices, newest first, and whether there are more; `after` is the last of the page before."""
    with as_tenant(tenant.id):
        rows = Invoice.objects.filter(tenant=tenant, **({"id__lt": after} if after else {})).order_by("-id")
        found = list(rows[: limit + 1])
    return found[:limit], len(found) > limit


def get_invoice(tenant: Tenant, invoice_id: UUID) -> tuple[Invoice, list[InvoiceLine]]:
    """One invoice with its lines in order; NotFound for any other."""
    with as_tenant(tenant.id):
        invoice = Invoice.objects.filter(tenant=tenant, pk=invoice_id).first()
        if invoice is None:
            raise errors.NotFound(_("There is no invoice '%(id)s'.") % {"id": ids.encode(ids.INVOICE, invoice_id)}, param="id")
        return invoice, list(InvoiceLine.objects.filter(tenant=tenant, invoice=invoice).order_by("position"))


def _made_lines(invoice: Invoice) -> list[Line]:
    rows = InvoiceLine.objects.filter(tenant_id=invoice.tenant_id, invoice=invoice, amount_cents__isnull=False).order_by("position")
    return [
        Line(row.kind, row.text, row.amount, row.amount_cents or 0, row.units, row.included, row.charged, row.unit_price) for row in rows
    ]


# ---------- paying ----------
def mark_invoice_paid(tenant: Tenant, invoice_id: UUID, *, note: str = "") -> Invoice:
    """Note that a manual invoice was paid; when none is overdue any more calls run again. The operator alone may."""
    return _settle(tenant, invoice_id, InvoiceState.PAID, note)


def void_invoice(tenant: Tenant, invoice_id: UUID, *, note: str = "") -> Invoice:
    """Take a manual invoice back: nobody has to pay it. The operator alone may."""
    return _settle(tenant, invoice_id, InvoiceState.VOID, note)


def give_invoice_up(tenant: Tenant, invoice_id: UUID, *, note: str = "") -> Invoice:
    """Note that a manual invoice will not be paid. What is overdue stays overdue. The operator alone may."""
    return _settle(tenant, invoice_id, InvoiceState.UNCOLLECTIBLE, note)


def note_overdue_invoices() -> int:
    """Tell of manual invoices that are past their day; how many organisations owe. Running it twice does no harm."""
    with as_system(SystemUse.CLOSE_MONTHS):
        late = Invoice.objects.filter(collected_by=Collector.MANUAL, state=InvoiceState.OPEN, due_at__lte=timezone.now())
        first = {invoice.tenant_id: invoice for invoice in late.select_related("tenant").order_by("-due_at")}
    for invoice in first.values():
        subscriptions.note_overdue(invoice.tenant, since=invoice.due_at or timezone.now(), by=Collector.MANUAL)
    return len(first)


def _settle(tenant: Tenant, invoice_id: UUID, state: str, note: str) -> Invoice:
    require_operator()
    get_invoice(tenant, invoice_id)
    with as_tenant(tenant.id):
        mine = Invoice.objects.filter(tenant=tenant, pk=invoice_id, collected_by=Collector.MANUAL)
        payable = mine.filter(state__in=[InvoiceState.OPEN, InvoiceState.UNCOLLECTIBLE]).exclude(state=state)
        paid_at = timezone.now() if state == InvoiceState.PAID else None
        if not payable.update(state=state, paid_at=paid_at, note=note[:200]):
            raise errors.BadRequest(_("Only an open invoice of the platform itself can be changed."), param="state", code="invalid_state")
        invoice = mine.get()
        _tell(invoice)
    if state != InvoiceState.UNCOLLECTIBLE and not _owes(tenant):
        subscriptions.note_paid(tenant, by=Collector.MANUAL)
    return invoice


def _owes(tenant: Tenant) -> bool:
    """Whether another manual invoice is past its day, or was given up."""
    with as_tenant(tenant.id):
        rows = Invoice.objects.filter(tenant=tenant, collected_by=Collector.MANUAL)
        late = rows.filter(state=InvoiceState.OPEN, due_at__lte=timezone.now()) | rows.filter(state=InvoiceState.UNCOLLECTIBLE)
        return late.exists()


def _tell(invoice: Invoice) -> None:
    after = {"state": invoice.state, "total": invoice.total_cents}
    publish(InvoiceChanged(tenant_id=invoice.tenant_id, label=invoice.number or invoice.stripe_id or "", after=after))


# ---------- copies ----------
def mirror_invoice(tenant: Tenant, *, stripe_id: str, lines: list[dict[str, Any]] | None = None, **fields: Any) -> Invoice:
    """Keep a copy of an invoice of Stripe: `fields` are those of `Invoice`, `lines` have `text` and `amount_cents`.

    The same twice is one; the latest call counts.
    """
    require_operator()
    with as_tenant(tenant.id):
        hold_money(tenant.id)
        before = Invoice.objects.filter(tenant=tenant, stripe_id=stripe_id).first()
        invoice, _made = Invoice.objects.update_or_create(
            tenant=tenant, stripe_id=stripe_id, defaults={**fields, "collected_by": Collector.STRIPE}
        )
        if lines is not None:
            InvoiceLine.objects.filter(tenant=tenant, invoice=invoice).delete()
            InvoiceLine.objects.bulk_create(_copies(invoice, lines))
        if before is None or (before.state, before.total_cents) != (invoice.state, invoice.total_cents):
            _tell(invoice)
    return invoice


def _copies(invoice: Invoice, lines: list[dict[str, Any]]) -> list[InvoiceLine]:
    return [
        InvoiceLine(
            tenant_id=invoice.tenant_id, invoice=invoice, position=position, kind=line.get("kind", "other"), text=line["text"][:300],
            amount=line["amount_cents"] * CENT, amount_cents=line["amount_cents"],
        )
        for position, line in enumerate(lines)
    ]  # fmt: skip
