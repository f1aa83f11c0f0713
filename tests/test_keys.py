"""API keys: made, shown once, used, scoped, revoked."""

import time
from datetime import timedelta

import pytest
from django.utils import timezone

from apps.accounts import keys, secrets
from apps.accounts.models import ApiKey
from maas import errors
from maas.tenancy import as_tenant
from tests.cast import browser_for, client_for


def make(client, **fields):
    return client.post("/v1/keys", {"name": "ci", "scopes": ["predict"], **fields}, format="json")


def test_a_key_has_a_checksum_that_finds_typing_errors() -> None:
    secret = secrets.make_secret()
    assert len(secret) == 51
    assert secrets.looks_right(secret)
    changed = secret[:10] + ("A" if secret[10] != "A" else "B") + secret[11:]
    assert not secrets.looks_right(changed)


def test_the_secret_is_shown_once_and_stored_as_a_hash(cast) -> None:
    made = make(client_for(cast.key))
    assert made.status_code == 201
    secret = made.json()["secret"]
    listed = client_for(cast.key).get("/v1/keys")
    assert secret not in listed.content.decode()
    with as_tenant(cast.tenant.id):
        row = ApiKey.objects.get(last4=secret[-4:], name="ci")
    assert bytes(row.hash) == secrets.digest(secret)
    assert client_for(secret).get("/v1/models").status_code == 403  # it may predict, not list


def test_a_revoked_key_fails_with_the_next_request(cast) -> None:
    made = make(client_for(cast.key), scopes=["models"]).json()
    assert client_for(made["secret"]).get("/v1/models").status_code == 200
    assert client_for(cast.key).delete(f"/v1/keys/{made['id']}").json()["status"] == "revoked"
    answer = client_for(made["secret"]).get("/v1/models")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "key_revoked")


def test_revoking_twice_changes_nothing(cast) -> None:
    first = keys.revoke_key(cast.tenant, cast.key.row.id)
    assert keys.revoke_key(cast.tenant, cast.key.row.id).revoked_at == first.revoked_at


def test_an_expired_key_says_so(cast) -> None:
    _, secret = keys.create_key(cast.tenant, name="short", scopes=["models"], expires_at=timezone.now() + timedelta(seconds=0.2))
    time.sleep(0.3)
    assert client_for(secret).get("/v1/models").json()["error"]["code"] == "key_expired"


def test_last_use_is_written_once_a_minute_at_most(cast) -> None:
    client = client_for(cast.key)
    client.get("/v1/models")
    first = keys.get_key(cast.tenant, cast.key.row.id).last_used_at
    client.get("/v1/models")
    assert keys.get_key(cast.tenant, cast.key.row.id).last_used_at == first
    with as_tenant(cast.tenant.id):
        ApiKey.objects.filter(pk=cast.key.row.id).update(last_used_at=first - timedelta(seconds=61))
    client.get("/v1/models")
    assert keys.get_key(cast.tenant, cast.key.row.id).last_used_at > first


def test_last_use_is_noted(cast) -> None:
    assert keys.get_key(cast.tenant, cast.key.row.id).last_used_at is None
    client_for(cast.key).get("/v1/models")
    assert keys.get_key(cast.tenant, cast.key.row.id).last_used_at is not None


def test_a_key_cannot_give_scopes_that_it_lacks(cast) -> None:
    answer = make(client_for(cast.key_with("keys")), scopes=["predict"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "missing_scope")


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "missing_api_key"),
        ("", "invalid_api_key"),
        ("Bearer", "invalid_api_key"),
        ("Bearer x", "invalid_api_key"),
        ("Basic eDp5", "invalid_api_key"),
        pytest.param("Bearer " + secrets.make_secret(), "invalid_api_key", id="well-formed"),
        ("Bearer maas_\xff" + "a" * 45, "invalid_api_key"),
    ],
)
def test_bad_credentials_are_401(header, code) -> None:
    from rest_framework.test import APIClient

    answer = APIClient(raise_request_exception=False).get("/v1/models", **({} if header is None else {"HTTP_AUTHORIZATION": header}))
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)
    assert answer["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"scopes": ["predict"]}, "name"),
        ({"name": "", "scopes": ["predict"]}, "name"),
        ({"name": "x" * 81, "scopes": ["predict"]}, "name"),
        ({"name": "a\x00b", "scopes": ["predict"]}, "name"),
        ({"name": "a", "scopes": []}, "scopes"),
        ({"name": "a", "scopes": "predict"}, "scopes"),
        ({"name": "a", "scopes": ["everything"]}, "scopes[0]"),
        ({"name": "a", "scopes": ["predict"], "expires_at": 1}, "expires_at"),
        ({"name": "a", "scopes": ["predict"], "expires_at": "soon"}, "expires_at"),
        ({"name": "a", "scopes": ["predict"], "expires_at": 10**30}, "expires_at"),
        ({"name": "a", "scopes": ["predict"], "colour": "red"}, "colour"),
    ],
)
def test_bad_keys_name_the_field(cast, body, param) -> None:
    answer = client_for(cast.key).post("/v1/keys", body, format="json")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_viewer_cannot_make_or_revoke_a_key(cast) -> None:
    viewer = browser_for(cast.viewer)
    assert viewer.get("/v1/keys").status_code == 200
    answer = viewer.post("/v1/keys", {"name": "a", "scopes": ["predict"]}, content_type="application/json")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "role_forbids")


def test_a_session_needs_the_csrf_token(cast) -> None:
    from django.test import Client

    browser = Client(enforce_csrf_checks=True)
    browser.force_login(cast.owner, backend="allauth.account.auth_backends.AuthenticationBackend")
    answer = browser.post("/v1/keys", {"name": "a", "scopes": ["predict"]}, content_type="application/json")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "csrf_failed")


def test_the_limit_of_keys_holds(cast, monkeypatch) -> None:
    monkeypatch.setattr(keys, "KEY_LIMIT", 2)
    keys.create_key(cast.tenant, name="second", scopes=["predict"])
    with pytest.raises(errors.BadRequest, match="can have 2 keys"):
        keys.create_key(cast.tenant, name="third", scopes=["predict"])
