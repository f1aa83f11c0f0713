"""What is written to the ledger, and how PostgreSQL is told: by column, and what lines have in common once.

Migration 0004 has the SQL. Calls are settled by the dozen, thousands a second, and nearly all lines of a batch differ in
their source alone; so neither side makes or reads a text for every field of every line.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from django.utils import timezone

from apps.usage.periods import period_of
from maas.questions import Question

SETTLE = """SELECT maas_settle(
    $1::timestamptz, $2::text[], $3::bigint[], $4::bigint[], $5::integer[], $6::uuid[], $7::date[], $8::text[], $9::text[],
    $10::integer[], $11::text[], $12::integer[], $13::uuid[], $14::uuid[], $15::uuid[], $16::bigint[])"""


class UsageLine(NamedTuple):
    """What one piece of work used. `source` is unique over all time and holds a UUIDv7 (`periods`); `requests` counts calls or lines.

    `reservation` pays for it; without one it is charged as it is, in the month that runs.
    """

    source: str
    kind: str
    model: str
    version: int
    unit: str
    quantity: int
    units: int
    requests: int = 1
    key_id: UUID | None = None
    job_id: UUID | None = None
    reservation: UUID | None = None


def settling(rows: Iterable[tuple[UUID, UsageLine]]) -> Question:
    """The statement that charges lines of tenants; its one value are the sources that were new.

    Lines go in the order of their sources, the same for everybody, so that two who write the same ones do not wait in a
    circle. Raises ValueError for a source that names no work.
    """
    places: dict[tuple[Any, ...], int] = {}
    totals: list[int] = []
    lines = []
    for tenant_id, line in rows:
        source, kind, model, version, unit, quantity, units, requests, key_id, job_id, reservation = line
        alike = (tenant_id, period_of(source), kind, model, version, unit, requests, key_id, job_id, reservation)
        place = places.setdefault(alike, len(places) + 1)
        if place > len(totals):
            totals.append(0)
        totals[place - 1] += units
        lines.append((source, quantity, units, place))
    lines.sort()
    return SETTLE, [timezone.now(), *map(_array, (*zip(*lines, strict=True), *zip(*places, strict=True), totals))]


def _array(values: Sequence[Any]) -> str | list[Any]:
    """A PostgreSQL array: its text is that of JSON in other brackets, until something has to be escaped."""
    text = orjson.dumps(values).decode()
    return f"{{{text[1:-1]}}}" if "\\" not in text else list(values)
