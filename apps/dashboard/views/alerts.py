"""What warns and stops: the organisation's budget, and the spend limits of keys and models."""

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _

from apps.billing import budgets
from apps.dashboard import money, quotas
from apps.dashboard.limit_forms import BudgetForm, LimitForm
from apps.dashboard.page import MemberRequest, page, read_id
from apps.dashboard.views.billing import refused
from maas import errors, ids


@page("POST")
def set_budget(request: MemberRequest) -> HttpResponse:
    """Give the organisation a budget, or another one."""
    form = BudgetForm(request.POST, budget=quotas.own_budget(request.tenant))
    if form.is_valid():
        try:
            budget = budgets.set_budget(request.tenant, scope="tenant", **form.wanted())
            messages.success(request, _("Saved. The budget is %(amount)s a month from now on.") % {"amount": money.short(budget.amount)})
            return redirect("billing")
        except errors.BadRequest as error:
            form.refuse(error)
    return refused(request, budget_form=form)


@page("POST")
def set_limit(request: MemberRequest) -> HttpResponse:
    """Give a key or a model a spend limit, in place of one that it has."""
    form = LimitForm(request.POST, tenant=request.tenant)
    if form.is_valid():
        try:
            budget = budgets.set_budget(request.tenant, **form.wanted())
            messages.success(
                request, _("Saved. The spend limit is %(amount)s a month from now on.") % {"amount": money.short(budget.amount)}
            )
            return redirect("billing")
        except (errors.BadRequest, errors.NotFound) as error:
            form.refuse(error)
    return refused(request, limit_form=form)


@page("POST")
def delete(request: MemberRequest, budget_id: str) -> HttpResponse:
    """Take a budget or a spend limit away; it stops nothing from now on."""
    budgets.delete_budget(request.tenant, read_id(ids.BUDGET, budget_id))
    messages.success(request, _("The limit is taken away."))
    return redirect("billing")
