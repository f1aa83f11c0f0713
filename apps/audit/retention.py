"""How long entries are kept, and how older ones go without breaking the chain."""

import time
from datetime import timedelta
from itertools import takewhile
from uuid import UUID

from django.db import connection

from apps.accounts.services import Tenant
from apps.audit.anchors import sign
from apps.audit.models import Entry
from apps.audit.recording import tenant_id
from maas.events import AuditPruned, publish
from maas.tenancy import SystemUse, as_system

# Days by plan, None: for good. Plans belong to billing, which lies above and declares them here at the start.
DAYS: dict[str, int | None] = {}
STEP = 1_000  # entries of one transaction


def declare(days: dict[str, int | None]) -> None:
    """Say for how many days each plan keeps entries, None: for good."""
    DAYS.update(days)


def days_kept(plan: str) -> int | None:
    """For how many days this plan keeps entries; None for good, as for a plan that nobody knows: nothing is deleted by mistake."""
    return DAYS.get(plan)


def prune_entries() -> int:
    """Remove what is older than each tenant's plan keeps; how many entries those were. Running it twice does no harm."""
    with as_system(SystemUse.PRUNE_AUDIT):
        ending = [plan for plan, days in DAYS.items() if days is not None]
        plans = list(Tenant.objects.filter(plan__in=ending).values_list("id", "plan"))
    return sum(_prune_tenant(tenant, days) for tenant, plan in plans if (days := days_kept(plan)) is not None)


def _prune_tenant(tenant: UUID, days: int) -> int:
    before = int((time.time() - timedelta(days=days).total_seconds()) * 1000)
    removed = 0
    while step := _prune_step(tenant, before):
        removed += step
    return removed


def _prune_step(tenant: UUID, before: int) -> int:
    """Write down up to where the oldest entries go, then remove them, in one transaction: the rest verifies at any time."""
    with as_system(SystemUse.PRUNE_AUDIT), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"prune {tenant}"])
        oldest = Entry.objects.filter(tenant_id=tenant).order_by("seq").only("seq", "hash", "at", "action")[:STEP]
        due = list(takewhile(lambda entry: entry.at < before, oldest))
        if all(entry.action == AuditPruned.name for entry in due):  # one that tells of the last time is no reason to begin again
            return 0
        through, hash_ = due[-1].seq, bytes(due[-1].hash or b"").hex()
        mac = sign({"tenant": tenant_id(tenant), "through": through, "hash": hash_})
        publish(AuditPruned(tenant_id=tenant, after={"through": through, "hash": hash_, "entries": len(due), "mac": mac}))
        cursor.execute("SELECT maas_prune_audit(%s, %s)", [tenant, through])
        return int(cursor.fetchone()[0])
