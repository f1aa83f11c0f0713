"""Recompute chains and compare them with where they should end and with their anchors, in constant memory."""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from django.core.files.storage import Storage
from django.db import connection

from apps.accounts.services import Tenant
from apps.audit.anchors import Anchor, is_signed, read_anchors
from apps.audit.recording import tenant_id
from maas import ids
from maas.tenancy import SystemUse, as_system
from maas.verify_export import START, link

PRUNED = '"action":"audit.pruned"'  # quotes inside of texts are escaped, so this is the action and nothing else
ROWS = """
SELECT head.seq, head.hash, head.anchored_seq, entry.seq, entry.hash, entry.body, entry.id
FROM accounts_tenant tenant
LEFT JOIN audit_head head ON head.tenant_id = tenant.id LEFT JOIN audit_entry entry ON entry.tenant_id = tenant.id
WHERE tenant.id = %s ORDER BY entry.seq NULLS LAST
"""  # one statement sees one moment, so entries that are added meanwhile do not matter


@dataclass
class Counts:
    """What was looked at."""

    looked_at: int = 0  # organisations, with or without entries
    chains: int = 0
    entries: int = 0
    anchors: int = 0


class Row(NamedTuple):
    """An entry, and where its chain ends (None: nowhere)."""

    head_seq: int | None
    head_hash: bytes | None
    anchored_seq: int | None
    seq: int | None
    hash: bytes | None
    body: str | None
    id: UUID | None


def verify(counts: Counts, places: Iterable[Storage], *, slug: str | None = None) -> Iterator[str]:
    """A sentence for everything that is wrong in the logs of all tenants, or of one; `counts` is filled on the way."""
    with _sorted_anchors() as anchors:
        for place in places:
            yield from _collect(anchors, place)
        known = _tenants(slug)
        counts.looked_at = len(known)
        for tenant, name in known:
            for problem in _verify_chain(tenant, anchors, counts):
                yield f"{name}: {problem}"
        if slug is None:
            yield from _find_gone(anchors, {tenant_id(tenant) for tenant, _name in known})


def _tenants(slug: str | None) -> list[tuple[UUID, str]]:
    with as_system(SystemUse.VERIFY_AUDIT):
        rows = Tenant.objects.order_by("slug").values_list("id", "slug")
        return list(rows if slug is None else rows.filter(slug=slug))


# ---------- anchors, in order ----------
@contextmanager
def _sorted_anchors() -> Iterator[sqlite3.Connection]:
    """A table on disk: years of anchors need not fit into memory."""
    database = sqlite3.connect("")  # a temporary file that ends with the connection
    database.execute("CREATE TABLE anchor (tenant TEXT, seq INTEGER, hash TEXT, at INTEGER, file TEXT)")
    database.execute("CREATE INDEX place ON anchor (tenant, seq)")
    try:
        yield database
    finally:
        database.close()


def _collect(anchors: sqlite3.Connection, place: Storage) -> Iterator[str]:
    for found in read_anchors(place):
        if isinstance(found, str):
            yield found
        else:
            anchors.execute("INSERT INTO anchor VALUES (?, ?, ?, ?, ?)", found)


def _find_gone(anchors: sqlite3.Connection, known: set[str]) -> Iterator[str]:
    for tenant, seq in anchors.execute("SELECT tenant, max(seq) FROM anchor GROUP BY tenant"):
        if tenant not in known:
            yield f"{tenant}: {seq} entries of it were anchored, but the organisation is gone, and its log with it."


# ---------- one chain ----------
def _verify_chain(tenant: UUID, anchors: sqlite3.Connection, counts: Counts) -> Iterator[str]:
    rows = anchors.execute("SELECT * FROM anchor WHERE tenant = ? ORDER BY seq, at", [tenant_id(tenant)])
    walk, row = Walk(map(Anchor._make, rows)), None
    with as_system(SystemUse.VERIFY_AUDIT), connection.chunked_cursor() as cursor:
        cursor.execute(ROWS, [tenant])
        for found in cursor:
            row = Row._make(found)
            yield from walk.step(row)
    if row:
        yield from walk.end(row)
    counts.chains += bool(walk.count)
    counts.entries += walk.count
    counts.anchors += walk.agreed


