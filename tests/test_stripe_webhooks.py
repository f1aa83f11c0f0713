"""What Stripe tells: let in by its signature alone, stored first, followed once, in whatever order it comes."""

import json
import random
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
import time_machine
from django.db.utils import ProgrammingError
from django.utils import timezone

from apps.billing import invoices as billing_invoices
from apps.billing import subscriptions as billing
from apps.payments import fetching, inbox, mirroring, services
from apps.payments.models import StripeEvent
from maas.tenancy import SystemUse, as_system, as_tenant
from tests.conftest import needs
from tests.queueing import replace_nudge
from tests.stripe_people import URLS, banking, follow_all, hook, mirror_of, now_of, on_plan, post, subscribe, tell
from tests.stripe_server import EXAMPLES, StripeServer


@pytest.fixture
def bank(settings_of) -> Iterator[StripeServer]:
    needs(EXAMPLES.exists(), f"no examples of Stripe's objects at {EXAMPLES}; set MAAS_TEST_DATA")
    with banking(settings_of) as server:
        yield server


def stored(event_id: str) -> StripeEvent | None:
    with as_system(SystemUse.COLLECT_PAYMENTS):
        return StripeEvent.objects.filter(pk=event_id).first()


def event(bank, type: str = "customer.updated", about: dict | None = None) -> str:
    """Something happens at Stripe; the event's id."""
    bank._emit(type, about or {"id": "cus_nobody", "object": "customer"})
    return bank.pending[-1]


def body_of(bank, event_id: str) -> str:
    return json.dumps(bank.events[event_id])


# ---------- signatures ----------
def test_a_signed_event_is_stored_before_anything_is_done(bank, monkeypatch) -> None:
    nudges = []
    replace_nudge(monkeypatch, lambda entry_point, **facts: nudges.append((entry_point, facts["event_id"])))
    event_id = event(bank)
    answer = post(body_of(bank, event_id), bank.sign(body_of(bank, event_id)))
    assert (answer.status_code, answer.json()) == (200, {"received": True, "repeated": False})
    row = stored(event_id)
    assert (row.type, row.object_id, row.attempts, row.processed_at) == ("customer.updated", "cus_nobody", 0, None)
    assert nudges == [("workers.tasks.follow_stripe_event", event_id)]


@pytest.mark.parametrize(
    "signature",
    [
        None, "", "t=1,v1=aa", "nonsense", "t=x,v1=y", "v1=aa", "t=99999999999999999999,v1=aa", "t=1,v1=é", "t=1,v0=aa",
        "the right one of another secret", "the right one, ten minutes old", "the right one of another body",
    ],
)  # fmt: skip
def test_what_is_not_signed_by_stripe_now_is_refused(bank, signature) -> None:
    event_id = event(bank)
    body = body_of(bank, event_id)
    if signature == "the right one of another secret":
        signature = _signed_by("whsec_another", body)
    if signature == "the right one, ten minutes old":
        signature = bank.sign(body, at=time.time() - 600)
    if signature == "the right one of another body":
        signature = bank.sign(body.replace("cus_nobody", "cus_other"))
    answer = post(body, signature)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_signature")
    assert answer.json()["error"]["request_id"] == answer["x-request-id"]
    assert stored(event_id) is None


def _signed_by(secret: str, body: str) -> str:
    import stripe

    return stripe.WebhookSignature.generate_signature_header(body, secret)


def test_a_signature_holds_for_five_minutes(bank) -> None:
    event_id = event(bank)
    assert post(body_of(bank, event_id), bank.sign(body_of(bank, event_id), at=time.time() - 290)).status_code == 200


def test_a_replay_is_answered_and_changes_nothing(bank, cast) -> None:
    paid = subscribe(bank, cast.tenant)
    before, looks = mirror_of(cast.tenant), len(bank.requests)
    for event_id in list(bank.events):
        answer = post(body_of(bank, event_id), bank.sign(body_of(bank, event_id)))
        assert answer.json() == {"received": True, "repeated": True}
    follow_all()
    assert mirror_of(cast.tenant) == before
    assert (len(bank.requests), paid["status"]) == (looks, "active")


