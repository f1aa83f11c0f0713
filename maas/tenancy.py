"""Who a statement runs for. PostgreSQL's row-level security enforces it; these blocks only say it.

Outside of every block a tenant-owned table shows no rows at all. Settings are local to the transaction, so a pooled
connection never carries a tenant into the next request.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any
from uuid import UUID

from django.db import connection, models, transaction

from maas import ids
from maas.questions import Question, ask, tell_as_system, tell_as_tenant


class SystemUse(StrEnum):
    """Every reason for which the platform looks across tenants. Nothing else may."""

    SIGN_UP = "a new organisation's name must be free among all"
    LOAD_CATALOGUE = "shared models belong to no tenant"
    SETTLE_CALLS = "one micro-batch holds calls of several tenants"
    ROLL_UP_USAGE = "hourly and daily figures of all tenants"
    PARTITION_USAGE = "months of the ledger are made ahead, and lines without one get theirs"
    RECONCILE_USAGE = "the roll-ups of all tenants are compared with the ledger"
    ARCHIVE_USAGE = "a month of the ledger holds the lines of all tenants"
    RELEASE_RESERVATIONS = "what lost processes of all tenants had reserved is released"
    ALERT_BUDGETS = "budgets of all tenants are watched"
    CLOSE_MONTHS = "the invoices of all tenants are made"
    RECONCILE_BILLING = "ledger, allowances, meter events and invoices of all tenants are compared"
    COLLECT_PAYMENTS = "what Stripe is told and tells is of all tenants"
    OPERATE = "the operator's admin shows all tenants"
    CLAIM_SLICES = "workers take slices of all tenants in turn"
    SWEEP = "expired leases, jobs and files of all tenants"
    RESEAL = "stored secrets of all tenants move to a new key"
    READ_VERSION = "workers load a version by its id"
    VERIFY_AUDIT = "the chains of all tenants are recomputed"
    ANCHOR_AUDIT = "every chain that grew is anchored"
    PRUNE_AUDIT = "entries that no plan keeps are removed"
    DELIVER_WEBHOOKS = "workers call the endpoints of all tenants in turn"


class TenantOwned(models.Model):
    """A row of one tenant. Its table needs `maas.rls.IsolateTenant` in the migration that creates it."""

    id = models.UUIDField(primary_key=True, default=ids.uuid7, editable=False)
    tenant = models.ForeignKey("accounts.Tenant", on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        abstract = True


@contextmanager
def as_tenant(tenant_id: UUID) -> Iterator[None]:
    """One transaction that sees and writes the rows of this tenant, and the shared catalogue."""
    with _transaction_with("maas.tenant", str(tenant_id)):
        yield


@contextmanager
def as_user(user_id: int) -> Iterator[None]:
    """One transaction that sees this user's memberships and their tenants."""
    with _transaction_with("maas.user", str(user_id)):
        yield


@contextmanager
def as_system(use: SystemUse) -> Iterator[None]:
    """One transaction that sees the rows of all tenants, for one of the reasons above."""
    if not isinstance(use, SystemUse):
        raise TypeError("Say why: pass a member of SystemUse.")
    with _transaction_with("role", "maas_system"):
        yield


def run_as_tenant(tenant_id: UUID, statement: Question) -> list[tuple[Any, ...]]:
    """The rows of one statement in a transaction of its own as this tenant, over a connection that threads share.

    Inside of a transaction it is a part of that one. Raises what the database raises; then it may have been done all the same.
    """
    if not connection.in_atomic_block:
        return tell_as_tenant(tenant_id, statement)
    with as_tenant(tenant_id):
        return ask(statement)


def run_as_system(use: SystemUse, statement: Question) -> Any:
    """The one value that a statement gives, run by the system in a transaction of its own: one trip where `as_system` takes four.

    Inside of a transaction it is a part of that one. Raises what the database raises; then it may have been done all the same.
    """
    if not isinstance(use, SystemUse):
        raise TypeError("Say why: pass a member of SystemUse.")
    if not connection.in_atomic_block:
        return tell_as_system(statement)[0][0]
    with as_system(use):
        return ask(statement)[0][0]


@contextmanager
def _transaction_with(name: str, value: str) -> Iterator[None]:
    """A transaction, or a savepoint in one, with a parameter set for its length.

    The end of a transaction forgets the parameter, and so does a savepoint that is rolled back; only a nested block
    that ends well has to put the old value back.
    """
    nested = connection.in_atomic_block
    with transaction.atomic():
        before = _replace(name, value)
        yield
        if nested:
            _replace(name, before)


def _replace(name: str, value: str) -> str:
    """Set a parameter until the transaction ends; the value that it had comes back."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting(%s, true), set_config(%s, %s, true)", [name, name, value])
        return cursor.fetchone()[0] or ""
