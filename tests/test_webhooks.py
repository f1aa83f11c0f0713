"""Webhooks: what is sent and signed, rotation, sending again, who may, and the REST API."""

import json
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db import transaction
from openai import InvalidWebhookSignatureError, OpenAI
from standardwebhooks import Webhook, WebhookVerificationError

from apps.accounts.roles import user_actor
from apps.accounts.services import get_membership
from apps.webhooks import deliveries, delivering, services, signing
from apps.webhooks.models import Delivery, Message
from maas import errors, ids
from maas.actors import acting
from maas.events import BatchCompleted, FileCreated, KeyCreated, publish
from maas.ids import uuid7
from maas.tenancy import SystemUse, as_system, as_tenant
from tests.cast import client_for
from tests.hooks import again, current, listening, make, only, tell
from tests.receiver import Receiver


@pytest.fixture(autouse=True)
def target(settings_of) -> Iterator[Receiver]:
    with listening(settings_of) as told:
        yield told


# ---------- what is sent ----------
def test_an_event_arrives_as_openai_and_standardwebhooks_verify_it(cast, target) -> None:
    _endpoint, secret = make(cast, target)
    event = tell(cast)
    delivering.deliver_due()
    (call,) = target.calls
    body = Webhook(secret).verify(call.body, call.headers)
    assert body == {
        "id": call.headers["webhook-id"], "object": "event", "created_at": body["created_at"], "type": "key.created",
        "data": {"id": event.target},
    }  # fmt: skip
    unwrapped = OpenAI(api_key="x").webhooks.unwrap(call.body, call.headers, secret=secret)
    assert unwrapped.id == body["id"]


def test_openai_knows_the_event_of_a_batch_by_its_type(cast, target) -> None:
    _endpoint, secret = make(cast, target, ["batch.completed"])
    job_id = uuid7()
    with as_tenant(cast.tenant.id):
        publish(BatchCompleted(tenant_id=cast.tenant.id, job_id=job_id))
    delivering.deliver_due()
    unwrapped = OpenAI(api_key="x", webhook_secret=secret).webhooks.unwrap(target.calls[0].body, target.calls[0].headers)
    assert (type(unwrapped).__name__, unwrapped.data.id) == ("BatchCompletedWebhookEvent", ids.encode(ids.BATCH, job_id))


@pytest.mark.parametrize("part", ["webhook-id", "webhook-timestamp", "webhook-signature", "body"])
def test_a_message_that_was_changed_on_the_way_is_refused(cast, target, part) -> None:
    _endpoint, secret = make(cast, target)
    tell(cast)
    delivering.deliver_due()
    call = target.calls[0]
    changed = {**call.headers, part: call.headers.get(part, "").replace("1", "2") + "x"} if part != "body" else call.headers
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(call.body + " " * (part == "body"), changed)


def test_a_captured_request_is_refused_after_five_minutes(cast, target) -> None:
    _endpoint, secret = make(cast, target)
    tell(cast)
    delivering.deliver_due()
    call, old = target.calls[0], int(time.time()) - 301
    Webhook(secret).verify(call.body, call.headers)
    signed_then = signing.headers_for([secret], message_id=call.headers["webhook-id"], timestamp=old, body=call.body)
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(secret).verify(call.body, signed_then)
    with pytest.raises(InvalidWebhookSignatureError, match="too old"):
        OpenAI(api_key="x").webhooks.unwrap(call.body, signed_then, secret=secret)
    # The time is signed as well: a new one on an old signature is refused too.
    with pytest.raises(WebhookVerificationError, match="No matching signature"):
        Webhook(secret).verify(call.body, {**signed_then, "webhook-timestamp": str(int(time.time()))})


def test_only_what_was_asked_for_is_sent(cast, target) -> None:
    make(cast, target, ["batch.failed"])
    tell(cast)
    with as_tenant(cast.tenant.id):
        publish(FileCreated(tenant_id=cast.tenant.id, file_id=uuid7()))
        assert not Message.objects.exists()


def test_an_event_that_is_undone_is_never_sent(cast, target) -> None:
    endpoint, _secret = make(cast, target)
    with pytest.raises(RuntimeError), as_tenant(cast.tenant.id):
        publish(KeyCreated(tenant_id=cast.tenant.id, key_id=uuid7()))
        raise RuntimeError
    delivering.deliver_due()
    assert (target.calls, deliveries.list_deliveries(cast.tenant, endpoint.id)[0]) == ([], [])


def test_another_tenants_events_are_not_sent(cast, target) -> None:
    endpoint, _secret = make(cast, target)
    for somebody in (as_tenant(cast.other.id), as_system(SystemUse.SWEEP)):
        with somebody:
            publish(KeyCreated(tenant_id=cast.other.id, key_id=uuid7()))
    delivering.deliver_due()
    with as_system(SystemUse.SWEEP):
        assert (target.calls, Delivery.objects.filter(endpoint=endpoint).count()) == ([], 0)


