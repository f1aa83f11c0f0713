# ruff: noqa: S608  # every piece of SQL is a constant of this file
"""Which tables answer for a span of time: days, the hours beside them, and the ledger for a part of an hour."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FACTS = "model, key_id, job_id, unit, requests, quantity, units"
Range = tuple[datetime, datetime]

# What is fresh counts as hours and days do; read in one statement with them, nothing is missed or seen twice.
TABLES = {
    "days": f"SELECT day::timestamp AT TIME ZONE 'UTC' AS moment, {FACTS} FROM usage_usagedaily"
    " WHERE tenant_id = %s AND day >= (%s AT TIME ZONE 'UTC')::date AND day < (%s AT TIME ZONE 'UTC')::date",
    "hours": f"SELECT hour AS moment, {FACTS} FROM usage_usagehourly WHERE tenant_id = %s AND hour >= %s AND hour < %s",
    "fresh": f"SELECT hour AS moment, {FACTS} FROM usage_usagefresh WHERE tenant_id = %s AND hour >= %s AND hour < %s",
    "edges": f"SELECT date_trunc('hour', created_at, 'UTC') AS moment, {FACTS} FROM usage_usagerecord"
    " WHERE tenant_id = %s AND created_at >= %s AND created_at < %s AND kind <> 'void'",
}


@dataclass(frozen=True)
class Span:
    """A span cut into ranges for each table; together they are the span, and no two overlap."""

    days: list[Range]
    hours: list[Range]
    fresh: list[Range]
    edges: list[Range]

    def query(self, tenant_id: UUID) -> tuple[str, list[object]]:
        """SQL with a row for each line of a roll-up in the span, and its parameters."""
        parts = [(TABLES[name], found) for name in TABLES for found in getattr(self, name)]
        sql = " UNION ALL ".join(text for text, _ in parts)
        return sql, [value for _, (start, end) in parts for value in (tenant_id, start, end)]


def cut(start: datetime, end: datetime, *, now: datetime, by_hour: bool) -> Span:
    """Cut a span from `start` up to `end`; `by_hour` when its hours have to be told apart.

    The hour of an end that is still to come is taken whole: nothing has been recorded after `now`.
    """
    last = _floor(end, HOUR) if end <= now else _ceil(end, HOUR)
    first = _ceil(start, HOUR)
    if first >= last:
        return Span([], [], [], _some((start, end)))
    edges = _some((start, first), (last, end))
    morning, midnight = _ceil(first, DAY), _floor(last, DAY)
    if by_hour or morning >= midnight:
        return Span([], [(first, last)], [(first, last)], edges)
    return Span([(morning, midnight)], _some((first, morning), (midnight, last)), [(first, last)], edges)


def _some(*ranges: Range) -> list[Range]:
    return [found for found in ranges if found[0] < found[1]]


def _floor(moment: datetime, step: timedelta) -> datetime:
    hour = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return hour.replace(hour=0) if step == DAY else hour


def _ceil(moment: datetime, step: timedelta) -> datetime:
    below = _floor(moment, step)
    return below if below == moment else below + step
