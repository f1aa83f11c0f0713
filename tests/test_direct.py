"""The short way of a key's call to a model, and the questions that it asks."""

import json
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from django.db import NotSupportedError, OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from psycopg import RawCursor

from apps.accounts import keys
from apps.catalog import services as catalog
from apps.catalog.models import Alias, Model, Version
from apps.inference.direct import READ_FIRST
from apps.usage import blocks
from maas import errors, questions, queue
from maas.ids import uuid7
from maas.questions import ask
from maas.stamps import renew_on_commit
from maas.tenancy import as_tenant
from tests.conftest import HOME
from tests.queueing import answer_at_once
from tests.tiny import NAME, load_tiny, picture
from tests.walk import left_behind

PREDICTIONS = "/v1/predictions"
PID = "SELECT pg_backend_pid()", ()


@pytest.fixture
def tiny():
    return load_tiny(HOME / "direct" / NAME)


@pytest.fixture
def answering(monkeypatch, tiny) -> list:
    """The calls that were put in line; each is answered at once."""
    return answer_at_once(monkeypatch, queue.Answer([[{"label": "dark", "score": 1.0}]], 3, 0, 0))


def post(secret: str, body: object, **headers: str):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Client().post(PREDICTIONS, raw, "application/json", headers={"Authorization": f"Bearer {secret}", **headers})


def own_model(tenant) -> Model:
    """A model of one tenant alone, with a current version."""
    with as_tenant(tenant.id):
        model = Model.objects.create(tenant=tenant, name=f"{tenant.slug}/mine", task="image-classification", description="-")
        Alias.objects.create(tenant=tenant, model=model, name="current", version=make_version(model, 1))
    return model


def make_version(model: Model, number: int) -> Version:
    return Version.objects.create(
        tenant_id=model.tenant_id, model=model, number=number, recipe="image_cnn", rate={}, files={}, digest=f"{number}"
    )


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """The SQL of each question, on its way to PostgreSQL."""
    found, real = [], RawCursor.execute

    def listen(cursor, sql, *given):
        found.append(sql)
        return real(cursor, sql, *given)

    monkeypatch.setattr(RawCursor, "execute", listen)
    return found


def test_a_call_asks_the_database_once(cast, answering, asked) -> None:
    body = {"model": NAME, "inputs": picture()}
    assert post(cast.key.secret, body).status_code == 200  # begins the month and takes a block
    asked.clear()
    with CaptureQueriesContext(connection) as others:
        assert post(cast.key.secret, body).status_code == 200
    assert [sql.split("(")[0] for sql in asked] == ["SELECT * FROM maas_open_call"] and len(others) == 0


def test_a_waiting_call_holds_no_connection(cast, answering) -> None:
    assert post(cast.key.secret, {"model": NAME, "inputs": picture()}).status_code == 200  # begins the month
    blocks.give_back()

    def call_in_a_thread_of_its_own() -> tuple[int, bool]:
        status = post(cast.key.secret, {"model": NAME, "inputs": picture()}).status_code
        return status, connection.connection is None

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(call_in_a_thread_of_its_own).result() == (200, True)


def test_a_large_body_is_read_after_the_key(cast, answering, asked) -> None:
    large = {"model": NAME, "inputs": [picture()] * 128, "parameters": {"x": "y" * READ_FIRST}}
    assert post("maas_x", large).status_code == 401
    post(cast.key.secret, large)  # notes the key's use
    asked.clear()
    assert post(cast.key.secret, large).json()["error"]["code"] == "unknown_parameter"
    assert [sql.split("(")[0] for sql in asked] == ["SELECT * FROM maas_find_key", "SELECT maas_find_version"]


@pytest.mark.parametrize("body", [b"{", b"[1]", b"", {"model": 3}, {"model": "no such"}, {"model": NAME + "@x" * 150, "inputs": 1}])
def test_who_calls_is_told_before_what_is_wrong_with_the_body(cast, tiny, body) -> None:
    assert post("maas_x", body).status_code == 401
    assert post(cast.key_with("files").secret, body).json()["error"]["code"] == "missing_scope"
    assert post(cast.key.secret, body).status_code in {400, 404}


