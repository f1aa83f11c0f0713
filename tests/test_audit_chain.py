"""The chain: numbered and hashed at the commit, whoever writes, and closed to the application."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.db.utils import DatabaseError, IntegrityError, ProgrammingError

from apps.audit.models import Head
from apps.audit.recording import canonical
from maas.events import TenantChanged, publish
from maas.tenancy import SystemUse, as_system, as_tenant
from maas.verify_export import START, link
from tests.insider import chain, grow, verify


@pytest.fixture
def log(cast):
    """A tenant whose log has ten entries and a few."""
    grow(cast.tenant, 10)
    return cast.tenant


# ---------- it is built as it says ----------
def test_entries_are_numbered_from_one_and_each_hash_covers_the_one_before(log) -> None:
    previous = START
    for number, (seq, hash_, body) in enumerate(chain(log), 1):
        previous = link(previous, seq, body)
        assert (seq, hash_) == (number, previous)
    with as_tenant(log.id):
        head = Head.objects.get()
    assert (head.seq, bytes(head.hash)) == (number, previous)
    assert verify(log)[0] == 0


def test_twenty_threads_make_one_chain_without_gaps(cast) -> None:
    begin = threading.Barrier(20)

    def work(_thread: int) -> None:
        begin.wait()
        try:
            grow(cast.tenant, 10)
        finally:
            connection.close()

    before = len(chain(cast.tenant))
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(work, range(20)))
    assert [seq for seq, _hash, _body in chain(cast.tenant)] == list(range(1, before + 201))
    assert verify(cast.tenant)[0] == 0


def test_entries_of_one_transaction_keep_their_order_and_one_that_rolls_back_leaves_no_gap(cast) -> None:
    before = len(chain(cast.tenant))
    with as_tenant(cast.tenant.id):
        publish(TenantChanged(tenant_id=cast.tenant.id, label="first"))
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            publish(TenantChanged(tenant_id=cast.tenant.id, label="never"))
            raise ZeroDivisionError
        publish(TenantChanged(tenant_id=cast.tenant.id, label="second"))
    added = chain(cast.tenant)[before:]
    assert [(seq, json.loads(body)["label"]) for seq, _hash, body in added] == [(before + 1, "first"), (before + 2, "second")]
    assert verify(cast.tenant)[0] == 0


def test_the_chain_is_locked_during_the_commit_alone(cast) -> None:
    """A transaction that has published and goes on does not hold up another one."""

    def work() -> None:
        with as_tenant(cast.tenant.id), connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '3s'")
            publish(TenantChanged(tenant_id=cast.tenant.id, label="change 0"))
        connection.close()

    with as_tenant(cast.tenant.id):
        publish(TenantChanged(tenant_id=cast.tenant.id, label="slow"))
        with ThreadPoolExecutor(1) as pool:
            pool.submit(work).result()
    labels = [json.loads(body)["label"] for _seq, _hash, body in chain(cast.tenant)]
    assert labels[-2:] == ["change 0", "slow"]


# ---------- what the application may not do ----------
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entry SET body = '{}'",
        "UPDATE audit_entry SET seq = 1",
        "DELETE FROM audit_entry",
        "TRUNCATE audit_entry",
        "INSERT INTO audit_entry (id, tenant_id, body, seq, hash) SELECT gen_random_uuid(), tenant_id, body, 99, hash FROM audit_entry",
        "UPDATE audit_head SET seq = 1",
        "UPDATE audit_head SET hash = ''",
        "DELETE FROM audit_head",
        "INSERT INTO audit_head (tenant_id, seq, hash) SELECT tenant_id, 9, hash FROM audit_head",
        "CREATE TEMP TABLE mine (id uuid, tenant_id uuid, body text); "
        "CREATE TRIGGER forge AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION maas_chain_audit()",
    ],
)
@pytest.mark.parametrize("role", ["maas_app", "maas_system"])
def test_neither_the_application_nor_the_system_can_change_the_log(log, statement, role) -> None:
    begin = as_tenant(log.id) if role == "maas_app" else as_system(SystemUse.VERIFY_AUDIT)
    with pytest.raises(ProgrammingError, match="permission denied"), begin, connection.cursor() as cursor:
        cursor.execute(statement)


def test_the_application_cannot_prune(log) -> None:
    with pytest.raises(ProgrammingError, match="permission denied"), as_tenant(log.id), connection.cursor() as cursor:
        cursor.execute("SELECT maas_prune_audit(%s, 3)", [log.id])


def test_the_system_cannot_prune_without_saying_so_in_the_log(log) -> None:
    with pytest.raises(DatabaseError, match=r"Publish audit.pruned"), as_system(SystemUse.PRUNE_AUDIT), connection.cursor() as cursor:
        cursor.execute("SELECT maas_prune_audit(%s, 3)", [log.id])


def test_an_entry_cannot_be_written_into_another_tenants_log_nor_name_another_tenant(cast) -> None:
    with pytest.raises(ProgrammingError, match="row-level security"), as_tenant(cast.tenant.id):
        publish(TenantChanged(tenant_id=cast.other.id))
    body = canonical({"id": "aud_" + "0" * 32, "tenant": f"org_{cast.other.id.hex}"})
    with pytest.raises(IntegrityError, match="body_names_tenant"), as_tenant(cast.tenant.id), connection.cursor() as cursor:
        cursor.execute("INSERT INTO audit_entry (id, tenant_id, body) VALUES (%s, %s, %s)", [UUID(int=0), cast.tenant.id, body])