# ---------- rotation ----------
def test_during_a_rotation_both_secrets_verify(cast, target) -> None:
    endpoint, old = make(cast, target)
    _endpoint, new = services.rotate_secret(cast.tenant, endpoint.id)
    tell(cast)
    delivering.deliver_due()
    (call,) = target.calls
    assert len(call.headers["webhook-signature"].split(" ")) == 2
    for secret in (old, new):
        Webhook(secret).verify(call.body, call.headers)
        OpenAI(api_key="x").webhooks.unwrap(call.body, call.headers, secret=secret)


@pytest.mark.parametrize("grace", [timedelta(0), timedelta(milliseconds=1)])
def test_after_the_grace_only_the_new_secret_verifies(cast, target, grace) -> None:
    endpoint, old = make(cast, target)
    _endpoint, new = services.rotate_secret(cast.tenant, endpoint.id, grace=grace)
    tell(cast)
    delivering.deliver_due()
    (call,) = target.calls
    Webhook(new).verify(call.body, call.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(old).verify(call.body, call.headers)


def test_the_secret_is_sealed_in_the_database(cast, target) -> None:
    endpoint, secret = make(cast, target)
    with as_tenant(cast.tenant.id), transaction.get_connection().cursor() as cursor:
        cursor.execute("SELECT secret FROM webhooks_endpoint WHERE id = %s", [endpoint.id])
        assert secret.removeprefix("whsec_") not in cursor.fetchone()[0]
    assert "whsec_" not in repr(current(cast, endpoint).__dict__)


# ---------- sending again ----------
def test_a_replay_has_the_same_id_and_body_and_a_new_time_and_signature(cast, target) -> None:
    endpoint, secret = make(cast, target)
    tell(cast)
    delivering.deliver_due()
    time.sleep(1.1)
    deliveries.replay_delivery(cast.tenant, endpoint.id, only(cast, endpoint).id)
    delivering.deliver_due()
    first, second = target.calls
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])
    assert int(first.headers["webhook-timestamp"]) < int(second.headers["webhook-timestamp"])
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]
    Webhook(secret).verify(second.body, second.headers)
    assert [attempt.number for attempt in deliveries.get_delivery(cast.tenant, endpoint.id, only(cast, endpoint).id)[1]] == [2, 1]


def test_what_failed_since_a_time_can_be_sent_again(cast, target, settings_of) -> None:
    endpoint, _secret = make(cast, target)
    target.answer = (500, {}, b"")
    with settings_of(MAAS_WEBHOOK_RETRIES=[]):
        for _event in range(3):
            tell(cast)
            again(cast, endpoint)
    oldest = deliveries.list_deliveries(cast.tenant, endpoint.id)[0][-1]
    target.answer = (200, {}, b"")
    assert deliveries.replay_failed(cast.tenant, endpoint.id, since=oldest.created_at + timedelta(microseconds=1)) == 2
    delivering.deliver_due()
    states = [row.state for row in deliveries.list_deliveries(cast.tenant, endpoint.id)[0]]
    assert states == ["delivered", "delivered", "failed"]


def test_a_test_goes_to_one_endpoint_alone(cast, target) -> None:
    endpoint, secret = make(cast, target, ["batch.failed"])
    make(cast, target)
    deliveries.send_test(cast.tenant, endpoint.id)
    delivering.deliver_due()
    (call,) = target.calls
    assert Webhook(secret).verify(call.body, call.headers)["type"] == "webhook.test"


# ---------- who may ----------
def test_roles_and_scopes_are_required(cast, target) -> None:
    endpoint, _secret = make(cast, target)
    viewer = user_actor(cast.viewer, get_membership(cast.viewer, cast.tenant.id))
    calls = [
        lambda: make(cast, target),
        lambda: services.change_endpoint(cast.tenant, endpoint.id, enabled=False),
        lambda: services.rotate_secret(cast.tenant, endpoint.id),
        lambda: services.delete_endpoint(cast.tenant, endpoint.id),
        lambda: deliveries.send_test(cast.tenant, endpoint.id),
        lambda: deliveries.replay_failed(cast.tenant, endpoint.id),
        lambda: deliveries.replay_delivery(cast.tenant, endpoint.id, endpoint.id),
    ]
    with acting(viewer):
        for call in calls:
            with pytest.raises(errors.Forbidden):
                call()
    assert client_for(cast.key_with("keys", "usage")).get("/v1/webhooks").status_code == 403
    assert client_for(cast.key_with("webhooks")).get("/v1/webhooks").status_code == 200