def test_the_short_way_leaves_no_tenant_behind(cast, answering) -> None:
    post(cast.key.secret, {"model": NAME, "inputs": picture()})
    assert left_behind() == ("", "", "maas_app")


def test_another_tenants_model_is_not_found(cast) -> None:
    name = own_model(cast.tenant).name
    told = post(cast.other_key.secret, {"model": name, "inputs": "x"})
    assert (told.status_code, told.json()["error"]["code"]) == (404, "model_not_found")
    with pytest.raises(errors.NotFound):
        catalog.resolve(cast.other, name)
    assert catalog.resolve(cast.tenant, name).model.name == name


def test_a_browser_needs_its_csrf_token_and_a_key_does_not(cast, answering) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(cast.owner, backend="allauth.account.auth_backends.AuthenticationBackend")
    body = json.dumps({"model": NAME, "inputs": picture()})
    assert browser.post(PREDICTIONS, body, "application/json").json()["error"]["code"] == "csrf_failed"
    with_key = browser.post(PREDICTIONS, body, "application/json", headers={"Authorization": f"Bearer {cast.key.secret}"})
    assert with_key.status_code == 200 and not with_key.cookies


def test_a_promotion_holds_with_the_next_call(cast, answering) -> None:
    model = own_model(cast.tenant)
    with as_tenant(cast.tenant.id):
        second = make_version(model, 2)
        assert catalog.resolve(cast.tenant, model.name).number == 1
        Alias.objects.filter(model=model).update(version=second)
        renew_on_commit(cast.tenant.id)
    assert catalog.resolve(cast.tenant, model.name).number == 2


def login() -> psycopg.Connection:
    """A connection that is not maas's own."""
    wanted = {"host", "port", "user", "dbname", "password"}
    parameters = {name: value for name, value in connection.get_connection_params().items() if name in wanted}
    return psycopg.connect(**parameters, autocommit=True)


def end_connection(pid: int) -> None:
    """What a restart of PostgreSQL does to a connection that nobody uses just now."""
    with login() as other:
        other.execute("SELECT pg_terminate_backend(%s)", [pid])


def test_a_connection_that_died_unnoticed_is_made_anew(cast) -> None:
    end_connection(ask(PID)[0][0])
    assert keys.find_caller(cast.key.secret).tenant == cast.tenant


def test_a_question_inside_a_transaction_is_asked_there_and_not_again(cast) -> None:
    with pytest.raises(OperationalError), as_tenant(cast.tenant.id):
        assert ask(("SELECT current_setting('maas.tenant')", ())) == [(str(cast.tenant.id),)]
        end_connection(ask(PID)[0][0])
        ask(("SELECT 1", ()))
    connection.close()


def test_a_prepared_question_that_no_longer_fits_is_asked_anew() -> None:
    table = f"odd_{uuid7().hex}"
    with login() as other:
        other.execute(f"CREATE TABLE {table} (a int); GRANT SELECT ON {table} TO maas_app")
        assert [ask((f"SELECT * FROM {table}", ())) for _ in range(3)] == [[], [], []]
        other.execute(f"ALTER TABLE {table} ADD b text; INSERT INTO {table} VALUES (1, 'x')")
        with questions._line() as line, pytest.raises(NotSupportedError):
            line.ask((f"SELECT * FROM {table}", ()))
        assert ask((f"SELECT * FROM {table}", ())) == [(1, "x")]
        other.execute(f"DROP TABLE {table}")


def test_threads_share_a_few_connections() -> None:
    with ThreadPoolExecutor(40) as pool:
        pids = {rows[0][0] for rows in pool.map(lambda _: ask(PID), range(400))}
    assert 1 <= len(pids) <= questions.CONNECTIONS
