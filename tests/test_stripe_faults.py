"""Everything at once: usage, changes of plan and refused cards while Stripe fails at random; in the end all books are one."""

import random
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.utils import timezone

from apps.billing import subscriptions as billing
from apps.billing.invoices import charge_cents
from apps.payments import checking, metering, sending, services
from apps.usage.periods import month_of
from maas import errors
from tests.conftest import needs
from tests.stripe_people import banking, customer_of, events_of, follow_all, hook, now_of, send_all, subscribe, use
from tests.stripe_server import EXAMPLES, StripeServer

RATES = {"error": 0.1, "broken": 0.1, "lost": 0.15, "busy": 0.1}
ROUNDS = 30


@pytest.fixture
def bank(settings_of, monkeypatch) -> Iterator[StripeServer]:
    needs(EXAMPLES.exists(), f"no examples of Stripe's objects at {EXAMPLES}; set MAAS_TEST_DATA")
    monkeypatch.setattr("stripe._http_client.HTTPClient._sleep_time_seconds", lambda *_arguments: 0.0)
    with banking(settings_of, seed=4) as server:
        yield server


def test_whatever_fails_stripe_knows_each_unit_once(bank, cast) -> None:
    rng, tenants, used = random.Random(2), (cast.tenant, cast.other), {cast.tenant.id: 0, cast.other.id: 0}
    with time_machine.travel(datetime(2027, 2, 27, 12, tzinfo=UTC)) as clock:
        paid = {tenant.id: subscribe(bank, tenant) for tenant in tenants}
        bank.faults.rates, bank.faults.twice, bank.faults.shuffle = RATES, 0.2, True
        for _round in range(ROUNDS):
            tenant = rng.choice(tenants)
            units = rng.randrange(1, 50_000)
            use(tenant, units)
            used[tenant.id] += units
            metering.tell_month(tenant.id, month_of(timezone.now()))
            sending.send_due()
            something(bank, rng, tenant, paid[tenant.id])
            clock.shift(timedelta(minutes=rng.randrange(5)))
        bank.faults.rates, bank.faults.shuffle = {}, False
        month = month_of(timezone.now())
        for tenant in tenants:
            settle(bank, tenant)
            customer = customer_of(tenant)
            assert (bank.units(customer, month), bank.cents(customer, month)) == (used[tenant.id], charge_cents(now_of(tenant), month))
            assert len(events_of(tenant)) == len({event.identifier for event in events_of(tenant)})
            assert now_of(tenant).plan == plan_paid(bank, tenant, paid[tenant.id])
        assert not [one for one in checking.differences(ask_stripe=True) if any(str(tenant.id) in str(one) for tenant in tenants)]
    assert len(bank.state.all("customer")) == 2
    assert sum(count for kind, count in bank.faults.done.items() if kind != "none") > 20


def something(bank, rng, tenant, paid) -> None:
    """What else may happen in a round."""
    dice = rng.random()
    if dice < 0.15:
        with suppress(errors.Unavailable):
            services.change_plan(tenant, rng.choice(["team", "scale", "scale"]))
    elif dice < 0.3:
        bank.state.declining.symmetric_difference_update({paid["customer"]})
        bank.state.finalise(bank.state.make_invoice(paid, [bank.state.line(100, "Extra")], "manual", bank.state.period(paid)))
    elif dice < 0.6:
        bank.deliver(hook)
        follow_all_but_failures()


def follow_all_but_failures() -> None:
    with suppress(AssertionError):  # some fail again and again while everything fails
        follow_all()


def settle(bank, tenant) -> None:
    """Peace: everything waits no longer, and the card works."""
    bank.state.declining.clear()
    metering.tell_month(tenant.id, month_of(timezone.now()))
    send_all()
    bank.deliver(hook)
    follow_all()


def plan_paid(bank, tenant, paid) -> str:
    """What Stripe has is what holds, but for a fall that is still to come."""
    asked = bank.state.item(paid, "licensed")["price"]["metadata"]["plan"]
    return "scale" if billing.get_account(tenant).next_plan == "team" else asked