def test_an_organisation_has_at_most_20(cast, target) -> None:
    for _endpoint in range(20):
        make(cast, target)
    with pytest.raises(errors.BadRequest, match="20"):
        make(cast, target)


# ---------- REST ----------
def test_the_whole_life_of_a_webhook_over_rest(cast, target) -> None:
    client = client_for(cast.key)
    made = client.post("/v1/webhooks", {"url": target.url, "events": ["key.created"], "description": "shop"}, format="json")
    assert made.status_code == 201, made.content
    webhook = made.json()
    path = f"/v1/webhooks/{webhook['id']}"
    assert webhook["secret"].startswith("whsec_")
    assert (webhook["object"], webhook["enabled"], webhook["events"]) == ("webhook", True, ["key.created"])
    shown = client.get(path).json()
    assert {**shown, "secret": webhook["secret"]} == webhook
    assert [row["id"] for row in client.get("/v1/webhooks").json()["data"]] == [webhook["id"]]
    assert client.patch(path, {"events": ["*"]}, format="json").json()["events"] == ["*"]
    rotated = client.post(f"{path}/rotate", {"grace_seconds": 60}, format="json").json()
    assert rotated["secret"] != webhook["secret"] and rotated["old_secret_expires_at"]
    sent = client.post(f"{path}/test")
    assert (sent.status_code, sent.json()["state"]) == (202, "pending")
    delivering.deliver_due()
    (row,) = client.get(f"{path}/deliveries").json()["data"]
    assert (row["event_type"], row["state"], row["attempt_count"], row["last_status"]) == ("webhook.test", "delivered", 1, 204)
    detail = client.get(f"{path}/deliveries/{row['id']}").json()
    assert json.loads(detail["body"])["id"] == row["event_id"] == detail["attempts"][0]["request_headers"]["webhook-id"]
    assert client.post(f"{path}/deliveries/{row['id']}/replay").status_code == 202
    delivering.deliver_due()
    assert client.get(f"{path}/deliveries/{row['id']}").json()["attempt_count"] == 2
    assert client.post(f"{path}/replay", {}, format="json").json() == {"object": "webhook.replay", "count": 0}
    assert client.delete(path).status_code == 204
    assert [client.get(path).status_code, client.get(f"{path}/deliveries").status_code] == [404, 404]


def test_deliveries_come_in_pages(cast, target) -> None:
    endpoint, _secret = make(cast, target)
    for _event in range(5):
        tell(cast)
    client, path = client_for(cast.key), f"/v1/webhooks/{ids.encode(ids.WEBHOOK, endpoint.id)}/deliveries"
    first = client.get(path, {"limit": 3}).json()
    second = client.get(path, {"limit": 3, "after": first["last_id"]}).json()
    assert ([len(page["data"]) for page in (first, second)], first["has_more"], second["has_more"]) == ([3, 2], True, False)
    assert client.get(path, {"state": "delivered"}).json()["data"] == []
    assert client.get(path, {"state": "lost"}).status_code == 400


BAD = [
    ({"events": ["*"]}, "url", "missing_field"),
    ({"url": "https://example.com"}, "events", "missing_field"),
    ({"url": "https://example.com", "events": []}, "events", "invalid_value"),
    ({"url": "https://example.com", "events": ["key.made"]}, "events[0]", "unknown_event"),
    ({"url": "https://example.com", "events": ["*"], "secret": "whsec_x"}, "secret", "unknown_field"),
    ({"url": "ftp://example.com", "events": ["*"]}, "url", "invalid_url"),
    ({"url": "https://10.0.0.1/", "events": ["*"]}, "url", "address_not_allowed"),
    ({"url": "https://169.254.169.254/latest/meta-data", "events": ["*"]}, "url", "address_not_allowed"),
    ({"url": "https://no-such-name.invalid/", "events": ["*"]}, "url", "invalid_url"),
    ({"url": "https://1.1.1.1/", "events": ["*"], "description": "x" * 201}, "description", "invalid_value"),
    ({"url": "https://1.1.1.1/", "events": ["*"], "description": "a\0b"}, "description", "invalid_value"),
]


@pytest.mark.parametrize(("body", "param", "code"), BAD)
def test_what_does_not_fit_is_named(cast, body, param, code) -> None:
    answer = client_for(cast.key).post("/v1/webhooks", body, format="json")
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code), error


def test_a_change_to_a_private_address_is_refused(cast, target) -> None:
    endpoint, _secret = make(cast, target)
    answer = client_for(cast.key).patch(
        f"/v1/webhooks/{ids.encode(ids.WEBHOOK, endpoint.id)}", {"url": "https://192.168.1.1/"}, format="json"
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "address_not_allowed")