NO_EVENTS = [
    "", "null", "[]", "{}", "not json", '{"id": 1}', b"\xff\xfe", '{"id": "evt", "type": "a", "data": {"object": 1}}',
    '{"id": "evt\\u0000", "type": "a", "data": {"object": {"id": "x"}}}', '{"id": "%s", "type": "a", "data": {"object": {}}}' % ("e" * 200),
]  # fmt: skip


@pytest.mark.parametrize("body", NO_EVENTS)
def test_what_is_signed_but_no_event_is_refused(bank, body) -> None:
    signed = bank.sign(body if isinstance(body, str) else body.decode("latin-1"))
    answer = post(body, signed)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] in {"invalid_event", "invalid_signature"}


def test_a_body_of_a_megabyte_is_not_read(bank) -> None:
    assert post("x" * (2**20 + 1), "t=1,v1=a").status_code == 413


def test_only_post_works(client_of_nobody) -> None:
    assert client_of_nobody.get("/stripe/webhook").json()["error"]["code"] == "method_not_allowed"


@pytest.fixture
def client_of_nobody():
    from django.test import Client

    return Client(raise_request_exception=False)


@pytest.mark.parametrize("missing", ["STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET"])
def test_without_stripe_nobody_is_let_in(bank, settings_of, missing) -> None:
    event_id = event(bank)
    with settings_of(**{missing: ""}):
        assert post(body_of(bank, event_id), bank.sign(body_of(bank, event_id))).json()["error"]["code"] == "payments_off"
        inbox.follow_due()
    assert stored(event_id) is None


def test_neither_tenants_nor_the_web_can_read_what_stripe_told(bank, cast) -> None:
    with pytest.raises(ProgrammingError, match="permission denied"), as_tenant(cast.tenant.id):
        StripeEvent.objects.count()


# ---------- order ----------
def story(bank, cast) -> None:
    """A subscription lives: bought, raised, ended and taken back, the card refused and mended."""
    on_plan(cast.tenant, "free")
    paid = bank.pay(services.start_checkout(cast.tenant, plan="team", **URLS))
    item = bank.state.item(paid, "licensed")
    scale = next(price["id"] for price in bank.state.all("price") if price["metadata"].get("plan") == "scale")
    bank.state.update_subscription(paid["id"], {"items": [{"id": item["id"], "price": scale}]})
    bank.cancel(paid["id"])
    bank.state.update_subscription(paid["id"], {"cancel_at_period_end": False})
    bank.state.declining.add(paid["customer"])
    invoice = bank.state.make_invoice(paid, [bank.state.line(900, "Extra")], "manual", (paid["start_date"], paid["start_date"]))
    bank.state.finalise(invoice)
    bank.pay_invoice(invoice["id"])


@pytest.mark.parametrize("seed", range(6))
def test_twice_late_and_out_of_order_ends_in_the_same(bank, cast, seed) -> None:
    story(bank, cast)
    rng, events = random.Random(seed), list(bank.events)
    order = events + rng.sample(events, 4)
    if seed:
        rng.shuffle(order)
    for event_id in order:
        bank.deliver_one(event_id, hook)
        if rng.random() < 0.5:
            follow_all()
    follow_all()
    mirror = mirror_of(cast.tenant)
    assert (mirror["plan"], [row["status"] for row in mirror["subscriptions"]]) == ("scale", ["active"])
    account = billing.get_account(cast.tenant)
    assert (account.next_plan, account.overdue_since, account.collected_by) == ("", None, "stripe")
    rows, _more = billing_invoices.list_invoices(cast.tenant)
    assert [row.state for row in rows] == ["paid", "paid"]


def test_a_look_that_is_older_than_another_is_not_written(bank, cast) -> None:
    """One worker looked, was slow, and another looked later and wrote first."""
    paid = subscribe(bank, cast.tenant)
    slow = fetching.look_at("subscription", paid["id"])
    services.change_plan(cast.tenant, "scale")
    with as_tenant(cast.tenant.id):
        mirroring.write(cast.tenant.id, slow)
    assert mirror_of(cast.tenant)["subscriptions"][0]["plan"] == now_of(cast.tenant).plan == "scale"


