"""Money, as the operator sees it. What changes anything is a deed, which calls the same services as everybody."""

from dataclasses import fields
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apps.accounts.operator_site import site
from apps.billing.plans import Plan, every_plan

TITLES = {
    "title": gettext_lazy("Plan"),
    "requests_per_minute": gettext_lazy("Requests a minute"),
    "units_per_minute": gettext_lazy("Units a minute"),
    "model_requests_per_minute": gettext_lazy("Requests a minute of one model"),
    "model_units_per_minute": gettext_lazy("Units a minute of one model"),
    "concurrent_jobs": gettext_lazy("Jobs at a time"),
    "members": gettext_lazy("Members"),
    "retention_days": gettext_lazy("Days of audit log"),
    "included_units": gettext_lazy("Units a month"),
    "overage": gettext_lazy("More goes on the invoice"),
    "storage_gigabytes": gettext_lazy("Files, GB"),
    "monthly_price": gettext_lazy("A month, $"),
    "unit_price": gettext_lazy("1,000 units more, $"),
    "training_minute_price": gettext_lazy("A minute of training, $"),
}
PER = {"unit_price": 1_000}  # a price is shown for this many


def plans(request: HttpRequest) -> HttpResponse:
    """All plans side by side: a row a figure."""
    found = list(every_plan().values())
    names = [field.name for field in fields(Plan) if field.name in TITLES and field.name != "title"]
    rows = [[str(TITLES[name]), *(figure(name, getattr(plan, name)) for plan in found)] for name in names]
    table = {"headers": [_("Figure"), *(plan.title for plan in found)], "rows": rows}
    return TemplateResponse(request, "operator/plans.html", {**site.each_context(request), "title": _("Plans"), "table": table})


def figure(name: str, value: Any) -> str:
    """A figure of a plan: micro-dollars as dollars, nothing for no limit."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    return f"{value * PER.get(name, 1) / 1_000_000:,.2f}" if name.endswith("_price") else f"{value:,}"


site.add_page("plans/", plans, name="plans", title=gettext_lazy("Plans"), icon="sell")