@dataclass
class Walk:
    """One pass over a chain, oldest entry first. `step` takes each row, `end` the last one again."""

    anchors: Iterator[Anchor]
    count: int = 0
    agreed: int = 0
    first: Row | None = None
    seq: int = 0
    hash: bytes | None = None
    is_begun: bool = False  # the chain starts with entry 1, or where a signed entry says that it was pruned
    last_good: int = 0
    is_rewritten: bool = False
    newest: int = 0  # the highest number that an anchor names
    waiting: Anchor | None = field(default=None, repr=False)

    def step(self, row: Row) -> Iterator[str]:
        """What is wrong with an entry and the way to it."""
        if row.body is None:
            return
        self.count += 1
        if row.seq is None:
            yield f"Entry {ids.encode(ids.AUDIT, row.id)} stands outside of the chain."  # type: ignore[arg-type]
            return
        yield from self._check_link(row)
        if not self.is_begun and PRUNED in row.body:
            yield from self._read_pruning(row.body)
        self.seq, self.hash = row.seq, row.hash
        yield from self._check_anchors(row)

    def _check_link(self, row: Row) -> Iterator[str]:
        assert row.seq is not None and row.body is not None  # noqa: S101  # for the type checker
        previous = self.hash
        if self.first is None:
            self.first, self.is_begun = row, row.seq == 1
            previous = START if row.seq == 1 else None
        elif row.seq != self.seq + 1:
            yield f"{_entries(self.seq + 1, row.seq - 1)} missing: deleted."
            previous = None
        if previous is not None and link(previous, row.seq, row.body) != row.hash:
            yield f"Entry {row.seq} was edited: its text and the entry before it do not give its hash."

    def _read_pruning(self, body: str) -> Iterator[str]:
        """An entry that tells of the pruning that the kept part begins with: it holds the hash before that part."""
        try:
            entry = json.loads(body)
            said = entry["after"]
            fact = {"tenant": entry["tenant"], "through": said["through"], "hash": said["hash"]}
            before, mac = bytes.fromhex(said["hash"]), said["mac"]
        except (ValueError, KeyError, TypeError):
            return
        first = self.first
        if first is None or first.seq is None or first.seq != fact["through"] + 1 or not is_signed(fact, mac):
            return
        self.is_begun = True
        if link(before, first.seq, first.body or "") != first.hash:
            yield f"Entry {first.seq}, the oldest that is kept, was edited: its text does not give its hash."

    def _check_anchors(self, row: Row) -> Iterator[str]:
        while (anchor := self._peek()) and anchor.seq <= self.seq:
            self.waiting = None
            if anchor.seq < self.seq or self.is_rewritten:  # pruned, missing, or told already
                continue
            if row.hash is not None and anchor.hash == row.hash.hex():
                self.agreed, self.last_good = self.agreed + 1, anchor.seq
                continue
            self.is_rewritten = True
            yield (
                f"The chain was rewritten after entry {self.last_good} and up to entry {anchor.seq}: that entry has another hash "
                f"in the anchor of {_day(anchor)} ({anchor.file})."
            )

    def _peek(self) -> Anchor | None:
        self.waiting = self.waiting or next(self.anchors, None)
        self.newest = max(self.newest, self.waiting.seq if self.waiting else 0)
        return self.waiting

    def end(self, row: Row) -> Iterator[str]:
        """What is missing at either end."""
        if self.first and self.first.seq and not self.is_begun:
            yield f"{_entries(1, self.first.seq - 1)} missing, and no entry tells that they were pruned: deleted."
        yield from self._check_head(row)
        last = None
        while anchor := self._peek():
            self.waiting, last = None, anchor
        if last and last.seq > self.seq:
            yield f"The log ends with entry {self.seq}, but entry {last.seq} existed on {_day(last)} ({last.file}): cut off at the end."
        if (row.anchored_seq or 0) > self.newest:
            yield f"Anchors are missing: entry {row.anchored_seq} was anchored, but the newest anchor found is of entry {self.newest}."

    def _check_head(self, row: Row) -> Iterator[str]:
        if row.head_seq is None:
            if self.seq:
                yield f"The head of the chain is missing; the log ends with entry {self.seq}."
        elif row.head_seq > self.seq:
            yield f"{_entries(self.seq + 1, row.head_seq)} missing at the end: deleted."
        elif row.head_seq < self.seq or row.head_hash != self.hash:
            yield f"The head of the chain names another end than entry {self.seq}: one of the two was changed."


def _entries(first: int, last: int) -> str:
    return f"Entry {first} is" if first == last else f"Entries {first} to {last} are"


def _day(anchor: Anchor) -> str:
    return f"{datetime.fromtimestamp(anchor.at / 1000, UTC):%Y-%m-%d %H:%M} UTC"
