"""Usage: record what was worked on, exactly once, and add it up."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from django.utils import timezone

from apps.accounts.services import Tenant
from apps.usage import rollups, settling, spans
from apps.usage.models import ArchivedMonth, Kind, UsageRecord
from apps.usage.periods import end_of, month_of, period_of, start_of
from maas import errors
from maas.questions import ask
from maas.tenancy import SystemUse, as_tenant, run_as_system

GROUPS = {
    "day": "to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
    "hour": """to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:00:00"Z"')""",
    "model": "model",
    "key": "key_id",
    "job": "job_id",
}
REPORT_DAYS = 366
roll_up = rollups.roll_up
UsageLine = settling.UsageLine
CHARGED_WITHIN = timedelta(days=7)  # after work began: a batch has a day, an answer that is kept to be repeated too


def units_for(rate: dict[str, Any], quantities: list[int]) -> int:
    """The units charged for inputs of these quantities, each rounded up on its own.

    `rate` is a manifest's: `{"unit": "token", "per": 384, "units": 1}` charges one unit for every 384 tokens begun.
    """
    return sum(-(-quantity // rate["per"]) * rate["units"] for quantity in quantities)


def record(tenant_id: UUID, lines: list[UsageLine]) -> set[str]:
    """Write lines in the caller's transaction; the sources that were new come back. The others were counted before."""
    return _settle([(tenant_id, line) for line in lines])


def settle_calls(calls: list[tuple[UUID, UsageLine]]) -> set[str]:
    """Charge the calls of one micro-batch, of any tenants, in one transaction of their own.

    A call that its caller has given up (`void_call`), or whose reservation was closed, is not charged and its source is
    not in the answer.
    """
    return set(run_as_system(SystemUse.SETTLE_CALLS, settling.settling(calls))) if calls else set()


def void_call(tenant: Tenant, line: UsageLine) -> bool:
    """Give up a call: True when it will never be charged, False when it was charged already."""
    with as_tenant(tenant.id):
        return bool(_settle([(tenant.id, line)]))


def reverse_call(tenant: Tenant, source: str) -> None:
    """Take back a charge whose answer never reached the caller; doing it twice changes nothing."""
    with as_tenant(tenant.id):
        charged = UsageRecord.objects.get(tenant=tenant, period=period_of(source), source=source)
        if charged.kind == Kind.PREDICTION:
            line = UsageLine(
                f"reversal:{source}", Kind.REVERSAL, charged.model, charged.version, charged.unit,
                -charged.quantity, -charged.units, -charged.requests, charged.key_id, charged.job_id,
            )  # fmt: skip
            _settle([(tenant.id, line)])


def _settle(rows: list[tuple[UUID, UsageLine]]) -> set[str]:
    """Into the ledger, and from what is reserved to what is used: one statement (migration 0004)."""
    return set(ask(settling.settling(rows))[0][0]) if rows else set()


# ---------- reading ----------
def report(tenant: Tenant, *, start: datetime, end: datetime, group_by: list[str]) -> list[dict[str, Any]]:
    """Requests, quantity and units from `start` up to `end` (UTC, `end` excluded), a row a group.

    It equals the ledger at every moment, and reads the ledger itself for a part of an hour only.

    Raises BadRequest for a group that does not exist, for a span of more than 366 days, and for a part of an hour
    whose lines have been archived.
    """
    _check_report(start, end, group_by)
    return _add_up(tenant, start, end, [(GROUPS[name], name) for name in group_by] + [("unit", "unit")])


def _add_up(tenant: Tenant, start: datetime, end: datetime, groups: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Sums by SQL expressions and their names."""
    span = spans.cut(start, end, now=timezone.now(), by_hour=("hour" in (name for _, name in groups)))
    _check_edges(span.edges)
    lines, parameters = span.query(tenant.id)
    chosen = "".join(f"{expression} AS {name}, " for expression, name in groups)
    places = ", ".join(str(position + 1) for position in range(len(groups)))
    return _rows(
        tenant,
        f"""SELECT {chosen} sum(requests)::bigint AS requests, sum(quantity)::bigint AS quantity, sum(units)::bigint AS units
            FROM ({lines}) AS lines GROUP BY {places} ORDER BY {places}""",  # noqa: S608  # GROUPS holds every name that gets here
        parameters,
    )


def _check_edges(edges: list[spans.Range]) -> None:
    """Lines of a month may have been charged a while after its end, so the month before counts for that long."""
    months = {month_of(moment) for edge in edges for moment in (edge[0], edge[0] - CHARGED_WITHIN)}
    if months and ArchivedMonth.objects.filter(period__in=months).only("period").exists():
        raise errors.BadRequest("That time has been archived: 'start' and 'end' must be whole hours.", param="start", code="invalid_value")


def _check_report(start: datetime, end: datetime, group_by: list[str]) -> None:
    for name in group_by:
        if name not in GROUPS:
            raise errors.BadRequest(f"Cannot group by '{name}'. Choose from: {', '.join(GROUPS)}.", param="group_by", code="invalid_value")
    if end <= start:
        raise errors.BadRequest("'end' must be later than 'start'.", param="end", code="invalid_value")
    if end - start > timedelta(days=REPORT_DAYS):
        raise errors.BadRequest(f"One report covers at most {REPORT_DAYS} days.", param="start", code="invalid_value")


def month_report(tenant: Tenant, period: date) -> list[dict[str, Any]]:
    """Requests, quantity and units charged in a UTC month, a row a model, key and unit; it equals the ledger."""
    return _add_up(tenant, start_of(period), end_of(period), [("model", "model"), ("key_id", "key_id"), ("unit", "unit")])


def totals(tenant: Tenant, start: datetime, end: datetime) -> dict[str, int]:
    """Requests and units of a span."""
    rows = report(tenant, start=start, end=end, group_by=[])
    return {name: sum(row[name] for row in rows) for name in ("requests", "units")}


def daily_series(tenant: Tenant, *, days: int = 30) -> list[dict[str, Any]]:
    """One row a day and model for the last `days` UTC days, today included."""
    now = timezone.now()
    since = datetime.combine(now.astimezone(UTC).date() - timedelta(days=days - 1), time(), tzinfo=UTC)
    day = "(moment AT TIME ZONE 'UTC')::date"
    return _add_up(tenant, since, now + timedelta(seconds=1), [(day, "day"), ("model", "model")])


def hourly_series(tenant: Tenant, *, hours: int = 24) -> list[dict[str, Any]]:
    """One row an hour and model for the last `hours`."""
    now = timezone.now()
    start = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours - 1)
    return report(tenant, start=start, end=now + timedelta(seconds=1), group_by=["hour", "model"])


def _rows(tenant: Tenant, sql: str, parameters: list[Any]) -> list[dict[str, Any]]:
    with as_tenant(tenant.id), connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
