"""What a key is limited to, its rotation, and what happens when it leaks."""

from datetime import timedelta

import pytest
import redis
from django.core import mail
from django.utils import timezone

from apps.accounts import keys, leaks, members, roles, secrets
from apps.accounts.models import ApiKey
from apps.accounts.restrictions import SCOPES
from maas import errors, events
from maas.actors import acting
from maas.lines import Lines
from maas.queue import store
from maas.stamps import renew_on_commit
from maas.tenancy import as_tenant
from tests.cast import Key, client_for, make_user


def error(answer) -> tuple[int, str, str | None]:
    found = answer.json()["error"]
    return answer.status_code, found["code"], found["param"]


def limited(cast, **limits) -> Key:
    return Key(*keys.create_key(cast.tenant, name="limited", scopes=list(limits.pop("scopes", SCOPES)), **limits))


# ---------- addresses ----------
@pytest.mark.parametrize(
    ("peer", "status"), [("203.0.113.9", 200), ("203.0.114.9", 403), ("2001:db8::1", 200), ("2001:db9::1", 403), ("", 403)]
)
def test_a_key_works_from_its_networks_alone(cast, peer, status) -> None:
    key = limited(cast, allowed_addresses=["203.0.113.0/24", "2001:db8::/32"])
    answer = client_for(key).get("/v1/models", REMOTE_ADDR=peer)
    assert answer.status_code == status
    if status == 403:
        assert error(answer)[1] == "address_not_allowed"
        assert answer.json()["error"]["request_id"]


