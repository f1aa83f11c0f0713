"""Money, as the operator sees it. Whatever changes anything is a deed, which calls the same services as everybody."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import structlog
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.decorators import display

from apps.accounts import operator_deeds
from apps.accounts.admin import TenantAdmin
from apps.accounts.models import Tenant
from apps.accounts.operator_deeds import Deed, DeedsAdmin
from apps.accounts.operator_site import OperatorAdmin, OperatorInline, site
from apps.billing import credits, invoices, subscriptions
from apps.billing.models import Account, Budget, Collector, Coupon, CreditEntry, Invoice, InvoiceLine, InvoiceState
from apps.billing.money import dollars
from apps.billing.operator_forms import CouponForm, CreditForm, NoteForm, PlanForm
from apps.billing.plans import FIGURES, PRICES, every_plan

log = structlog.get_logger(__name__)

MILLION = 1_000_000
TITLES = {
    "requests_per_minute": gettext_lazy("Requests a minute"),
    "units_per_minute": gettext_lazy("Units a minute"),
    "model_requests_per_minute": gettext_lazy("Requests a minute of one model"),
    "model_units_per_minute": gettext_lazy("Units a minute of one model"),
    "concurrent_jobs": gettext_lazy("Jobs at a time"),
    "weight": gettext_lazy("Share of a busy model"),
    "members": gettext_lazy("Members"),
    "retention_days": gettext_lazy("Days of audit log"),
    "included_units": gettext_lazy("Units a month"),
    "overage": gettext_lazy("More goes on the invoice"),
    "storage_gigabytes": gettext_lazy("GB of files"),
    "monthly_price": gettext_lazy("A month"),
    "unit_price": gettext_lazy("1,000 units more"),
    "training_minute_price": gettext_lazy("A minute of training"),
}


# ---------- plans ----------
def plans(request: HttpRequest) -> HttpResponse:
    """All plans side by side: a row a figure."""
    found = list(every_plan().values())
    rows = [[str(TITLES.get(name, name)), *(_figure(name, getattr(plan, name)) for plan in found)] for name in FIGURES]
    table = {"headers": [_("Figure"), *(plan.title for plan in found)], "rows": rows}
    return TemplateResponse(request, "operator/plans.html", {**site.each_context(request), "title": _("Plans"), "table": table})


def _figure(name: str, value: Any) -> str:
    if value is None:
        return _("no limit")
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    return _price(value * (1_000 if name == "unit_price" else 1)) if name in PRICES else f"{value:,}"


def _price(amount: int) -> str:
    """Micro-dollars to the last digit that counts, and to the cent at least."""
    whole, _dot, part = f"{Decimal(amount) / MILLION:,f}".partition(".")
    return f"${whole}.{part.rstrip('0'):0<2}"


# ---------- what an organisation's page shows ----------
class AccountInline(OperatorInline):
    model = Account
    verbose_name_plural = gettext_lazy("payment")
    fields = readonly_fields = ("collected_by", "next_plan", "next_from", "overdue_since")
    ordering = ("id",)


class CreditInline(OperatorInline):
    model = CreditEntry
    verbose_name_plural = gettext_lazy("credit")
    fields = readonly_fields = ("created_at", "kind", "money", "reason", "expires_at")
    ordering = ("-id",)

    @display(description=gettext_lazy("amount"))
    def money(self, entry: CreditEntry) -> str:
        return dollars(entry.amount)


class BudgetInline(OperatorInline):
    model = Budget
    fields = readonly_fields = ("scope", "subject", "money", "hard", "thresholds", "changed_at")
    ordering = ("scope", "subject")

    @display(description=gettext_lazy("amount"))
    def money(self, budget: Budget) -> str:
        return dollars(budget.amount)


class InvoiceInline(OperatorInline):
    model = Invoice
    show_change_link = True
    fields = readonly_fields = ("number", "period", "state", "money", "due_at", "paid_at")
    ordering = ("-id",)

    @display(description=gettext_lazy("total"))
    def money(self, invoice: Invoice) -> str:
        return cents(invoice.total_cents)


def cents(value: int) -> str:
    """Cents as dollars."""
    return dollars(value * 10_000)


# ---------- coupons and invoices ----------
@admin.register(Coupon, site=site)
class CouponAdmin(OperatorAdmin):
    list_display = ("code", "money", "taken", "expires_at", "credit_days", "created_at")
    search_fields = ("code",)
    ordering = ("-created_at",)
    fields = readonly_fields = list_display

    @display(description=gettext_lazy("worth"))
    def money(self, coupon: Coupon) -> str:
        return dollars(coupon.amount)

    @display(description=gettext_lazy("redeemed"))
    def taken(self, coupon: Coupon) -> str:
        return f"{coupon.redeemed:,} / {coupon.most:,}" if coupon.most else f"{coupon.redeemed:,}"


class LineInline(OperatorInline):
    model = InvoiceLine
    verbose_name_plural = gettext_lazy("lines")
    per_page = 200
    fields = readonly_fields = ("kind", "text", "model", "units", "included", "charged", "money")
    ordering = ("position",)

    @display(description=gettext_lazy("amount"))
    def money(self, line: InvoiceLine) -> str:
        return dollars(line.amount) if line.amount_cents is None else cents(line.amount_cents)


@admin.register(Invoice, site=site)
class InvoiceAdmin(DeedsAdmin):
    list_display = ("label", "tenant", "period", "state", "money", "collected_by", "due_at", "paid_at")
    list_filter = ("state", "collected_by", "period")
    list_select_related = ("tenant",)
    search_fields = ("number", "tenant__slug", "stripe_id")
    ordering = ("-id",)
    fields = readonly_fields = (
        "number", "tenant", "period", "state", "collected_by", "money", "issued_at", "due_at", "paid_at", "note", "stripe_id",
    )  # fmt: skip
    inlines = [LineInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Invoice]:
        return super().get_queryset(request).select_related("tenant")

    @display(description=gettext_lazy("invoice"))
    def label(self, invoice: Invoice) -> str:
        return invoice.number or invoice.stripe_id or f"{invoice.period:%Y-%m}"

    @display(description=gettext_lazy("total"))
    def money(self, invoice: Invoice) -> str:
        return cents(invoice.total_cents)


# ---------- deeds ----------
def _change_plan(_request: HttpRequest, tenant: Tenant, data: dict[str, Any]) -> str:
    change = subscriptions.change_plan(tenant, plan=data["plan"])
    when = _("now") if change.at_once else f"{change.from_day:%Y-%m-%d}"
    done = _("%(name)s is on %(plan)s, from: %(when)s.") % {"name": tenant.slug, "plan": change.plan, "when": when}
    return " ".join([done, *change.notes])


def _grant(_request: HttpRequest, tenant: Tenant, data: dict[str, Any]) -> str:
    entry = credits.grant_credit(tenant, amount=_micro(data["amount"]), reason=data["reason"], expires_at=_in_days(data["days"]))
    return _("%(amount)s of credit: written down for %(name)s.") % {"amount": dollars(entry.amount), "name": tenant.slug}


def _settle(service: Any) -> Any:
    def run(_request: HttpRequest, invoice: Invoice, data: dict[str, Any]) -> str:
        changed = service(invoice.tenant, invoice.pk, note=data["note"])
        return _("%(number)s: %(state)s.") % {"number": changed.number, "state": changed.get_state_display()}

    return run


def _create_coupon(request: Any, _row: Any, data: dict[str, Any]) -> str:
    limits = {"most": data["most"], "credit_days": data["credit_days"], "expires_at": _in_days(data["days"])}
    coupon = credits.create_coupon(code=data["code"], amount=_micro(data["amount"]), **limits)
    log.info("coupon made", code=coupon.code, amount=coupon.amount, operator=request.user.email)  # it is in no organisation's log
    return _("%(code)s is worth %(amount)s.") % {"code": coupon.code, "amount": dollars(coupon.amount)}


def _micro(amount: Decimal) -> int:
    return int(amount * MILLION)


def _in_days(days: int | None) -> datetime | None:
    return timezone.now() + timedelta(days=days) if days else None


COUPON = Deed(
    "coupon", gettext_lazy("New coupon"), gettext_lazy("A code that organisations turn into credit, once each, on their billing page."),
    gettext_lazy("Make it"), _create_coupon, CouponForm,
)  # fmt: skip


def new_coupon(request: HttpRequest) -> HttpResponse:
    return operator_deeds.ask(request, COUPON, _("New coupon"), tenant=None, back=reverse("operator:billing_coupon_changelist"))


def _pays_us(tenant: Tenant) -> bool:
    """A subscription at Stripe says which plan holds; it is changed there, by the organisation."""
    return subscriptions.get_account(tenant).collected_by == Collector.MANUAL


def _is_open(invoice: Invoice) -> bool:
    return invoice.collected_by == Collector.MANUAL and invoice.state == InvoiceState.OPEN


def _is_payable(invoice: Invoice) -> bool:
    return _is_open(invoice) or (invoice.collected_by == Collector.MANUAL and invoice.state == InvoiceState.UNCOLLECTIBLE)


operator_deeds.declare(
    Tenant,
    Deed(
        "plan", gettext_lazy("Change plan"),
        gettext_lazy("A dearer plan holds at once, and for the month's units so far; a cheaper one from the 1st."),
        gettext_lazy("Change it"), _change_plan, PlanForm, fits=_pays_us,
    ),
    Deed(
        "credit", gettext_lazy("Grant credit"), gettext_lazy("It pays for units first, from now on."), gettext_lazy("Grant it"), _grant,
        CreditForm,
    ),
)  # fmt: skip
operator_deeds.declare(
    Invoice,
    Deed(
        "paid", gettext_lazy("Mark as paid"), gettext_lazy("When nothing else is overdue, its calls work again at once."),
        gettext_lazy("It was paid"), _settle(invoices.mark_invoice_paid), NoteForm, fits=_is_payable,
    ),
    Deed(
        "void", gettext_lazy("Void"), gettext_lazy("Nobody has to pay it any more. This cannot be undone."), gettext_lazy("Take it back"),
        _settle(invoices.void_invoice), NoteForm, fits=_is_payable, danger=True,
    ),
    Deed(
        "give-up", gettext_lazy("Give up"), gettext_lazy("It will not be paid; what is overdue stays overdue."), gettext_lazy("Give it up"),
        _settle(invoices.give_invoice_up), NoteForm, fits=_is_open, danger=True,
    ),
)  # fmt: skip
TenantAdmin.inlines += [AccountInline, InvoiceInline, CreditInline, BudgetInline]
site.add_page("plans/", plans, name="plans", title=gettext_lazy("Plans"), icon="sell")
site.add_entry("operator:billing_invoice_changelist", title=gettext_lazy("Invoices"), icon="receipt_long")
site.add_entry("operator:billing_coupon_changelist", title=gettext_lazy("Coupons"), icon="redeem")
site.add_page("coupons/new", new_coupon, name="new_coupon", title=gettext_lazy("New coupon"), icon="add_circle")
