"""Somebody who may do everything in the database, and the command that finds out what they did."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from uuid import UUID

import psycopg
from django.core.management import call_command

from apps.audit.models import Entry
from apps.audit.recording import canonical
from maas.events import TenantChanged, publish
from maas.management.commands.prepare_database import _address
from maas.tenancy import as_tenant
from maas.verify_export import START, link

SWITCH = "ALTER TABLE {table} {mode} ROW LEVEL SECURITY"


@contextmanager
def insider() -> Iterator[psycopg.Connection]:
    """Somebody with the rights of the role that owns the tables; what they do is committed."""
    with psycopg.connect(**_address()) as database:
        database.execute("SET ROLE maas_owner")
        for table in ("audit_entry", "audit_head"):
            database.execute(SWITCH.format(table=table, mode="NO FORCE"))
        yield database
        for table in ("audit_entry", "audit_head"):
            database.execute(SWITCH.format(table=table, mode="FORCE"))


def tamper(statement: str, *values: object) -> None:
    with insider() as database:
        database.execute(statement, values)


def rewrite(tenant: UUID, change: Callable[[int, str], str], *, upto: int | None = None) -> None:
    """A whole chain made anew, with a head that fits, as somebody would who knows how it is built."""
    with insider() as database:
        rows = database.execute("SELECT id, seq, body FROM audit_entry WHERE tenant_id = %s ORDER BY seq", [tenant]).fetchall()
        previous = START
        for entry, seq, old in rows:
            if upto and seq > upto:
                database.execute("DELETE FROM audit_entry WHERE id = %s", [entry])
                continue
            body = change(seq, old)
            previous = link(previous, seq, body)
            database.execute("UPDATE audit_entry SET body = %s, hash = %s WHERE id = %s", [body, previous, entry])
        database.execute("UPDATE audit_head SET seq = %s, hash = %s WHERE tenant_id = %s", [upto or rows[-1][1], previous, tenant])


def renamed(body: str) -> str:
    return canonical({**json.loads(body), "label": "somebody else"})


def verify(tenant, **options) -> tuple[int, str]:
    """Exit status and what was said."""
    out = StringIO()
    try:
        call_command("verify_audit", tenant=tenant.slug, stdout=out, **options)
    except SystemExit as ended:
        return int(ended.code or 0), out.getvalue()
    return 0, out.getvalue()


def found(tenant, **options) -> str:
    """What is wrong, when something is."""
    status, said = verify(tenant, **options)
    assert status == 1, said
    return said


def grow(tenant, count: int) -> None:
    for number in range(count):
        with as_tenant(tenant.id):
            publish(TenantChanged(tenant_id=tenant.id, label=f"change {number}", after={"name": f"name {number}"}))


def chain(tenant) -> list[tuple[int, bytes, str]]:
    with as_tenant(tenant.id):
        return [(entry.seq, bytes(entry.hash), entry.body) for entry in Entry.objects.filter(tenant=tenant).order_by("seq")]
