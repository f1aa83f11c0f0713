"""Usage shaped for charts and tables: one series over time, one breakdown by model."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from apps.dashboard.charts import Chart, Slot, stacked_bars
from apps.usage import services as usage

PERIODS = {"24h": 1, "7d": 7, "30d": 30}  # days


@dataclass(frozen=True)
class ModelRow:
    """One line of a breakdown; `css` is the colour of its series."""

    name: str
    css: str
    requests: int
    units: int


@dataclass(frozen=True)
class Figures:
    """A period: totals, the totals of the same length before it, a chart, and its breakdown by model."""

    requests: int
    units: int
    requests_before: int
    chart: Chart
    models: list[ModelRow]


def for_period(tenant: Any, period: str) -> Figures:
    """What an organisation used in the last 24 hours, 7 or 30 days, today included."""
    now = timezone.now()
    if period == "24h":
        rows = [{**row, "slot": row["hour"]} for row in usage.hourly_series(tenant, hours=24)]
        first = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=23)
        before = usage.totals(tenant, first - timedelta(hours=24), first)["requests"]
        return _figures(rows, before, _hours(first), {"every": 6})
    days = PERIODS[period]
    start = now.date() - timedelta(days=days - 1)
    rows = daily_rows(tenant, days=2 * days)
    before = sum(row["requests"] for row in rows if row["day"] < start)
    slots = [start + timedelta(days=i) for i in range(days)]
    return _figures([{**row, "slot": row["day"]} for row in rows if row["day"] >= start], before, _days(slots), _monday(slots))


def daily_rows(tenant: Any, *, days: int) -> list[dict[str, Any]]:
    """One row a day and model. Past days come from the roll-up, today from the ledger, so that a call shows at once."""
    now = timezone.now()
    past = [row for row in usage.daily_series(tenant, days=days) if row["day"] < now.date()]
    today = datetime.combine(now.date(), datetime.min.time(), tzinfo=UTC)
    fresh = usage.report(tenant, start=today, end=now + timedelta(seconds=1), group_by=["model"])
    return past + [{**row, "day": now.date()} for row in fresh]


def daily_chart(rows: list[dict[str, Any]], slots: list[date], figure: str) -> Chart:
    """A column a day of `requests` or `units`, stacked by model; rows carry `day` and `model`."""
    return _chart([{**row, "slot": row["day"]} for row in rows], _days(slots), figure, _monday(slots))


def by_model(rows: list[dict[str, Any]], chart: Chart) -> list[ModelRow]:
    """Requests and units by model in the chart's order; what the chart calls others is one line."""
    found = []
    for series in chart.series:
        mine = [row for row in rows if row["model"] in series.members]
        found.append(ModelRow(series.name, series.css, sum(row["requests"] for row in mine), sum(row["units"] for row in mine)))
    return found


def _figures(rows: list[dict[str, Any]], before: int, slots: list[tuple[Any, str, str]], labels: dict[str, int]) -> Figures:
    chart = _chart(rows, slots, "requests", labels)
    return Figures(sum(row["requests"] for row in rows), sum(row["units"] for row in rows), before, chart, by_model(rows, chart))


def _chart(rows: list[dict[str, Any]], slots: list[tuple[Any, str, str]], figure: str, labels: dict[str, int]) -> Chart:
    values: dict[Any, dict[str, int]] = {key: {} for key, _name, _label in slots}
    for row in rows:
        if row["slot"] in values:
            values[row["slot"]][row["model"]] = values[row["slot"]].get(row["model"], 0) + row[figure]
    return stacked_bars([Slot(name, label, values[key]) for key, name, label in slots], others=_("{n} others"), **labels)


def _hours(first: datetime) -> list[tuple[str, str, str]]:
    moments = [first + timedelta(hours=i) for i in range(24)]
    return [(f"{moment:%Y-%m-%dT%H}:00:00Z", date_format(moment, "D j M, H:00"), f"{moment:%H}:00") for moment in moments]


def _days(days: list[date]) -> list[tuple[date, str, str]]:
    return [(day, date_format(day, "D j M"), date_format(day, "j M")) for day in days]


def _monday(days: list[date]) -> dict[str, int]:
    """Label each Monday of a month; each day of a week."""
    if len(days) <= 7:
        return {"every": 1, "first": 0}
    return {"every": 7, "first": next(i for i, day in enumerate(days) if day.weekday() == 0)}
