"""The stand-in for Stripe refuses what the real one would, or the tests of payments would prove nothing."""

from collections.abc import Iterator

import pytest
import stripe
import time_machine
from django.utils import timezone

from tests.conftest import needs
from tests.stripe_server import EXAMPLES, StripeServer
from tests.stripe_types import checked, decode

METER = {"event_name": "m", "display_name": "M", "default_aggregation": {"formula": "sum"}}


@pytest.fixture
def bank() -> Iterator[StripeServer]:
    needs(EXAMPLES.exists(), f"no examples of Stripe's objects at {EXAMPLES}; set MAAS_TEST_DATA")
    server = StripeServer("whsec_x")
    yield server
    server.stop()


def client(bank, retries: int = 0) -> stripe.StripeClient:
    return stripe.StripeClient(
        "sk_test", base_addresses={"api": bank.url}, max_network_retries=retries, http_client=stripe.RequestsClient(timeout=1)
    )


def test_forms_are_read_as_stripe_reads_them() -> None:
    assert decode("a[b][0][c]=1&a[b][1][c]=2&x=&k[0]=u&é=%C3%A4") == {"a": {"b": [{"c": "1"}, {"c": "2"}]}, "x": "", "k": ["u"], "é": "ä"}


def test_texts_become_what_the_types_want() -> None:
    sent = checked("checkout._session_create_params:SessionCreateParams", decode("expires_at=33&automatic_tax[enabled]=false"))
    assert sent == {"expires_at": 33, "automatic_tax": {"enabled": False}}


@pytest.mark.parametrize(
    ("parameters", "form"),
    [
        ("_customer_create_params:CustomerCreateParams", "emial=a@b.c"),
        ("_customer_create_params:CustomerCreateParams", "idempotency_key=1"),
        ("checkout._session_create_params:SessionCreateParams", "line_items[0][qantity]=1"),
        ("checkout._session_create_params:SessionCreateParams", "expires_at=soon"),
        ("billing._meter_event_create_params:MeterEventCreateParams", "payload[value]=1"),
        ("billing._meter_create_params:MeterCreateParams", "event_name=a&display_name=b&default_aggregation[formule]=sum"),
    ],
)
def test_what_the_types_do_not_know_is_refused(parameters, form) -> None:
    with pytest.raises(ValueError, match=parameters.partition(":")[2]):
        checked(parameters, decode(form))


def test_a_misspelt_field_and_an_unknown_address_are_complaints(bank) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        client(bank).v1.customers.create({"emial": "a@b.c"})
    with pytest.raises(stripe.InvalidRequestError):
        client(bank).v1.coupons.list()
    assert [complaint.split(":")[0] for complaint in bank.complaints] == ["POST /v1/customers", "GET /v1/coupons"]


def test_a_key_gets_its_answer_again_and_takes_no_other_request(bank) -> None:
    create = client(bank).v1.customers.create
    assert create({"name": "a"}, {"idempotency_key": "k"}).id == create({"name": "a"}, {"idempotency_key": "k"}).id
    with pytest.raises(stripe.IdempotencyError):
        create({"name": "b"}, {"idempotency_key": "k"})


@pytest.mark.parametrize(("fault", "made"), [("error", 0), ("broken", 1)])
def test_a_500_is_what_the_key_gets_for_a_day(bank, fault, made) -> None:
    bank.faults.queue = [fault]
    for _attempt in range(3):
        with pytest.raises(stripe.APIError):
            client(bank).v1.customers.create({"name": "a"}, {"idempotency_key": "k"})
    assert len(bank.state.all("customer")) == made


@pytest.mark.parametrize(("fault", "made"), [("lost", 1), ("timeout", 0)])
def test_no_answer_says_nothing_about_what_was_done(bank, fault, made) -> None:
    bank.faults.hang, bank.faults.queue = 1.2, [fault]
    with pytest.raises(stripe.APIConnectionError):
        client(bank).v1.customers.create({"name": "a"})
    assert len(bank.state.all("customer")) == made


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"event_name": "other"}, "No active meter"), ({"payload": {"stripe_customer_id": "cus_none", "value": "1"}}, "No such customer"),
        ({"value": "1.5"}, "whole number"), ({"value": ""}, "whole number"), ({"ago": 36 * 86_400}, "35 days"), ({"ago": -400}, "35 days"),
    ],
)  # fmt: skip
def test_a_meter_event_has_to_make_sense(bank, change, error) -> None:
    service = client(bank).v1.billing
    service.meters.create(METER)
    payload = {"stripe_customer_id": client(bank).v1.customers.create({}).id, "value": change.pop("value", "1")}
    moment = int(timezone.now().timestamp()) - change.pop("ago", 0)
    with pytest.raises(stripe.InvalidRequestError, match=error):
        service.meter_events.create({"event_name": "m", "payload": payload, "timestamp": moment, **change})


def test_an_identifier_is_remembered_for_a_day_and_no_longer(bank) -> None:
    service = client(bank).v1.billing
    service.meters.create(METER)
    event = {
        "event_name": "m",
        "identifier": "one",
        "payload": {"stripe_customer_id": client(bank).v1.customers.create({}).id, "value": "5"},
    }
    service.meter_events.create(event)
    with pytest.raises(stripe.InvalidRequestError, match="already exists with identifier one"):
        service.meter_events.create(event)
    with time_machine.travel(timezone.now() + timezone.timedelta(hours=25)):
        service.meter_events.create(event)
    assert len(bank.state.meter_events) == 2


def test_chance_is_seeded(bank) -> None:
    def rolled(seed: int) -> list[str]:
        server = StripeServer("x", seed=seed)
        server.faults.rates = {"error": 0.3, "lost": 0.2}
        server.stop()
        return [server.faults.next("GET", "/") for _request in range(50)]

    assert rolled(1) == rolled(1) != rolled(2)
    assert {"error", "lost", ""} == set(rolled(1))


def test_events_are_delivered_twice_and_out_of_order_on_demand(bank) -> None:
    for number in range(30):
        bank._emit("plan.created", {"id": f"plan_{number}"})
    bank.faults.twice, bank.faults.shuffle = 0.5, True
    came: list[str] = []
    assert bank.deliver(lambda body, signature: came.append(body) or 200) == len(came) > 35
    assert list(dict.fromkeys(came)) != sorted(set(came))
    assert bank.pending == []
