# ruff: noqa: S608  # every piece of SQL is a constant of this file
"""Proof that the roll-ups are the ledger, or what differs."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from django.db import connection

from apps.usage.rollups import SUMS
from maas.tenancy import SystemUse, as_system

PLACE = ("period", "hour", "tenant_id", "model", "unit", "key_id", "job_id")
LINE, COUNTS = ", ".join(PLACE), ", ".join(SUMS)
LEDGER = """SELECT period, date_trunc('hour', created_at, 'UTC') AS hour, tenant_id, model, unit, key_id, job_id,
    1 AS records, requests, quantity, units FROM usage_usagerecord WHERE kind <> 'void'"""
ROLLED = f"SELECT {LINE}, {COUNTS} FROM usage_usagehourly UNION ALL SELECT {LINE}, {COUNTS} FROM usage_usagefresh"
ARCHIVED = "SELECT period FROM usage_archivedmonth"
NOTHING_ELSE = f"NULL::timestamptz, NULL::uuid, NULL, NULL, NULL::uuid, NULL::uuid, {COUNTS}"


def _compare(ledger: str, rolled: str) -> str:
    """SQL with a row for each line whose sums differ: its place, the sums of the ledger, those of the roll-up."""
    both = f"SELECT 'ledger' AS side, * FROM ({ledger}) AS one UNION ALL SELECT 'rolled', * FROM ({rolled}) AS other"
    sums = [f"coalesce(sum({name}) FILTER (WHERE side = '{side}'), 0)::bigint" for side in ("ledger", "rolled") for name in SUMS]
    differs = " OR ".join(f"sum(CASE side WHEN 'ledger' THEN {name} ELSE -{name} END) <> 0" for name in SUMS)
    return f"SELECT {LINE}, {', '.join(sums)} FROM ({both}) AS sides GROUP BY {LINE} HAVING {differs} ORDER BY {LINE}"


HOURS = _compare(
    f"SELECT * FROM ({LEDGER}) AS x WHERE period NOT IN ({ARCHIVED}) AND period = coalesce(%s, period)",
    f"SELECT * FROM ({ROLLED}) AS x WHERE period NOT IN ({ARCHIVED}) AND period = coalesce(%s, period)",
)
# What a month held when it was archived stands for the lines that are gone.
MONTHS = _compare(
    f"""SELECT period, NULL::timestamptz AS hour, NULL::uuid AS tenant_id, NULL AS model, NULL AS unit,
            NULL::uuid AS key_id, NULL::uuid AS job_id, {COUNTS} FROM usage_archivedmonth
        UNION ALL SELECT period, {NOTHING_ELSE} FROM ({LEDGER}) AS x WHERE period IN ({ARCHIVED})""",
    f"SELECT period, {NOTHING_ELSE} FROM ({ROLLED}) AS x WHERE period IN ({ARCHIVED})",
)
DAYS = _compare(
    f"""SELECT NULL::date AS period, date_trunc('day', hour, 'UTC') AS hour, tenant_id, model, unit, key_id, job_id, {COUNTS}
        FROM usage_usagehourly""",
    f"SELECT NULL::date, day::timestamp AT TIME ZONE 'UTC', tenant_id, model, unit, key_id, job_id, {COUNTS} FROM usage_usagedaily",
)


@dataclass(frozen=True)
class Difference:
    """One line that differs; `ledger` and `rolled` are records, requests, quantity and units."""

    where: str
    ledger: tuple[int, ...]
    rolled: tuple[int, ...]

    def __str__(self) -> str:
        told = [f"{name} {a} in the ledger, {b} rolled up" for name, a, b in zip(SUMS, self.ledger, self.rolled, strict=True) if a != b]
        return f"{self.where}: {'; '.join(told)}"


def differences(period: date | None = None) -> Iterator[Difference]:
    """Where the roll-ups are not the ledger: hours against its lines, archived months as wholes, days against hours.

    With a `period` its hours alone are compared. Each comparison is one statement, so work that goes on does not disturb it.
    """
    yield from _differences("hour", HOURS, [period, period])
    if period is None:
        yield from _differences("archived month", MONTHS)
        yield from _differences("day", DAYS)


def _differences(what: str, sql: str, parameters: list[date | None] | None = None) -> list[Difference]:
    with as_system(SystemUse.RECONCILE_USAGE), connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        size, half = len(PLACE), len(PLACE) + len(SUMS)
        return [Difference(_where(what, row[:size]), row[size:half], row[half:]) for row in cursor.fetchall()]


def _where(what: str, place: tuple[object, ...]) -> str:
    known = [f"{name.removesuffix('_id')} {value}" for name, value in zip(PLACE, place, strict=True) if value is not None]
    return f"{what}: {', '.join(known)}"
