"""A month of the ledger, written to a compressed file that is proved to hold it, then dropped. Its roll-ups stay."""

import csv
import gzip
import hashlib
import json
import os
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import date
from itertools import islice
from pathlib import Path

from django.db import ProgrammingError, connection
from django.utils import timezone
from psycopg.errors import RaiseException

from apps.usage.models import ArchivedMonth, Kind
from apps.usage.periods import month_after
from apps.usage.reconciling import differences
from apps.usage.rollups import SUMS, roll_up
from apps.usage.services import CHARGED_WITHIN
from maas.tenancy import SystemUse, as_system

COLUMNS = ("source", "tenant_id", "created_at", "kind", "model", "version", "unit", "quantity", "units", "requests", "key_id", "job_id")
COPY = f"COPY (SELECT {', '.join(COLUMNS)} FROM usage_usagerecord WHERE period = %s) TO STDOUT (FORMAT csv, HEADER)"  # noqa: S608
ROLLED = f"""SELECT tenant_id::text, model, unit, {", ".join(f"sum({name})::bigint" for name in SUMS)}
    FROM usage_usagehourly WHERE period = %s GROUP BY 1, 2, 3"""  # noqa: S608
LEVEL = 1  # of gzip: a third larger than the best, and ten times as fast
NAMED = 5  # differences told of


class Refused(Exception):
    """This month stays in the ledger; the message says why."""


@dataclass(frozen=True)
class Archive:
    """What a file holds. `lines` counts every line, `records` those that are not voids."""

    file: str
    sha256: str
    lines: int
    records: int
    requests: int
    quantity: int
    units: int


def archive_month(period: date, folder: Path) -> Archive:
    """Write a month to `usage-YYYY-MM.csv.gz` in a folder, with its counts and sha256 in JSON beside it, and drop it.

    Raises Refused for a month that is not over for a week, is archived already, or whose file differs from the
    roll-up; then the ledger is as it was. One that died before it dropped the month can run again.
    """
    _check_time(period)
    roll_up()
    _check_roll_up(period)
    target = folder / f"usage-{period:%Y-%m}.csv.gz"
    _write(period, target)
    archive = _read(target, period)
    _describe(target, archive)
    _drop(period, archive)
    return archive


def _check_time(period: date) -> None:
    if month_after(period) > (timezone.now() - CHARGED_WITHIN).date():
        raise Refused(f"{period:%Y-%m} is not over for {CHARGED_WITHIN.days} days: work of that month may still be charged.")
    with as_system(SystemUse.ARCHIVE_USAGE), connection.cursor() as cursor:
        if ArchivedMonth.objects.filter(period=period).exists():
            raise Refused(f"{period:%Y-%m} is archived already.")
        cursor.execute("SELECT to_regclass(%s) IS NULL", [f"public.usage_usagerecord_{period:%Y_%m}"])
        if cursor.fetchone()[0]:
            raise Refused(f"The ledger has no month {period:%Y-%m}.")


def _check_roll_up(period: date) -> None:
    found = [str(difference) for difference in islice(differences(period), NAMED)]
    if found:
        raise Refused(f"{period:%Y-%m} differs from its roll-up: " + " | ".join(found))


def _drop(period: date, archive: Archive) -> None:
    """The database counts once more while nobody can write, and refuses when a line came meanwhile."""
    try:
        with as_system(SystemUse.ARCHIVE_USAGE), connection.cursor() as cursor:
            ArchivedMonth.objects.create(period=period, **asdict(archive))
            cursor.execute("SELECT maas_drop_usage_month(%s)", [period])
    except ProgrammingError as reason:
        if not isinstance(reason.__cause__, RaiseException):
            raise
        raise Refused(str(reason).splitlines()[0]) from None


def _write(period: date, target: Path) -> None:
    """Under its name only when it is whole and on the disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    with (
        gzip.open(part, "wb", LEVEL) as packed,
        as_system(SystemUse.ARCHIVE_USAGE),
        connection.cursor() as cursor,
        cursor.copy(COPY, [period]) as rows,
    ):
        for block in rows:
            packed.write(block)
    _sync(part)
    part.replace(target)


def _read(target: Path, period: date) -> Archive:
    """Read the file back, compare it with the roll-up by tenant, model and unit, and say what it holds."""
    found, lines = _sums(target)
    with as_system(SystemUse.ARCHIVE_USAGE), connection.cursor() as cursor:
        cursor.execute(ROLLED, [period])
        rolled = {(*row[:3], name): value for row in cursor.fetchall() for name, value in zip(SUMS, row[3:], strict=True) if value}
    if {place: value for place, value in found.items() if value} != rolled:
        raise Refused(f"{target} differs from the roll-up of {period:%Y-%m}.")
    totals: Counter[str] = Counter()
    for place, value in found.items():
        totals[place[3]] += value
    with target.open("rb") as body:
        digest = hashlib.file_digest(body, "sha256").hexdigest()
    return Archive(str(target), digest, lines, totals["records"], totals["requests"], totals["quantity"], totals["units"])


def _sums(target: Path) -> tuple[dict[tuple[str, str, str, str], int], int]:
    """Sums by tenant, model, unit and name without voids, and the number of all lines."""
    sums: dict[tuple[str, str, str], list[int]] = {}
    lines = 0
    with gzip.open(target, "rt", newline="") as text:
        rows = csv.reader(text)
        next(rows)
        for _source, tenant, _at, kind, model, _version, unit, quantity, units, requests, _key, _job in rows:
            lines += 1
            if kind != Kind.VOID:
                one = sums.setdefault((tenant, model, unit), [0, 0, 0, 0])
                one[0] += 1
                one[1] += int(requests)
                one[2] += int(quantity)
                one[3] += int(units)
    return {(*place, name): value for place, values in sums.items() for name, value in zip(SUMS, values, strict=True)}, lines


def _describe(target: Path, archive: Archive) -> None:
    beside = target.with_name(target.name.removesuffix(".csv.gz") + ".json")
    beside.write_text(json.dumps({**asdict(archive), "file": target.name, "bytes": target.stat().st_size}, indent=1) + "\n")
    _sync(beside)


def _sync(file: Path) -> None:
    with file.open("rb") as body:
        os.fsync(body.fileno())
