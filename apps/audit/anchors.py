"""Anchors: where each chain stood and when, signed, kept apart from the database.

Whoever can write to the database could make a whole chain anew; it would not fit the anchors that were written before.
They are small files of JSON lines that are never changed, so they can be copied to a place that nobody here can write to.
"""

import hmac
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import Storage, storages
from django.db import connection

from apps.audit.models import Head
from apps.audit.recording import canonical, tenant_id
from maas import ids
from maas.tenancy import SystemUse, as_system

LINES = 10_000  # anchors in one file
NOTE = """
WITH held AS (SELECT tenant_id FROM audit_head WHERE tenant_id = ANY(%s) ORDER BY tenant_id FOR UPDATE)
UPDATE audit_head head SET anchored_seq = greatest(head.anchored_seq, new.seq)
FROM unnest(%s::uuid[], %s::bigint[]) AS new (tenant_id, seq), held
WHERE head.tenant_id = new.tenant_id AND held.tenant_id = new.tenant_id
"""


class Anchor(NamedTuple):
    """Entry `seq` of a tenant had this hash (hex) at `at` (Unix milliseconds); `file` says where that was read."""

    tenant: str
    seq: int
    hash: str
    at: int
    file: str


# ---------- writing ----------
def write_anchors() -> int:
    """Anchor every chain that grew since its last anchor, and say how many those were. Running it twice does no harm."""
    count = 0
    while grown := _find_grown():
        _store(grown)
        _note(grown)
        count += len(grown)
        if len(grown) < LINES:
            break
    return count


def _find_grown() -> list[tuple[UUID, int, str]]:
    with as_system(SystemUse.ANCHOR_AUDIT), connection.cursor() as cursor:
        cursor.execute(
            "SELECT tenant_id, seq, encode(hash, 'hex') FROM audit_head WHERE seq > anchored_seq ORDER BY tenant_id LIMIT %s", [LINES]
        )
        return cursor.fetchall()


def _store(grown: list[tuple[UUID, int, str]]) -> None:
    now = datetime.now(UTC)
    name = f"{now:%Y/%m/%d}/{now:%H%M%S}-{ids.uuid7().hex[-12:]}.jsonl"
    facts = [{"tenant": tenant_id(tenant), "seq": seq, "hash": hash_, "at": time.time_ns() // 1_000_000} for tenant, seq, hash_ in grown]
    lines = [canonical({**fact, "mac": sign(fact)}) for fact in facts]
    storages["anchors"].save(name, ContentFile(("\n".join(lines) + "\n").encode()))


def _note(grown: list[tuple[UUID, int, str]]) -> None:
    tenants, seqs = [row[0] for row in grown], [row[1] for row in grown]
    with as_system(SystemUse.ANCHOR_AUDIT), connection.cursor() as cursor:
        cursor.execute(NOTE, [tenants, tenants, seqs])


def find_head(tenant: UUID) -> Head | None:
    """Where a chain ends, as the current transaction sees it."""
    return Head.objects.filter(tenant_id=tenant).first()


# ---------- signing ----------
def sign(fact: dict[str, Any]) -> str:
    """HMAC-SHA256 of the fact's canonical JSON, in hex, by a key made from the first of MAAS_SEALING_KEYS."""
    return _mac(settings.MAAS_SEALING_KEYS[0], fact)


def is_signed(fact: dict[str, Any], mac: Any) -> bool:
    """Whether any of MAAS_SEALING_KEYS signed this."""
    return isinstance(mac, str) and any(hmac.compare_digest(_mac(key, fact), mac) for key in settings.MAAS_SEALING_KEYS)


def _mac(text: str, fact: dict[str, Any]) -> str:
    return hmac.digest(_key(text), canonical(fact).encode(), "sha256").hex()


@cache
def _key(text: str) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=b"maas audit anchors").derive(text.encode())


# ---------- reading ----------
def read_anchors(storage: Storage) -> Iterator[Anchor | str]:
    """Every anchor of a place, and for every line that is not one of ours a sentence that names it."""
    for name in _files(storage, ""):
        with storage.open(name) as file:
            for number, line in enumerate(file, 1):
                yield _parse(line, f"{name}, line {number}")


def _files(storage: Storage, folder: str) -> Iterator[str]:
    """The names of all files, folder by folder."""
    try:
        folders, files = storage.listdir(folder)
    except FileNotFoundError:  # nothing was anchored yet
        return
    yield from (f"{folder}{name}" for name in sorted(files) if name.endswith(".jsonl"))
    for inner in sorted(folders):
        yield from _files(storage, f"{folder}{inner}/")


def _parse(line: bytes, place: str) -> Anchor | str:
    try:
        fact = json.loads(line)
        mac = fact.pop("mac")
        found = Anchor(fact["tenant"], int(fact["seq"]), fact["hash"], int(fact["at"]), place)
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"The anchor in {place} cannot be read: the file was damaged or changed."
    if not is_signed(fact, mac):
        return f"The anchor in {place} is signed by none of MAAS_SEALING_KEYS: it was forged, or its key was taken away."
    return found
