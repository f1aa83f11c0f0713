"""What Stripe is told of usage: all of it, once, in its month, whatever fails or dies on the way."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from io import StringIO

import pytest
import time_machine
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from apps.billing import invoices, reconciling
from apps.billing.plans import plan_of
from apps.payments import checking, metering, sending
from apps.payments.models import Meter, MeterEvent
from apps.usage.periods import month_of
from maas.tenancy import SystemUse, as_system, as_tenant
from tests.conftest import needs
from tests.stripe_people import banking, bill, customer_of, events_of, send_all, subscribe, tell, use
from tests.stripe_server import EXAMPLES, StripeServer
from tests.test_usage import closing

METER_EVENTS = "/v1/billing/meter_events"
EVENING = datetime(2027, 3, 31, 22, tzinfo=UTC)
MARCH, APRIL = date(2027, 3, 1), date(2027, 4, 1)


@pytest.fixture
def bank(settings_of) -> Iterator[StripeServer]:
    needs(EXAMPLES.exists(), f"no examples of Stripe's objects at {EXAMPLES}; set MAAS_TEST_DATA")
    with banking(settings_of) as server:
        server.faults.only = lambda method, path: path == METER_EVENTS
        yield server


@pytest.fixture
def payer(bank, cast):
    """A tenant with a subscription to Team."""
    subscribe(bank, cast.tenant)
    return cast.tenant


def told(bank, tenant, period: date | None = None) -> tuple[int, int]:
    """Units and cents as Stripe counts them."""
    period, customer = period or month_of(timezone.now()), customer_of(tenant)
    return bank.units(customer, period), bank.cents(customer, period)


def above(units: int) -> int:
    """The units of Team and so many more."""
    return (plan_of("team").included_units or 0) + units


def charge(units: int) -> int:
    return units * plan_of("team").unit_price // 10_000


def due_again() -> None:
    with as_system(SystemUse.COLLECT_PAYMENTS):
        MeterEvent.objects.filter(sent_at=None, held_at=None).update(next_at=timezone.now() - timedelta(seconds=1))


# ---------- telling ----------
def test_all_units_are_told_and_the_cents_above_the_plan(bank, payer) -> None:
    use(payer, above(10_000))
    bill(payer)
    assert told(bank, payer) == (above(10_000), charge(10_000))


def test_only_what_changed_is_told(bank, payer) -> None:
    for units in (5, 7, 0):
        use(payer, units)
        bill(payer)
    period = f"{timezone.now():%Y%m}"
    assert [(event.value, event.identifier) for event in events_of(payer)] == [
        (5, f"maas-{payer.id.hex}-{period}-maas_units-1"), (7, f"maas-{payer.id.hex}-{period}-maas_units-2"),
    ]  # fmt: skip


def test_what_is_taken_back_is_told_below_zero(bank, payer) -> None:
    use(payer, 50)
    bill(payer)
    use(payer, -20)
    bill(payer)
    assert [event.value for event in events_of(payer)] == [50, -20]
    assert told(bank, payer) == (30, 0)


def test_twenty_tellings_at_once_tell_it_once(bank, payer) -> None:
    use(payer, 1)
    bill(payer)
    use(payer, 100)
    period = month_of(timezone.now())
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda _: closing(lambda: metering.tell_month(payer.id, period))(), range(20)))
    send_all()
    assert told(bank, payer) == (101, 0)
    assert [event.value for event in events_of(payer)] == [1, 100]


def test_ten_senders_at_once_send_each_event_once(bank, payer) -> None:
    for units in range(1, 13):
        use(payer, units)
        metering.tell_month(payer.id, month_of(timezone.now()))
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda _: closing(sending.send_due)(), range(10)))
    asked = [sent["identifier"] for _method, path, sent, _headers in bank.requests if path == METER_EVENTS]
    assert len(asked) == len(set(asked)) == 12
    assert told(bank, payer) == (78, 0)


def test_who_has_no_subscription_is_not_told_of(bank, cast) -> None:
    use(cast.tenant, 100)
    metering.tell_usage()
    assert events_of(cast.tenant) == []


def test_the_beat_tells_of_every_organisation_though_one_fails(bank, cast, payer, monkeypatch) -> None:
    subscribe(bank, cast.other)
    original = metering.totals
    broken = min(payer.id, cast.other.id)
    monkeypatch.setattr(metering, "totals", lambda tenant_id, period: 1 / 0 if tenant_id == broken else original(tenant_id, period))
    for tenant in (payer, cast.other):
        use(tenant, 3)
    metering.tell_usage()
    assert sorted(len(events_of(tenant)) for tenant in (payer, cast.other)) == [0, 1]


# ---------- failing ----------
@pytest.mark.parametrize("fault", ["error", "timeout", "lost", "broken", "busy"])
def test_a_failure_neither_loses_nor_repeats_anything(bank, payer, fault) -> None:
    bank.faults.hang = 1.3
    bank.faults.queue = [fault, fault]
    use(payer, 40)
    bill(payer)
    assert told(bank, payer) == (40, 0)
    assert [event.attempts for event in events_of(payer)] == [3]
    assert len(bank.state.meter_events) == 1


def test_an_answer_that_was_lost_is_asked_for_under_the_same_identifier(bank, payer) -> None:
    """As when the worker is killed between Stripe's answer and the note of it."""
    use(payer, 40)
    metering.tell_month(payer.id, month_of(timezone.now()))
    claim = sending.claim_event()
    assert sending.send(claim.event).kind == "arrived"
    due_again()
    sending.send_due()
    asked = [sent["identifier"] for _method, path, sent, _headers in bank.requests if path == METER_EVENTS]
    assert len(asked) == 2
    assert len(set(asked)) == 1
    assert events_of(payer)[0].sent_at is not None
    assert told(bank, payer) == (40, 0)


