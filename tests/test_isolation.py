"""Tenants never see each other: row-level security, then every route with another tenant's credentials."""

import itertools
import uuid

import pytest
from django.apps import apps
from django.db import connection, transaction
from django.db.utils import ProgrammingError
from django.urls import URLPattern, URLResolver, get_resolver

from apps.accounts.models import ApiKey, Membership, Tenant
from maas.tenancy import SystemUse, as_system, as_tenant, as_user
from tests.belongings import belongings
from tests.cast import browser_for, client_for

METHODS = ("get", "post", "put", "patch", "delete")
# Pages that list or make things of the caller's own tenant, and pages for everybody, name no object.
OPEN = {"healthz", "readyz", "api/schema", "api/docs"}


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


# ---------- every route ----------
def routes(resolver: URLResolver | None = None, prefix: str = "") -> list[str]:
    """Every pattern of the URLconf as one text, such as `v1/files/<str:file_id>`."""
    found = []
    for entry in (resolver or get_resolver()).url_patterns:
        path = prefix + str(entry.pattern)
        found += routes(entry, path) if isinstance(entry, URLResolver) else [path] if isinstance(entry, URLPattern) else []
    return found


def fill(route: str, names: dict[str, str]) -> str:
    """A route with its arguments filled from what a tenant owns; KeyError for an argument nobody knows."""
    while "<" in route:
        before, _, rest = route.partition("<")
        argument, _, after = rest.partition(">")
        route = before + names[argument.partition(":")[2] or argument] + after
    return "/" + route


def owned(route: str) -> bool:
    return "<" in route and not route.startswith(("accounts/", "static/"))


def test_every_argument_of_a_route_is_known_to_this_test(cast) -> None:
    """A new route with a new kind of id fails here until `belongings` makes one."""
    names = belongings(cast)
    for route in filter(owned, routes()):
        fill(route, names)


def test_another_tenants_key_and_session_find_nothing(cast) -> None:
    names = belongings(cast)
    callers = {"key": client_for(cast.other_key), "session": browser_for(cast.stranger)}
    seen = []
    for route, method, (kind, caller) in itertools.product(filter(owned, routes()), METHODS, callers.items()):
        if shared(route, names):
            continue
        answer = getattr(caller, method)(
            fill(route, names), **({"data": {}, "content_type": "application/json"} if method != "get" else {})
        )
        if answer.status_code not in {401, 403, 404, 405} and not to_sign_in(answer):
            seen.append((kind, method, route, answer.status_code))
    assert seen == []


def test_the_owner_does_find_them(cast) -> None:
    """The walk above proves something only if the objects are there for whoever owns them."""
    names = belongings(cast)
    mine, session = client_for(cast.key), browser_for(cast.owner)
    found = {
        route: {mine.get(fill(route, names)).status_code, session.get(fill(route, names)).status_code} for route in filter(owned, routes())
    }
    assert {route for route, statuses in found.items() if not statuses & {200, 302, 405}} == set()


def shared(route: str, names: dict[str, str]) -> bool:
    """Models of the shared catalogue belong to everybody."""
    return "<path:model>" in route or "<path:name>" in route


def to_sign_in(answer: object) -> bool:
    return answer.status_code == 302 and "/accounts/login" in answer["Location"]  # type: ignore[attr-defined]


def test_nobody_gets_in_without_credentials() -> None:
    from django.test import Client

    anonymous = Client(raise_request_exception=False)
    for route in routes():
        if route in OPEN or route.startswith(("accounts/", "static/")) or "<" in route:
            continue
        answer = anonymous.get("/" + route)
        assert answer.status_code in {401, 405} or to_sign_in(answer), (route, answer.status_code)
