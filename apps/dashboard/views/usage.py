"""What was used, by whom, and when."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.formats import date_format

from apps.billing import invoices
from apps.billing.invoices import Statement
from apps.billing.months import this_month
from apps.billing.plans import plan_of
from apps.dashboard import alarms, bills, figures, money, quotas
from apps.dashboard.page import MemberRequest, page
from apps.dashboard.views.billing import may_bill
from apps.usage import services

GROUPS = ("model", "key", "day")
MONTHS = 12


@page()
def show(request: MemberRequest) -> HttpResponse:
    first, last = _span(request.GET.get("month", ""))
    group = request.GET.get("by") if request.GET.get("by") in GROUPS else "model"
    start, end = _midnight(first), min(_midnight(last), timezone.now() + timedelta(seconds=1))
    rows = [
        {**row, "day": date.fromisoformat(row["day"])}
        for row in services.report(request.tenant, start=start, end=end, group_by=["day", "model"])
    ]
    slots = [first + timedelta(days=i) for i in range((min(last, timezone.now().date() + timedelta(days=1)) - first).days)]
    chart = figures.daily_chart(rows, slots, "units")
    totals = {name: sum(row[name] for row in rows) for name in ("requests", "units")}
    statement = invoices.preview(request.tenant, first).statement
    context = {
        "section": "usage",
        "first": first,
        "last": slots[-1],
        "months": _months(),
        "month": f"{first:%Y-%m}",
        "by": group,
        "rows": rows,
        "chart": chart,
        "totals": totals,
        "table": [_priced(line, statement) for line in _table(request, group or "model", rows, chart, start, end)],
        "price": statement.unit_price,
        "unit_price": money.unit_price(statement.unit_price),
        "total_price": totals["units"] * statement.unit_price,
        **(_limits(request, statement) if first == this_month() else {}),
        "csv": "/v1/usage?"
        + urlencode({"start": first.isoformat(), "end": last.isoformat(), "group_by": "day,model,key", "format": "csv"}),
    }
    part = "parts/usage.html" if request.htmx else "usage.html"
    return render(request, part, context)


def _limits(request: MemberRequest, statement: Statement) -> dict[str, Any]:
    """How near the limits are; of the month that runs."""
    return {
        "quotas": quotas.quotas_of(request.tenant, statement),
        "alarms": alarms.alarms_of(request.tenant, near=True),
        "plan": plan_of(request.tenant.plan),
        "may_bill": may_bill(),
    }


def _priced(line: dict[str, Any], statement: Statement) -> dict[str, Any]:
    """With the list price of its units in micro-dollars: before what the plan includes, and before credit."""
    return {**line, "price": line["units"] * statement.unit_price}


def _span(month: str) -> tuple[date, date]:
    """The first day of a month such as 2026-11 and of the one after it; this month for one that the menu lacks."""
    known = [value for value, _words in _months()]
    first = date.fromisoformat(f"{month if month in known else known[0]}-01")
    return first, (first + timedelta(days=32)).replace(day=1)


def _months() -> list[tuple[str, str]]:
    found, month = [], timezone.now().date().replace(day=1)
    for _i in range(MONTHS):
        found.append((f"{month:%Y-%m}", date_format(month, "F Y")))
        month = (month - timedelta(days=1)).replace(day=1)
    return found


def _midnight(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time(), tzinfo=UTC)


def _table(
    request: MemberRequest, group: str, rows: list[dict[str, Any]], chart: Any, start: datetime, end: datetime
) -> list[dict[str, Any]]:
    """The breakdown: `name`, `css`, `requests`, `units` and `share` of the units in per cent."""
    if group == "model":
        lines: list[dict[str, Any]] = [
            {"name": row.name, "css": row.css, "requests": row.requests, "units": row.units} for row in figures.by_model(rows, chart)
        ]
    elif group == "key":
        names = bills.key_names(request.tenant)
        lines = _sum(
            services.report(request.tenant, start=start, end=end, group_by=["key"]),
            "key",
            lambda key: bills.key_name(key, names),
        )
    else:
        lines = list(reversed(_sum(rows, "day", lambda day: date_format(day, "D j M"))))
    total = sum(line["units"] for line in lines)
    return [{**line, "share": 100 * line["units"] / total if total else 0} for line in lines]


def _sum(rows: list[dict[str, Any]], column: str, name: Any) -> list[dict[str, Any]]:
    found: dict[Any, dict[str, Any]] = {}
    for row in rows:
        line = found.setdefault(row[column], {"name": name(row[column]), "requests": 0, "units": 0})
        line["requests"] += row["requests"]
        line["units"] += row["units"]
    return list(found.values())