def test_a_worker_that_dies_before_it_sends_leaves_the_event_to_another(bank, payer) -> None:
    use(payer, 40)
    metering.tell_month(payer.id, month_of(timezone.now()))
    claim = sending.claim_event()
    sending.send_due()
    assert told(bank, payer) == (0, 0)
    with time_machine.travel(timezone.now() + timedelta(minutes=2)):
        sending.send_due()
    assert (told(bank, payer), claim.event.attempts) == ((40, 0), 1)


def test_waits_grow_and_end_at_an_hour() -> None:
    assert [sending.wait_after(attempts).total_seconds() for attempts in (1, 2, 3, 10, 99)] == [5, 10, 20, 2560, 3600]


def test_an_uncertain_event_is_held_before_stripe_forgets_its_identifier(bank, payer) -> None:
    use(payer, 40)
    bank.faults.queue = ["lost"]
    metering.tell_month(payer.id, month_of(timezone.now()))
    sending.send_due()
    with time_machine.travel(timezone.now() + timedelta(hours=24, minutes=5)):
        sending.send_due()
        found = [str(difference) for difference in checking.differences()]
        with pytest.raises(CommandError, match="1 differences"):
            call_command("reconcile_payments", stdout=StringIO())
    assert events_of(payer)[0].held_at is not None
    assert len(bank.state.meter_events) == 1
    assert [line for line in found if "held" in line and events_of(payer)[0].identifier in line]


def test_a_day_long_outage_that_stripe_answered_for_holds_nothing(bank, payer) -> None:
    """A refusal is certain: Stripe does not have the event, so it can be sent at any time."""
    use(payer, 40)
    bank.faults.queue = ["busy"]
    metering.tell_month(payer.id, month_of(timezone.now()))
    sending.send_due()
    with time_machine.travel(timezone.now() + timedelta(hours=30)):
        send_all()
    assert len(bank.state.meter_events) == 1
    assert events_of(payer)[0].sent_at is not None


@pytest.mark.parametrize(("option", "counted"), [("--arrived", 40), ("--send", 80)])
def test_the_operator_decides_about_what_is_held(bank, payer, option, counted) -> None:
    use(payer, 40)
    bank.faults.queue = ["lost"]
    metering.tell_month(payer.id, month_of(timezone.now()))
    sending.send_due()
    month = month_of(timezone.now())
    with time_machine.travel(timezone.now() + timedelta(hours=25)):
        sending.send_due()
        call_command("stripe_events", option, events_of(payer)[0].identifier, stdout=StringIO())
        send_all()
    assert told(bank, payer, month)[0] == counted  # sent again after a day, Stripe counts it again
    assert events_of(payer)[0].sent_at is not None
    with pytest.raises(CommandError, match="no such event"):
        call_command("stripe_events", option, events_of(payer)[0].identifier, stdout=StringIO())


# ---------- months ----------
def test_what_is_told_after_midnight_is_dated_to_the_month_that_it_belongs_to(bank, cast) -> None:
    with time_machine.travel(EVENING, tick=False) as clock:
        subscribe(bank, cast.tenant)
        use(cast.tenant, above(10_000))
        clock.move_to(datetime(2027, 4, 1, 0, 5, tzinfo=UTC))
        use(cast.tenant, 3)
        metering.tell_usage()
        send_all()
        assert told(bank, cast.tenant, MARCH) == (above(10_000), charge(10_000))
        assert told(bank, cast.tenant, APRIL) == (3, 0)
    assert {event.timestamp for event in events_of(cast.tenant) if event.period == MARCH} == {datetime(2027, 3, 31, 23, 59, 59, tzinfo=UTC)}


def test_the_invoice_of_the_first_holds_what_was_told(bank, cast) -> None:
    with time_machine.travel(EVENING, tick=False) as clock:
        subscribe(bank, cast.tenant)
        use(cast.tenant, above(10_000))
        clock.move_to(datetime(2027, 4, 1, 0, 5, tzinfo=UTC))
        (invoice,) = bank.turn_month(timezone.now().timestamp(), finalise=False)
        metering.tell_usage()
        send_all()
        clock.move_to(datetime(2027, 4, 1, 1, 5, tzinfo=UTC))
        bank.finalise_drafts()
        tell(bank)
        assert not [one for one in checking.differences(ask_stripe=True) if str(cast.tenant.id) in str(one)]
    assert invoice["lines"]["data"][-1]["amount"] == charge(10_000)
    with as_system(SystemUse.RECONCILE_BILLING):
        assert {(row.units, row.cents) for row in checking.told() if row.tenant_id == cast.tenant.id} == {(above(10_000), charge(10_000))}