def test_an_event_is_followed_by_one_worker_at_a_time(bank, cast, monkeypatch) -> None:
    event_id = event(bank, "customer.updated", {"id": "cus_nobody", "object": "customer"})
    bank.deliver_one(event_id, hook)
    seen = []
    monkeypatch.setattr(
        fetching, "look_at", lambda kind, object_id, **_more: seen.append(object_id) or inbox.follow(event_id) or fetching.Look(1, ())
    )
    inbox.follow(event_id)
    assert len(seen) == 1


# ---------- failing ----------
@pytest.mark.parametrize("fault", ["error", "timeout", "lost", "busy"])
def test_an_event_is_followed_again_when_stripe_fails(bank, cast, fault) -> None:
    on_plan(cast.tenant, "free")
    url = services.start_checkout(cast.tenant, plan="team", **URLS)
    bank.pay(url)
    bank.faults.hang = 1.2
    bank.faults.queue = [fault] * 3  # each call of the SDK is three attempts
    tell(bank)
    assert now_of(cast.tenant).plan == "team"


def test_a_failure_waits_longer_each_time_and_ends_after_three_days(bank, cast) -> None:
    paid = subscribe(bank, cast.tenant)
    event_id = event(bank, "customer.subscription.updated", paid)
    bank.deliver_one(event_id, hook)
    bank.faults.rates = {"busy": 1.0}
    inbox.follow(event_id)
    first = stored(event_id)
    assert (first.attempts, first.outcome, first.next_at > timezone.now()) == (1, "", True)
    with time_machine.travel(timezone.now() + timedelta(days=4)):
        inbox.follow(event_id)
        bank.faults.rates = {}
    assert (stored(event_id).outcome, stored(event_id).next_at) == ("failed", None)
    assert inbox.follow_again(event_id)
    assert stored(event_id).outcome == "mirrored"


def test_an_event_about_nobody_we_know_is_kept_with_its_error(bank) -> None:
    stranger = bank.state.create_customer({"name": "made by hand"})
    event_id = event(bank, "customer.updated", stranger)
    tell(bank)
    row = stored(event_id)
    assert (row.outcome, row.next_at, row.attempts) == ("failed", None, 1)
    assert stranger["id"] in row.error


def test_an_event_of_another_kind_is_stored_and_ignored(bank) -> None:
    event_id = event(bank, "plan.created", {"id": "plan_1", "object": "plan"})
    tell(bank)
    assert (stored(event_id).outcome, stored(event_id).attempts) == ("ignored", 0)


def test_an_event_about_something_that_is_gone_is_done(bank) -> None:
    event_id = event(bank, "invoice.updated", {"id": "in_gone", "object": "invoice"})
    tell(bank)
    assert stored(event_id).outcome == "ignored"


def test_a_subscription_to_none_of_our_plans_is_not_mirrored(bank, cast) -> None:
    paid = subscribe(bank, cast.tenant)
    bank.state.item(paid, "licensed")["price"] = {**bank.state.item(paid, "licensed")["price"], "metadata": {}}
    event_id = event(bank, "customer.subscription.updated", paid)
    bank.deliver_one(event_id, hook)
    inbox.follow(event_id)
    assert "prices of a plan" in stored(event_id).error
    assert now_of(cast.tenant).plan == "team"


def test_what_was_done_long_ago_is_forgotten_and_what_failed_is_kept(bank) -> None:
    done = event(bank, "plan.created", {"id": "plan_1", "object": "plan"})
    failed = event(bank, "customer.updated", bank.state.create_customer({"name": "made by hand"}))
    tell(bank)
    with time_machine.travel(timezone.now() + timedelta(days=91)):
        inbox.forget_old()
    assert (stored(done), stored(failed).outcome) == (None, "failed")
