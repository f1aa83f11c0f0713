"""Tenants never see each other: row-level security on every table, and nothing left behind by a transaction."""

import uuid

import pytest
from django.apps import apps
from django.db import connection, transaction
from django.db.utils import DataError, ProgrammingError

from apps.accounts.models import ApiKey, Membership, Tenant
from maas.questions import ask
from maas.tenancy import SystemUse, as_system, as_tenant, as_user, run_as_system
from tests.walk import left_behind


def tenant_tables() -> list[str]:
    return [m._meta.db_table for m in apps.get_models() if any(f.name == "tenant" for f in m._meta.fields) or m is Tenant]


@pytest.mark.parametrize("table", tenant_tables())
def test_every_tenant_table_forces_row_level_security(table: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE relname = %s", [table])
        assert cursor.fetchone() == (True, True)
        cursor.execute("SELECT polname, pg_get_expr(polqual, polrelid) FROM pg_policy WHERE polrelid = %s::regclass", [table])
        policies = dict(cursor.fetchall())
    assert "maas.tenant" in policies["tenant"]
    assert "system" in policies


def test_a_table_that_names_a_tenant_has_a_policy_even_if_no_model_says_so() -> None:
    with connection.cursor() as cursor:
        cursor.execute("""SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
                          WHERE a.attname = 'tenant_id' AND c.relkind = 'r' AND NOT (c.relrowsecurity AND c.relforcerowsecurity)""")
        assert cursor.fetchall() == []


def test_the_application_cannot_pass_by_row_level_security() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user, rolbypassrls, rolsuper FROM pg_roles WHERE rolname = current_user")
        assert cursor.fetchone() == ("maas_app", False, False)


def test_without_a_tenant_nothing_is_seen(cast) -> None:
    assert not Tenant.objects.filter(pk=cast.tenant.pk).exists()
    assert not ApiKey.objects.exists()


def test_with_a_tenant_only_its_rows_are_seen_though_nothing_filters(cast) -> None:
    with as_tenant(cast.tenant.id):
        assert {key.tenant_id for key in ApiKey.objects.all()} == {cast.tenant.id}
        assert list(Tenant.objects.all()) == [cast.tenant]


def test_a_row_cannot_be_written_for_another_tenant(cast) -> None:
    with pytest.raises(ProgrammingError, match="row-level security"), as_tenant(cast.tenant.id):
        ApiKey.objects.create(tenant=cast.other, name="x", hash=uuid.uuid4().bytes, last4="abcd")


def test_another_tenants_row_cannot_be_changed(cast) -> None:
    with as_tenant(cast.tenant.id):
        assert ApiKey.objects.filter(pk=cast.other_key.row.pk).update(name="mine") == 0


def test_a_user_sees_their_memberships_and_no_other(cast) -> None:
    with as_user(cast.owner.pk):
        assert [row.tenant_id for row in Membership.objects.all()] == [cast.tenant.id]
        assert not ApiKey.objects.exists()


def test_the_tenant_is_forgotten_with_the_transaction_and_after_an_error(cast) -> None:
    with pytest.raises(RuntimeError), as_tenant(cast.tenant.id):
        raise RuntimeError
    assert not ApiKey.objects.exists()
    with transaction.atomic():
        with as_tenant(cast.tenant.id):
            assert ApiKey.objects.exists()
        assert not ApiKey.objects.exists()
        with pytest.raises(RuntimeError), as_tenant(cast.tenant.id):
            raise RuntimeError
        assert not ApiKey.objects.exists()


def test_nested_tenants_do_not_mix(cast) -> None:
    with as_tenant(cast.tenant.id):
        with as_tenant(cast.other.id):
            assert {key.tenant_id for key in ApiKey.objects.all()} == {cast.other.id}
        assert {key.tenant_id for key in ApiKey.objects.all()} == {cast.tenant.id}


def test_the_system_needs_a_reason_and_gives_its_role_back(cast) -> None:
    with pytest.raises(TypeError), as_system("because"):  # type: ignore[arg-type]
        pass
    with as_system(SystemUse.SWEEP):
        assert ApiKey.objects.filter(tenant__in=[cast.tenant, cast.other]).count() == 2
    assert not ApiKey.objects.exists()


def test_what_the_system_runs_in_one_trip_leaves_no_role_behind() -> None:
    assert run_as_system(SystemUse.SWEEP, ("SELECT current_user || $1", ["!"])) == "maas_system!"
    assert left_behind() == ("", "", "maas_app")
    with pytest.raises(DataError):
        run_as_system(SystemUse.SWEEP, ("SELECT 1 / $1::int", [0]))
    assert left_behind() == ("", "", "maas_app") and ask(("SELECT current_user", ())) == [("maas_app",)]
    with pytest.raises(TypeError, match="Say why"):
        run_as_system("sweep", ("SELECT 1", []))  # type: ignore[arg-type]


def test_inside_a_transaction_it_is_a_part_of_it(cast) -> None:
    with as_tenant(cast.tenant.id):
        assert run_as_system(SystemUse.SWEEP, ("SELECT current_user", [])) == "maas_system"
        assert left_behind() == (str(cast.tenant.id), "", "maas_app")
