"""Billing: the invoice to come and why, what stops a surprise, which plan, what was paid."""

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apps.billing import credits, invoices, subscriptions
from apps.billing.months import end_of
from apps.billing.plans import every_plan, plan_of
from apps.dashboard import alarms, bills, changes, money, quotas, told
from apps.dashboard.limit_forms import BudgetForm, LimitForm
from apps.dashboard.pace import Pace, pace_of
from apps.dashboard.page import MemberRequest, page
from apps.payments import services as payments
from maas import errors
from maas.actors import Permission, current_actor

SHOWN = 12  # invoices and entries of credit


class CouponForm(forms.Form):
    code = forms.CharField(label=gettext_lazy("Coupon"), max_length=40)

    def __init__(self, data: Any = None) -> None:
        super().__init__(data, auto_id="coupon_%s")


def may_bill() -> bool:
    """Whether whoever asks may see and change what an organisation pays."""
    return Permission.BILLING in current_actor().permissions


@page()
def index(request: MemberRequest) -> HttpResponse:
    if not may_bill():
        return render(request, "billing_closed.html", {"section": "billing"}, status=403)
    return show(request)


def show(request: MemberRequest, status: int = 200, **bound: forms.Form) -> HttpResponse:
    """The page; `bound` are the forms that were refused, by the names `budget_form`, `limit_form`, `coupon_form`."""
    paying = payments.status(request.tenant)
    has_prices = plan_of(request.tenant.plan).included_units is not None
    rest = _charged(request, bound, paying) if has_prices else {}
    return render(request, "billing.html", _context(request, bound, paying) | rest, status=status)


def _context(request: MemberRequest, bound: dict[str, forms.Form], paying: payments.PaymentStatus) -> dict[str, Any]:
    """What every plan shows."""
    tenant = request.tenant
    rows, more = invoices.list_invoices(tenant, limit=SHOWN)
    entries, more_entries = credits.list_credits(tenant, limit=SHOWN)
    return {
        "section": "billing", "plan": plan_of(tenant.plan), "status": paying, "may_bill": True,
        "alarms": alarms.alarms_of(tenant, near=True), "invoices": rows, "more_invoices": more,
        "balance": credits.balance(tenant), "left": credits.left(tenant), "entries": entries, "more_entries": more_entries,
        "coupon_form": bound.get("coupon_form") or CouponForm(), "told": told.log_of(tenant), "has_customer": _has_customer(paying),
    }  # fmt: skip


def _has_customer(paying: payments.PaymentStatus) -> bool:
    """Whether Stripe's portal has something to show."""
    return paying.is_on and (paying.has_subscription or paying.card is not None)


def _charged(request: MemberRequest, bound: dict[str, forms.Form], paying: payments.PaymentStatus) -> dict[str, Any]:
    """What a plan with prices shows besides."""
    tenant, pace = request.tenant, pace_of(request.tenant)
    bill = bills.read_bill(tenant, pace)
    sent = told.told_this_month(tenant)
    budget = quotas.own_budget(tenant)
    limits = quotas.spend_limits(tenant, bill.statement, sent)
    form = bound.get("budget_form") or BudgetForm(budget=budget)
    return {
        "bill": bill, "pace": pace, "units_quota": quotas.units_quota(bill.statement), "used_up": _used_up(bill, pace),
        "first": end_of(bill.statement.period),
        "budget": budget, "budget_quota": quotas.money_quota(_("Budget"), bill.statement.amount, budget) if budget else None,
        "budget_form": form, "parts": _parts(form, sent), "course": bills.cost_of(plan_of(tenant.plan), bill.forecast_units),
        "limits": limits, "limit_form": bound.get("limit_form") or _limit_form(request, limits),
        "cards": changes.cards_of(tenant, paying, bill.pace_units), "to_come": _to_come(request, paying),
    }  # fmt: skip


def _used_up(bill: bills.Bill, pace: Pace) -> str:
    """The day on which the included units end at this pace; nothing when they last."""
    moment = pace.reaches((bill.statement.included or 0) - bill.statement.units)
    return date_format(moment, "j M") if moment else ""