def test_what_came_after_the_invoice_is_named(bank, cast) -> None:
    with time_machine.travel(EVENING, tick=False) as clock:
        subscribe(bank, cast.tenant)
        use(cast.tenant, above(10_000))
        clock.move_to(datetime(2027, 4, 1, 1, 5, tzinfo=UTC))
        bank.turn_month(timezone.now().timestamp())
        metering.tell_usage()
        send_all()
        tell(bank)
        found = [str(one) for one in checking.differences() if str(cast.tenant.id) in str(one)]
    assert found == [f"invoice of Stripe: tenant {cast.tenant.id}, 2027-03: {charge(10_000)} cents told, 0 invoiced"]


def test_a_meter_that_counts_otherwise_is_named(bank, payer) -> None:
    use(payer, 40)
    bill(payer)
    bank.state.meter_events.clear()
    assert [one for one in checking.differences(ask_stripe=True) if one.what == "meter at Stripe" and str(payer.id) in one.where]


def test_the_last_month_of_a_subscription_is_told_after_its_end(bank, cast) -> None:
    with time_machine.travel(EVENING, tick=False) as clock:
        paid = subscribe(bank, cast.tenant)
        bank.cancel(paid["id"])
        use(cast.tenant, above(10_000))
        clock.move_to(datetime(2027, 4, 1, 0, 5, tzinfo=UTC))
        (invoice,) = bank.turn_month(timezone.now().timestamp(), finalise=False)
        tell(bank)
        use(cast.tenant, 9)
        metering.tell_usage()
        send_all()
        bank.finalise_drafts()
        assert told(bank, cast.tenant, MARCH) == (above(10_000), charge(10_000))
        assert told(bank, cast.tenant, APRIL) == (0, 0)
    assert [line["amount"] for line in invoice["lines"]["data"]] == [charge(10_000)]


def test_what_was_told_is_kept_in_the_meter_of_the_month(bank, payer) -> None:
    use(payer, above(10_000))
    bill(payer)
    with as_tenant(payer.id):
        meter = Meter.objects.get(tenant=payer)
    assert (meter.units_told, meter.cents_told, meter.sequence) == (above(10_000), charge(10_000), 1)


def test_the_books_are_one_after_the_month_is_closed(bank, cast) -> None:
    with time_machine.travel(EVENING, tick=False) as clock:
        subscribe(bank, cast.tenant)
        use(cast.tenant, above(10_000))
        clock.move_to(datetime(2027, 4, 1, 1, 5, tzinfo=UTC))
        metering.tell_usage()
        send_all()
        assert invoices.close_month(cast.tenant, MARCH)
        assert named(cast.tenant) == []
        with as_system(SystemUse.COLLECT_PAYMENTS):
            MeterEvent.objects.filter(tenant=cast.tenant, meter="maas_units").update(value=1)
        assert named(cast.tenant) == [f"units told to Stripe: tenant {cast.tenant.id}, 2027-03: {above(10_000)} in the ledger, 1 told"]


def named(tenant) -> list[str]:
    return [str(one) for one in reconciling.differences() if str(tenant.id) in str(one)]


def test_a_connection_that_could_not_be_made_is_certain(bank, payer, settings_of) -> None:
    """Hours without a network hold nothing: what never left us can be sent at any time."""
    use(payer, 40)
    metering.tell_month(payer.id, month_of(timezone.now()))
    with settings_of(MAAS_STRIPE_URL="http://127.0.0.1:9"):
        sending.send_due()
    with time_machine.travel(timezone.now() + timedelta(hours=30)):
        send_all()
    assert events_of(payer)[0].sent_at is not None


def test_a_turn_ends_when_stripe_does_not_answer(bank, payer) -> None:
    for units in range(1, 8):
        use(payer, units)
        metering.tell_month(payer.id, month_of(timezone.now()))
    bank.faults.rates = {"lost": 1.0}
    sending.send_due()
    bank.faults.rates = {}
    assert sum(event.attempts for event in events_of(payer)) == sending.PATIENCE
    send_all()
    assert told(bank, payer) == (28, 0)


def test_what_only_waits_is_not_the_operators_to_decide(bank, payer) -> None:
    use(payer, 40)
    metering.tell_month(payer.id, month_of(timezone.now()))
    assert not sending.decide(events_of(payer)[0].identifier, arrived=True)


def test_what_is_not_sent_was_not_told(bank, payer) -> None:
    use(payer, 40)
    metering.tell_month(payer.id, month_of(timezone.now()))
    assert [row for row in checking.told() if row.tenant_id == payer.id] == []
    send_all()
    assert [row.units for row in checking.told() if row.tenant_id == payer.id] == [40]
