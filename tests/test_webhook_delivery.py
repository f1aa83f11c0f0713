"""Webhooks that fail: repeats, pauses, switching off, mails; and workers that share the work or die at it."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.core import mail
from django.utils import timezone

from apps.accounts import members
from apps.webhooks import claiming, deliveries, delivering, services, sweeping
from apps.webhooks.models import Attempt, Delivery, Endpoint, Message
from maas import ids, queue
from maas.events import KeyCreated, publish
from maas.ids import uuid7
from maas.tenancy import as_tenant
from tests.cast import make_user
from tests.hooks import again, current, listening, make, only, tell
from tests.receiver import Receiver


@pytest.fixture(autouse=True)
def target(settings_of) -> Iterator[Receiver]:
    with listening(settings_of) as told:
        yield told


# ---------- failures ----------
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((500, {}, b"broken"), "status 500"),
        ((302, {"Location": "http://127.0.0.1:1/"}, b""), "redirects"),
        ((199, {}, b""), "status 199"),
    ],
)
def test_whatever_is_not_2xx_is_a_failure_that_says_so(cast, target, answer, words) -> None:
    endpoint, _secret = make(cast, target)
    target.answer = answer
    tell(cast)
    delivering.deliver_due()
    delivery, (attempt,) = deliveries.get_delivery(cast.tenant, endpoint.id, only(cast, endpoint).id)
    assert (delivery.state, delivery.attempts, attempt.status, attempt.response_body) == ("pending", 1, answer[0], answer[2].decode())
    assert words in attempt.error
    assert len(target.calls) == 1


def test_attempts_wait_longer_and_longer_and_end_after_about_28_hours(settings_of) -> None:
    waits = [claiming.next_wait(step, 0, 0.5) for step in range(8)]
    assert [wait and wait.total_seconds() for wait in waits] == [5, 300, 1800, 7200, 18000, 36000, 36000, None]
    assert timedelta(hours=26) < sum(filter(None, waits), timedelta()) < timedelta(hours=30)
    assert [claiming.next_wait(1, 0, chance).total_seconds() for chance in (0, 1)] == [270, 330]


def test_a_receiver_that_names_a_time_is_given_it_up_to_the_next_step() -> None:
    assert [claiming.next_wait(0, after, 0.5).total_seconds() for after in (1, 60, 10_000)] == [5, 60, 300]


@pytest.mark.parametrize("form", ["40", "date"])
def test_retry_after_is_read_in_both_forms(cast, target, form) -> None:
    endpoint, _secret = make(cast, target)
    date = (timezone.now() + timedelta(seconds=41)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    target.answer = (503, {"Retry-After": "40" if form == "40" else date}, b"")
    tell(cast)
    delivering.deliver_due()
    wait = (only(cast, endpoint).next_at - timezone.now()).total_seconds()
    assert 34 < wait < 46


def test_after_the_last_attempt_a_delivery_has_failed(cast, target, settings_of) -> None:
    endpoint, _secret = make(cast, target)
    target.answer = (500, {}, b"")
    tell(cast)
    with settings_of(MAAS_WEBHOOK_RETRIES=[0, 0]):
        delivering.deliver_due()
        again(cast, endpoint)
        again(cast, endpoint)
        again(cast, endpoint)
    delivery = only(cast, endpoint)
    assert (delivery.state, delivery.attempts, delivery.next_at) == ("failed", 3, None)
    assert {call.headers["webhook-id"] for call in target.calls} == {ids.encode(ids.EVENT, delivery.message_id)}


def test_an_endpoint_that_failed_is_left_alone_for_a_moment(cast, target) -> None:
    endpoint, _secret = make(cast, target)
    target.answer = (500, {}, b"")
    for _event in range(3):
        tell(cast)
    delivering.deliver_due()
    delivering.deliver_due()
    assert len(target.calls) == 1
    pauses = []
    for _failure in range(7):
        again(cast, endpoint)
        found = current(cast, endpoint)
        pauses.append(round((found.pause_until - timezone.now()).total_seconds()))
    assert pauses == [2, 4, 8, 16, 32, 60, 60]


def test_a_success_ends_the_pause_and_the_count(cast, target) -> None:
    endpoint, _secret = make(cast, target)
    target.answer = (500, {}, b"")
    tell(cast)
    delivering.deliver_due()
    assert current(cast, endpoint).failing_since
    target.answer = (200, {}, b"ok")
    again(cast, endpoint)
    found = current(cast, endpoint)
    assert (found.failing_since, found.failures, found.pause_until, found.last_status) == (None, 0, None, 200)
    assert only(cast, endpoint).state == "delivered"


def test_an_endpoint_that_fails_for_five_days_is_switched_off_and_its_people_are_told(cast, target) -> None:
    admin = make_user("admin")
    members.admit(cast.tenant, user=admin, role="admin")
    endpoint, _secret = make(cast, target)
    target.answer = (500, {}, b"")
    tell(cast)
    delivering.deliver_due()
    for days, enabled in ((4.9, True), (5.1, False)):
        with as_tenant(cast.tenant.id):
            Endpoint.objects.filter(pk=endpoint.pk).update(failing_since=timezone.now() - timedelta(days=days))
        again(cast, endpoint)
        assert current(cast, endpoint).enabled is enabled
    assert (current(cast, endpoint).disabled_reason, only(cast, endpoint).state) == ("failing", "failed")
    sweeping.tell_people()
    sweeping.tell_people()
    (told,) = [message for message in mail.outbox if cast.owner.email in message.to]
    assert set(told.to) == {cast.owner.email, admin.email}
    assert target.url in told.body and ids.encode(ids.WEBHOOK, endpoint.id) in told.body
    assert current(cast, endpoint).told_at


def test_the_mail_is_not_lost_with_a_mail_server_that_is_away(cast, target, settings_of) -> None:
    endpoint, _secret = make(cast, target)
    target.answer = (410, {}, b"")
    tell(cast)
    delivering.deliver_due()
    with settings_of(EMAIL_BACKEND="django.core.mail.backends.smtp.EmailBackend", EMAIL_HOST="127.0.0.1", EMAIL_PORT=1):
        sweeping.tell_people()
    assert current(cast, endpoint).told_at is None
    with as_tenant(cast.tenant.id):
        Endpoint.objects.filter(pk=endpoint.pk).update(lease_until=None)
    sweeping.tell_people()
    assert current(cast, endpoint).told_at
    assert [message.to for message in mail.outbox] == [[cast.owner.email]]


def test_410_switches_an_endpoint_off_at_once(cast, target) -> None:
    endpoint, _secret = make(cast, target)
    target.answer = (410, {}, b"")
    tell(cast)
    tell(cast)
    delivering.deliver_due()
    found = current(cast, endpoint)
    assert (found.enabled, found.disabled_reason, len(target.calls)) == (False, "gone", 1)
    tell(cast)
    again(cast, endpoint)
    assert len(target.calls) == 1


def test_switching_on_again_forgets_the_failures(cast, target) -> None:
    endpoint, _secret = make(cast, target)
    target.answer = (410, {}, b"")
    tell(cast)
    delivering.deliver_due()
    services.change_endpoint(cast.tenant, endpoint.id, enabled=True)
    target.answer = (200, {}, b"")
    assert deliveries.replay_failed(cast.tenant, endpoint.id) == 1
    delivering.deliver_due()
    found = current(cast, endpoint)
    assert (found.enabled, found.disabled_reason, found.failing_since, only(cast, endpoint).state) == (True, "", None, "delivered")


# ---------- workers ----------
def test_a_worker_that_lost_the_endpoint_notes_nothing(cast, target) -> None:
    endpoint, _secret = make(cast, target)
    tell(cast)
    lost = claiming.claim_endpoint()
    _endpoint, delivery = claiming.next_delivery(lost)
    with as_tenant(cast.tenant.id):
        Endpoint.objects.filter(pk=endpoint.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    assert claiming.claim_endpoint().fence == lost.fence + 1
    result = delivering.send(_endpoint, delivery)
    assert not claiming.settle(lost, delivery, result)
    assert claiming.next_delivery(lost) is None
    assert only(cast, endpoint).attempts == 0


def test_one_worker_at_a_time_serves_an_endpoint(cast, target) -> None:
    make(cast, target)
    tell(cast)
    tell(cast)
    assert claiming.claim_endpoint()
    assert claiming.claim_endpoint() is None


def test_tenants_take_turns(cast, target) -> None:
    for _endpoint in range(3):
        make(cast, target)
    services.create_endpoint(cast.other, url=target.url, events=["*"])
    tell(cast)
    with as_tenant(cast.other.id):
        publish(KeyCreated(tenant_id=cast.other.id, key_id=uuid7()))
    served = [claiming.claim_endpoint().tenant_id for _turn in range(4)]
    assert cast.other.id in served[:2]


def test_a_tenant_cannot_hold_all_workers(cast, target) -> None:
    for _endpoint in range(claiming.TENANT_LEASES + 2):
        make(cast, target)
    tell(cast)
    claims = [claiming.claim_endpoint() for _turn in range(claiming.TENANT_LEASES + 1)]
    assert claims[-1] is None and all(claims[:-1])


def test_the_sweep_nudges_what_is_due_and_nobody_serves(cast, target) -> None:
    make(cast, target)
    assert claiming.count_due(8) == 0
    tell(cast)
    assert claiming.count_due(8) == 1
    queue.connect().delete("webhooks")
    sweeping.nudge_workers()
    sweeping.nudge_workers()  # one waits already
    assert queue.depth("webhooks") == 1
    claiming.claim_endpoint()
    assert claiming.count_due(8) == 0
    queue.connect().delete("webhooks")


def test_a_dead_workers_endpoint_is_free_again_after_its_lease(cast, target) -> None:
    endpoint, _secret = make(cast, target)
    tell(cast)
    claiming.claim_endpoint()
    with as_tenant(cast.tenant.id):
        Endpoint.objects.filter(pk=endpoint.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    assert claiming.count_due(8) == 1
    delivering.deliver_due()
    assert only(cast, endpoint).state == "delivered"


def test_a_message_sent_anew_while_it_fails_stays_due(cast, target) -> None:
    endpoint, _secret = make(cast, target)
    tell(cast)
    claim = claiming.claim_endpoint()
    _endpoint, delivery = claiming.next_delivery(claim)
    deliveries.replay_delivery(cast.tenant, endpoint.id, delivery.id)
    failed = claiming.Result({}, 500, {}, "", "no", 1)
    assert claiming.settle(claim, delivery, failed)
    assert only(cast, endpoint).next_at < timezone.now()


def test_the_sweep_forgets_deliveries_after_30_days_and_deleted_endpoints(cast, target) -> None:
    endpoint, _secret = make(cast, target)
    tell(cast)
    delivering.deliver_due()
    sweeping.remove_old()
    assert only(cast, endpoint).state == "delivered"
    with as_tenant(cast.tenant.id):
        for model in (Delivery, Message):
            model.objects.update(created_at=timezone.now() - timedelta(days=31))
    sweeping.remove_old()
    services.delete_endpoint(cast.tenant, endpoint.id)
    with as_tenant(cast.tenant.id):
        assert [model.objects.count() for model in (Attempt, Delivery, Message, Endpoint)] == [0, 0, 0, 1]
        Endpoint.objects.update(deleted_at=timezone.now() - timedelta(hours=2))
    sweeping.remove_old()
    with as_tenant(cast.tenant.id):
        assert not Endpoint.objects.exists()