def _parts(form: forms.Form, sent: dict[tuple[str, str, int], Any]) -> list[dict[str, Any]]:
    """The thresholds as they can be ticked, each with when it was told of this month."""
    chosen = {str(value) for value in form["thresholds"].value() or []}
    return [
        {"value": value, "checked": value in chosen, "told": sent.get(("tenant", "", int(value)))}
        for value, _words in form.fields["thresholds"].choices  # type: ignore[attr-defined]
    ]


def _limit_form(request: MemberRequest, limits: list[quotas.SpendLimit]) -> LimitForm:
    """Empty, or with the limit that is to be changed."""
    chosen = next((one for one in limits if f"{one.budget.scope}:{one.subject}" == request.GET.get("limit")), None)
    return LimitForm(tenant=request.tenant, limit=chosen)


def _to_come(request: MemberRequest, paying: payments.PaymentStatus) -> dict[str, Any] | None:
    found = changes.to_come(request.tenant, paying)
    return {"plan": plan_of(found[0]), "day": found[1]} if found else None


# ---------- credit ----------
@page("POST")
def redeem(request: MemberRequest) -> HttpResponse:
    """Turn a coupon into credit."""
    form = CouponForm(request.POST)
    if form.is_valid():
        try:
            entry = credits.redeem_coupon(request.tenant, code=form.cleaned_data["code"])
            messages.success(request, _("%(amount)s of credit are added.") % {"amount": money.exact(entry.amount)})
            return redirect("billing")
        except errors.BadRequest as error:
            form.add_error("code", error.message)
    return refused(request, coupon_form=form)


def refused(request: MemberRequest, **bound: forms.Form) -> HttpResponse:
    """The page with a form's errors; a page of its own for who may not see it."""
    if not may_bill():
        raise errors.Forbidden(_("Owners and admins look after billing. Ask one of them."), code="role_forbids")
    return show(request, 422, **bound)


# ---------- plans and payment ----------
@page("GET", "POST")
def plan(request: MemberRequest) -> HttpResponse:
    """Say what a change of plan comes to, then make it: here, at Stripe, or not at all."""
    if not may_bill():
        raise errors.Forbidden(_("Owners and admins change the plan. Ask one of them."), code="role_forbids")
    wanted = every_plan().get((request.POST or request.GET).get("to", ""))
    if wanted is None or wanted.name not in subscriptions.OFFERED:
        raise errors.NotFound(_("There is no such plan."), code="plan_not_found")
    statement = invoices.preview(request.tenant).statement
    found = changes.consequence_of(request.tenant, wanted, payments.status(request.tenant), statement)
    if request.method == "GET":
        return _confirm(request, found)
    try:
        return _change(request, found)
    except (errors.BadRequest, errors.Forbidden, errors.PaymentRequired, errors.Unavailable) as error:
        return _confirm(request, found, error)


def _confirm(request: MemberRequest, found: changes.Consequence, error: errors.MaasError | None = None) -> HttpResponse:
    template = "parts/change_plan.html" if request.htmx else "change_plan.html"
    context = {"change": found, "error": error, "section": "billing"}
    return render(request, template, context, status=error.status if error else 200)


def _change(request: MemberRequest, found: changes.Consequence) -> HttpResponse:
    tenant, name = request.tenant, found.plan.name
    if found.way == changes.CHECKOUT:
        home = settings.MAAS_URL + reverse("billing")
        return see_other(payments.start_checkout(tenant, plan=name, success_url=f"{home}?paid=1", cancel_url=home))
    if found.way == changes.STRIPE:
        payments.change_plan(tenant, name)
        messages.success(request, _("Stripe has been told. The page shows what holds from when."))
        return redirect("billing")
    change = subscriptions.change_plan(tenant, plan=name)
    words = {"plan": found.plan.title, "day": date_format(change.from_day, "j F")}
    messages.success(request, (_("%(plan)s holds now.") if change.at_once else _("%(plan)s holds from %(day)s.")) % words)
    return redirect("billing")


@page("POST")
def portal(request: MemberRequest) -> HttpResponse:
    """Stripe's own pages about cards, addresses and invoices."""
    return see_other(payments.open_portal(request.tenant, return_url=settings.MAAS_URL + reverse("billing")))


def see_other(address: str) -> HttpResponse:
    """303: the browser asks the other address with GET, whatever it sent here."""
    return HttpResponse(status=303, headers={"Location": address, "Cache-Control": "no-store"})