def test_behind_a_proxy_the_last_forwarded_address_counts(cast, settings_of) -> None:
    key = limited(cast, allowed_addresses=["203.0.113.9"])
    client = client_for(key)
    with settings_of(SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https")):
        assert client.get("/v1/models", HTTP_X_FORWARDED_FOR="198.51.100.1, 203.0.113.9").status_code == 200
        assert client.get("/v1/models", HTTP_X_FORWARDED_FOR="203.0.113.9, 198.51.100.1").status_code == 403
        assert client.get("/v1/models", HTTP_X_FORWARDED_FOR="nonsense").status_code == 403
    assert client.get("/v1/models", HTTP_X_FORWARDED_FOR="203.0.113.9").status_code == 403  # no proxy: anybody can write this


@pytest.mark.parametrize("text", ["203.0.113.0/33", "localhost", "", "203.0.113", "::ffff::"])
def test_what_is_no_network_is_named(cast, text) -> None:
    with pytest.raises(errors.BadRequest) as caught:
        limited(cast, allowed_addresses=["10.0.0.1", text])
    assert caught.value.param == "allowed_addresses[1]"


# ---------- models ----------
def test_a_key_calls_its_models_alone(cast, catalogue) -> None:
    key = limited(cast, allowed_models=["minilm-squad"])
    answer = client_for(key).post("/v1/predictions", {"model": "cifar10-resnet9", "inputs": "x"}, format="json")
    assert error(answer) == (403, "model_not_allowed", "model")
    answer = client_for(key).post("/v1/predictions", {"model": "cifar10-resnet9@1", "inputs": "x"}, format="json")
    assert error(answer) == (403, "model_not_allowed", "model")
    answer = client_for(key).post("/v1/predictions", {"model": "minilm-squad", "inputs": 1}, format="json")
    assert error(answer)[:2] == (400, "invalid_type")  # let through to the model's own checks


@pytest.fixture
def catalogue() -> None:
    from apps.catalog.shipping import load_folder
    from tests.conftest import ROOT

    list(load_folder(ROOT / "models"))


# ---------- nobody gives more than they have ----------
def actor_of(key: Key):
    return acting(roles.key_actor(key.row))


def test_a_key_gives_no_more_than_it_has(cast) -> None:
    soon = timezone.now() + timedelta(days=1)
    own = limited(cast, scopes=["predict", "keys"], allowed_models=["a", "b"], allowed_addresses=["10.0.0.0/8"], expires_at=soon)
    fits = {"scopes": ["predict"], "allowed_models": ["a"], "allowed_addresses": ["10.1.0.0/16"], "expires_at": soon}
    with actor_of(own):
        keys.create_key(cast.tenant, name="fits", **fits)
        for field, value in [
            ("scopes", ["files"]), ("allowed_models", []), ("allowed_models", ["c"]), ("allowed_addresses", []),
            ("allowed_addresses", ["11.0.0.1"]), ("expires_at", None), ("expires_at", soon + timedelta(seconds=1)),
        ]:  # fmt: skip
            with pytest.raises(errors.Forbidden) as caught:
                keys.create_key(cast.tenant, name="more", **{**fits, field: value})
            assert caught.value.param == field


def test_a_key_cannot_take_over_a_stronger_one_by_rotating_or_changing_it(cast) -> None:
    weak = cast.key_with("keys")
    with actor_of(weak):
        with pytest.raises(errors.Forbidden):
            keys.rotate_key(cast.tenant, cast.key.row.id)
        with pytest.raises(errors.Forbidden):
            keys.change_key(cast.tenant, weak.row.id, scopes=["keys", "predict"])


def test_a_developer_gives_no_key_the_scope_that_reads_the_audit_log(cast) -> None:
    developer = make_user("developer")
    member = members.admit(cast.tenant, user=developer, role="developer")
    with acting(roles.user_actor(developer, member)):
        keys.create_key(cast.tenant, name="fine", scopes=["predict"])
        with pytest.raises(errors.Forbidden):
            keys.create_key(cast.tenant, name="too much", scopes=["keys"])
        with pytest.raises(errors.Forbidden):
            keys.rotate_key(cast.tenant, cast.key.row.id)


# ---------- changing ----------
def test_a_change_holds_from_the_next_call_on(cast) -> None:
    own, other = cast.key_with("models"), client_for(cast.key)
    path = f"/v1/keys/key_{own.row.id.hex}"
    assert client_for(own).get("/v1/models").status_code == 200
    answer = other.patch(path, {"scopes": ["files"], "allowed_addresses": ["10.0.0.1"]}, format="json")
    assert answer.json()["scopes"] == ["files"] and answer.json()["allowed_addresses"] == ["10.0.0.1/32"]
    assert error(client_for(own).get("/v1/models"))[1] == "address_not_allowed"
    assert other.patch(path, {"name": "renamed"}, format="json").json()["allowed_addresses"] == ["10.0.0.1/32"]
    assert error(other.patch(path, {"colour": "red"}, format="json")) == (400, "unknown_field", "colour")


def test_changes_are_published_with_before_and_after(cast) -> None:
    heard: list[events.Event] = []
    events.subscribe(events.KeyChanged, heard.append)
    keys.change_key(cast.tenant, cast.key.row.id, name="new name")
    keys.change_key(cast.tenant, cast.key.row.id, name="new name")
    mine = [event for event in heard if event.tenant_id == cast.tenant.id]
    assert [(event.before["name"], event.after["name"]) for event in mine] == [("test", "new name")]


# ---------- rotation ----------
def test_both_secrets_work_during_the_grace_and_the_old_one_ends_with_it(cast) -> None:
    path = f"/v1/keys/key_{cast.key.row.id.hex}/rotate"
    answer = client_for(cast.key).post(path, {"grace_seconds": 3600}, format="json").json()
    assert answer["secret"] != cast.key.secret and answer["old_secret_expires_at"]
    assert [client_for(secret).get("/v1/models").status_code for secret in (cast.key.secret, answer["secret"])] == [200, 200]
    with as_tenant(cast.tenant.id):
        ApiKey.objects.filter(pk=cast.key.row.pk).update(old_expires_at=timezone.now())
        renew_on_commit(cast.tenant.id)
    assert error(client_for(cast.key.secret).get("/v1/models"))[:2] == (401, "key_rotated")
    assert client_for(answer["secret"]).get("/v1/models").status_code == 200


def test_a_second_rotation_ends_the_first_secret_at_once(cast) -> None:
    _key, second = keys.rotate_key(cast.tenant, cast.key.row.id)
    _key, third = keys.rotate_key(cast.tenant, cast.key.row.id)
    assert [client_for(secret).get("/v1/models").status_code for secret in (cast.key.secret, second, third)] == [401, 200, 200]


def test_without_grace_the_old_secret_ends_at_once(cast) -> None:
    _key, second = keys.rotate_key(cast.tenant, cast.key.row.id, grace=timedelta(0))
    assert [client_for(secret).get("/v1/models").status_code for secret in (cast.key.secret, second)] == [401, 200]


def test_revocation_ends_both_secrets(cast) -> None:
    _key, second = keys.rotate_key(cast.tenant, cast.key.row.id)
    keys.revoke_key(cast.tenant, cast.key.row.id)
    for secret in (cast.key.secret, second):
        assert error(client_for(secret).get("/v1/models"))[1] == "key_revoked"


def test_an_ended_key_is_not_rotated_and_a_long_grace_is_refused(cast) -> None:
    with pytest.raises(errors.BadRequest) as caught:
        keys.rotate_key(cast.tenant, cast.key.row.id, grace=timedelta(days=31))
    assert caught.value.param == "grace_seconds"
    keys.revoke_key(cast.tenant, cast.key.row.id)
    with pytest.raises(errors.BadRequest) as caught:
        keys.rotate_key(cast.tenant, cast.key.row.id)
    assert caught.value.code == "key_revoked"


# ---------- revocation without Redis ----------
def test_revocation_holds_with_redis_down(cast, monkeypatch) -> None:
    monkeypatch.setattr(store, "_client", redis.Redis(port=1, socket_connect_timeout=0.2))
    monkeypatch.setattr(store, "LINES", Lines(store.connect))
    own = cast.key_with("models")
    assert client_for(own).get("/v1/models").status_code == 200
    assert client_for(cast.key).delete(f"/v1/keys/key_{own.row.id.hex}").status_code == 200
    assert error(client_for(own).get("/v1/models"))[1] == "key_revoked"


# ---------- headers ----------
@pytest.mark.parametrize(
    ("header", "status", "code"),
    [
        ("Basic dXNlcjpwYXNz", 401, "invalid_api_key"),
        ("Bearer", 401, "invalid_api_key"),
        ("Bearer maas_short", 401, "invalid_api_key"),
        ("Bearer {key},Bearer {key}", 400, "duplicate_header"),
        ("Bearer {key}, Bearer maas_other", 400, "duplicate_header"),
        ("Bearer {key} {key}", 401, "invalid_api_key"),
        ("Bearer \x7f", 401, "invalid_api_key"),
        ("", 401, "invalid_api_key"),
    ],
)
def test_malformed_and_repeated_authorization_headers(cast, header, status, code) -> None:
    answer = client_for("x").get("/v1/models", HTTP_AUTHORIZATION=header.replace("{key}", cast.key.secret))
    assert error(answer)[:2] == (status, code)


# ---------- leaks ----------
def report(text: str, **fields: str):
    return client_for("x").post("/v1/keys/report", {"text": text, **fields}, format="json")


def test_keys_are_recognised_in_a_text_by_their_checksum() -> None:
    real, forged = secrets.make_secret(), "maas_" + "A" * 46
    assert secrets.find_secrets(f'token = "{real}"; other={forged}\n{real}x {real}') == [real]


def test_a_reported_key_is_revoked_and_its_owners_are_told(cast, settings_of) -> None:
    with settings_of(EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend"):
        answer = report(f"KEY={cast.key.secret}\n{secrets.make_secret()}", url="https://example.org/leak.txt")
    assert [key["status"] for key in answer.json()["keys"]] == ["revoked", "unknown"]
    assert cast.key.secret not in answer.content.decode()
    assert error(client_for(cast.key).get("/v1/models"))[1] == "key_revoked"
    assert keys.get_key(cast.tenant, cast.key.row.id).revoked_reason == "leaked"
    sent = [message for message in mail.outbox if cast.tenant.slug in message.subject]
    assert [message.to for message in sent] == [[cast.owner.email]]
    assert "https://example.org/leak.txt" in sent[0].body
    assert report(cast.key.secret).json()["keys"][0]["status"] == "ended"


def test_a_leaked_old_secret_ends_without_the_new_one(cast) -> None:
    _key, second = keys.rotate_key(cast.tenant, cast.key.row.id)
    assert leaks.report_leak(cast.key.secret)[0].status == "revoked"
    assert [client_for(secret).get("/v1/models").status_code for secret in (cast.key.secret, second)] == [401, 200]


def test_a_report_needs_a_text(cast) -> None:
    assert (error(report(""))[0], error(report(""))[2]) == (400, "text")
    assert report("nothing here").json()["keys"] == []
