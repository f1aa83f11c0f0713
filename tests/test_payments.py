"""Subscriptions: set up, checked out, changed, ended; asked of Stripe so that nothing is made twice."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from io import StringIO

import pytest
import time_machine
from django.core.management import call_command
from django.core.management.base import CommandError

from apps.accounts.roles import user_actor
from apps.accounts.services import get_membership
from apps.billing import invoices as billing_invoices
from apps.billing import subscriptions as billing
from apps.payments import calls, catalogue, services
from maas import errors
from maas.actors import acting
from tests.conftest import needs
from tests.stripe_people import URLS, banking, customer_of, mirror_of, now_of, on_plan, subscribe, tell, use
from tests.stripe_server import EXAMPLES, StripeServer

MIDDLE = datetime(2027, 3, 16, 12, tzinfo=UTC)  # the rest of the month is a half of it


@pytest.fixture
def bank(settings_of) -> Iterator[StripeServer]:
    needs(EXAMPLES.exists(), f"no examples of Stripe's objects at {EXAMPLES}; set MAAS_TEST_DATA")
    with banking(settings_of) as server:
        yield server


def by(cast, user) -> object:
    return acting(user_actor(user, get_membership(user, cast.tenant.id)))


# ---------- without Stripe ----------
@pytest.mark.parametrize("ask", [
    lambda tenant: services.start_checkout(tenant, plan="team", **URLS),
    lambda tenant: services.open_portal(tenant, return_url="https://maas.invalid/"),
    lambda tenant: services.change_plan(tenant, "team"),
])  # fmt: skip
def test_without_stripe_every_service_says_so(cast, ask) -> None:
    assert services.status(cast.tenant) == services.PaymentStatus(is_on=False, has_subscription=False)
    with pytest.raises(errors.BadRequest, match="by hand") as refused:
        ask(cast.tenant)
    assert refused.value.code == "payments_off"


def test_without_stripe_the_command_says_what_to_set() -> None:
    with pytest.raises(CommandError, match="STRIPE_SECRET_KEY"):
        call_command("stripe_setup")


# ---------- setting up ----------
def test_setting_up_twice_makes_nothing_twice(bank) -> None:
    before, out = sorted(bank.state.objects), StringIO()
    call_command("stripe_setup", stdout=out)
    assert sorted(bank.state.objects) == before
    assert "made" not in out.getvalue()
    keys = {price["lookup_key"] for price in bank.state.all("price")}
    assert keys == {"maas_charges", *(catalogue.lookup_key(plan) for plan in catalogue.paid_plans())}


def test_setting_up_can_be_cut_off_and_run_again(bank) -> None:
    bank.state.objects.clear()
    bank.faults.queue = ["", "error"]
    with pytest.raises(CommandError, match="Run it again"):
        call_command("stripe_setup", stdout=StringIO())
    bank.answers.clear()  # a day later
    call_command("stripe_setup", stdout=StringIO())
    assert {meter["event_name"] for meter in bank.state.all("billing.meter")} == {"maas_units", "maas_charges"}


# ---------- checkout ----------
def test_a_checkout_puts_the_organisation_on_its_plan_once_it_is_paid(bank, cast) -> None:
    on_plan(cast.tenant, "free")
    url = services.start_checkout(cast.tenant, plan="team", **URLS)
    tell(bank)
    assert now_of(cast.tenant).plan == "free"
    bank.pay(url)
    tell(bank)
    status = services.status(now_of(cast.tenant))
    assert (now_of(cast.tenant).plan, status.status, status.plan, status.has_subscription) == ("team", "active", "team", True)
    assert (status.card.brand, status.card.last4) == ("visa", "4242")
    assert billing.get_account(cast.tenant).collected_by == "stripe"


def test_a_plan_begins_with_the_rest_of_the_month(bank, cast) -> None:
    with time_machine.travel(MIDDLE, tick=False):
        paid = subscribe(bank, cast.tenant)
        rows, _more = billing_invoices.list_invoices(cast.tenant)
    assert paid["billing_cycle_anchor"] == int(datetime(2027, 4, 1, tzinfo=UTC).timestamp())
    price = catalogue.cents(next(plan for plan in catalogue.paid_plans() if plan.name == "team"))
    assert [(row.state, row.total_cents) for row in rows] == [("paid", round(price / 2))]


def test_two_clicks_open_one_checkout(bank, cast) -> None:
    with time_machine.travel(MIDDLE, tick=False):
        assert len({services.start_checkout(cast.tenant, plan="team", **URLS) for _click in range(2)}) == 1
    assert len(bank.state.all("customer")) == len(bank.state.all("checkout.session")) == 1


def test_a_customer_whose_answer_was_lost_is_not_made_twice(bank, cast) -> None:
    bank.faults.only = lambda method, path: path == "/v1/customers"
    bank.faults.queue = ["lost", "lost", "lost"]
    with pytest.raises(errors.Unavailable):
        services.start_checkout(cast.tenant, plan="team", **URLS)
    services.start_checkout(cast.tenant, plan="team", **URLS)
    assert [found["id"] for found in bank.state.all("customer")] == [customer_of(cast.tenant)]


def test_a_failure_that_stripe_repeats_for_a_day_does_not_last(bank, cast) -> None:
    bank.faults.only = lambda method, path: path == "/v1/checkout/sessions"
    bank.faults.queue = ["error"]
    with pytest.raises(errors.Unavailable):
        services.start_checkout(cast.tenant, plan="team", **URLS)
    assert services.start_checkout(cast.tenant, plan="team", **URLS).startswith("https://checkout.stripe.com/")


def test_a_second_subscription_is_refused(bank, cast) -> None:
    subscribe(bank, cast.tenant)
    with pytest.raises(errors.BadRequest) as refused:
        services.start_checkout(cast.tenant, plan="scale", **URLS)
    assert refused.value.code == "has_subscription"


@pytest.mark.parametrize("plan", ["free", "unlimited", "gold"])
def test_what_is_not_sold_cannot_be_bought(bank, cast, plan) -> None:
    with pytest.raises(errors.BadRequest, match="team"):
        services.start_checkout(cast.tenant, plan=plan, **URLS)


def test_no_checkout_begins_that_could_outlast_the_month(bank, cast) -> None:
    with time_machine.travel(datetime(2027, 3, 31, 23, 40, tzinfo=UTC), tick=False), pytest.raises(errors.Unavailable) as refused:
        services.start_checkout(cast.tenant, plan="team", **URLS)
    assert refused.value.retry_after == 20 * 60 + 1


def test_no_checkout_begins_before_the_month_before_is_closed(bank, cast) -> None:
    """What was used before Stripe collects goes on an invoice of the operator."""
    with time_machine.travel(datetime(2027, 3, 31, 12, tzinfo=UTC), tick=False) as clock:
        use(cast.tenant, 5)
        clock.move_to(datetime(2027, 4, 1, 0, 30, tzinfo=UTC))
        with pytest.raises(errors.Unavailable) as refused:
            services.start_checkout(cast.tenant, plan="team", **URLS)
        assert refused.value.code == "month_ends"
        clock.move_to(datetime(2027, 4, 1, 1, 5, tzinfo=UTC))
        billing_invoices.close_month(cast.tenant, date(2027, 3, 1))
        assert services.start_checkout(cast.tenant, plan="team", **URLS)


def test_before_setting_up_a_plan_cannot_be_bought(bank, cast) -> None:
    bank.state.objects.clear()
    with pytest.raises(errors.Unavailable, match="stripe_setup"):
        services.start_checkout(cast.tenant, plan="team", **URLS)


def test_money_is_for_owners_and_admins(bank, cast) -> None:
    with by(cast, cast.viewer):
        for ask in (
            lambda: services.start_checkout(cast.tenant, plan="team", **URLS),
            lambda: services.open_portal(cast.tenant, return_url="https://maas.invalid/"),
            lambda: services.change_plan(cast.tenant, "team"),
        ):
            with pytest.raises(errors.Forbidden):
                ask()


def test_the_portal_opens_with_our_configuration(bank, cast) -> None:
    subscribe(bank, cast.tenant)
    assert services.open_portal(cast.tenant, return_url="https://maas.invalid/").startswith("https://billing.stripe.com/")
    asked = [sent for method, path, sent, _headers in bank.requests if path == "/v1/billing_portal/sessions"]
    assert asked == [{"customer": customer_of(cast.tenant), "return_url": "https://maas.invalid/",
                      "configuration": bank.state.all("billing_portal.configuration")[0]["id"]}]  # fmt: skip


def test_without_a_customer_there_is_no_portal(bank, cast) -> None:
    with pytest.raises(errors.BadRequest) as refused:
        services.open_portal(cast.tenant, return_url="https://maas.invalid/")
    assert refused.value.code == "no_customer"


# ---------- changing ----------
def prices() -> tuple[int, int]:
    plans = {plan.name: catalogue.cents(plan) for plan in catalogue.paid_plans()}
    return plans["team"], plans["scale"]


def test_a_rise_holds_at_once_and_the_rest_of_the_month_is_prorated(bank, cast) -> None:
    team, scale = prices()
    with time_machine.travel(MIDDLE, tick=False) as clock:
        subscribe(bank, cast.tenant)
        with by(cast, cast.owner):
            services.change_plan(cast.tenant, "scale")
        assert now_of(cast.tenant).plan == "scale"
        clock.move_to(datetime(2027, 4, 1, 1, tzinfo=UTC))
        invoice = bank.turn_month(clock_now())[0]
    amounts = [line["amount"] for line in invoice["lines"]["data"]]
    assert amounts == [round((scale - team) / 2), scale, 0]


def test_a_fall_holds_on_the_first_and_nothing_is_paid_back(bank, cast) -> None:
    team, _scale = prices()
    with time_machine.travel(MIDDLE, tick=False) as clock:
        subscribe(bank, cast.tenant, "scale")
        services.change_plan(cast.tenant, "team")
        assert (now_of(cast.tenant).plan, billing.get_account(cast.tenant).next_plan) == ("scale", "team")
        clock.move_to(datetime(2027, 4, 1, 1, tzinfo=UTC))
        invoice = bank.turn_month(clock_now())[0]
        tell(bank)
    assert [line["amount"] for line in invoice["lines"]["data"]] == [team, 0]
    assert now_of(cast.tenant).plan == "team"


def test_a_fall_that_is_taken_back_costs_nothing(bank, cast) -> None:
    _team, scale = prices()
    with time_machine.travel(MIDDLE, tick=False) as clock:
        subscribe(bank, cast.tenant, "scale")
        services.change_plan(cast.tenant, "team")
        services.change_plan(cast.tenant, "scale")
        assert billing.get_account(cast.tenant).next_plan == ""
        clock.move_to(datetime(2027, 4, 1, 1, tzinfo=UTC))
        invoice = bank.turn_month(clock_now())[0]
    assert [line["amount"] for line in invoice["lines"]["data"]] == [scale, 0]


def test_leaving_for_free_lasts_until_the_end_of_the_month_and_can_be_taken_back(bank, cast) -> None:
    with time_machine.travel(MIDDLE, tick=False) as clock:
        subscribe(bank, cast.tenant)
        assert services.change_plan(cast.tenant, "free").cancel_at_period_end
        assert (now_of(cast.tenant).plan, billing.get_account(cast.tenant).next_plan) == ("team", "free")
        assert not services.change_plan(cast.tenant, "team").cancel_at_period_end
        assert billing.get_account(cast.tenant).next_plan == ""
        services.change_plan(cast.tenant, "free")
        clock.move_to(datetime(2027, 4, 1, 1, tzinfo=UTC))
        bank.turn_month(clock_now())
        tell(bank)
    assert now_of(cast.tenant).plan == "free"
    assert services.status(cast.tenant) == services.PaymentStatus(True, False, card=services.Card("visa", "4242", 8, 2040))
    assert billing.get_account(cast.tenant).collected_by == "manual"


def test_a_change_whose_answer_was_lost_is_mirrored_by_the_webhook(bank, cast) -> None:
    subscribe(bank, cast.tenant)
    bank.faults.only = lambda method, path: method == "POST" and path.startswith("/v1/subscriptions/")
    bank.faults.queue = ["lost"] * (calls.RETRIES + 1)
    with pytest.raises(errors.Unavailable):
        services.change_plan(cast.tenant, "scale")
    tell(bank)
    assert now_of(cast.tenant).plan == "scale"


def test_without_a_subscription_there_is_no_plan_to_change(bank, cast) -> None:
    with pytest.raises(errors.BadRequest) as refused:
        services.change_plan(cast.tenant, "team")
    assert refused.value.code == "no_subscription"


def test_the_other_organisation_sees_nothing_of_it(bank, cast) -> None:
    subscribe(bank, cast.tenant)
    assert not services.status(cast.other).has_subscription
    assert mirror_of(cast.tenant)["subscriptions"]


def clock_now() -> float:
    from django.utils import timezone

    return timezone.now().timestamp()


def test_every_message_is_for_a_task_that_exists() -> None:
    import workers.tasks  # noqa: F401  # they register themselves
    from maas.celery import app

    nudged = {"workers.tasks.follow_stripe_event", "workers.tasks.send_meter_events"}
    assert {row["task"] for row in app.conf.beat_schedule.values()} | nudged <= set(app.tasks)
