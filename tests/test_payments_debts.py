"""Payments that fail, and subscriptions that end: overdue, paid, free; invoices as Stripe has them."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import time_machine
from django.utils import timezone

from apps.billing import invoices as billing_invoices
from apps.billing import subscriptions as billing
from apps.billing.models import PlanChange
from apps.payments import services
from maas.tenancy import as_tenant
from tests.conftest import needs
from tests.stripe_people import URLS, banking, customer_of, now_of, on_plan, subscribe, tell
from tests.stripe_server import EXAMPLES, StripeServer

MIDDLE, FIRST = datetime(2027, 3, 16, 12, tzinfo=UTC), datetime(2027, 4, 1, 1, 5, tzinfo=UTC)


@pytest.fixture
def bank(settings_of) -> Iterator[StripeServer]:
    needs(EXAMPLES.exists(), f"no examples of Stripe's objects at {EXAMPLES}; set MAAS_TEST_DATA")
    with banking(settings_of) as server:
        yield server


@pytest.fixture
def owing(bank, cast):
    """A tenant whose card was refused for April; the clock stands on the 1st."""
    with time_machine.travel(MIDDLE, tick=False) as clock:
        paid = subscribe(bank, cast.tenant)
        bank.state.declining.add(paid["customer"])
        clock.move_to(FIRST)
        bank.turn_month(timezone.now().timestamp())
        tell(bank)
        yield paid


def account(cast):
    return billing.get_account(cast.tenant)


def states(cast) -> list[str]:
    return sorted(row.state for row in billing_invoices.list_invoices(cast.tenant)[0])


def test_a_refused_card_makes_overdue_since_the_invoice(bank, cast, owing) -> None:
    assert (account(cast).overdue_since, services.status(cast.tenant).status, states(cast)) == (FIRST, "past_due", ["open", "paid"])
    assert now_of(cast.tenant).plan == "team"


def test_another_card_ends_it(bank, cast, owing) -> None:
    bank.pay_invoice(owing["latest_invoice"])
    tell(bank)
    assert (account(cast).overdue_since, services.status(cast.tenant).status, states(cast)) == (None, "active", ["paid", "paid"])


def test_unpaid_is_overdue_too(bank, cast, owing) -> None:
    bank.state._set_status(owing, "unpaid")
    tell(bank)
    assert account(cast).overdue_since == FIRST


def test_who_is_ended_for_a_debt_stays_overdue_until_it_is_paid(bank, cast, owing) -> None:
    bank.cancel(owing["id"], at_period_end=False)
    tell(bank)
    assert (account(cast).overdue_since, account(cast).collected_by, account(cast).next_plan) == (FIRST, "manual", "free")
    bank.pay_invoice(owing["latest_invoice"])
    tell(bank)
    assert account(cast).overdue_since is None


def test_a_debt_to_the_operator_is_not_ended_by_stripe(bank, cast) -> None:
    billing.note_overdue(cast.tenant, since=timezone.now())
    subscribe(bank, cast.tenant)
    assert account(cast).overdue_since is not None


def test_a_first_payment_that_fails_changes_nothing(bank, cast) -> None:
    on_plan(cast.tenant, "free")
    paid = bank.pay(services.start_checkout(cast.tenant, plan="team", **URLS), fail=True)
    tell(bank)
    assert (now_of(cast.tenant).plan, services.status(cast.tenant).has_subscription, account(cast).collected_by) == (
        "free",
        False,
        "manual",
    )
    bank.state._set_status(paid, "incomplete_expired")
    tell(bank)
    assert (now_of(cast.tenant).plan, account(cast).overdue_since) == ("free", None)


def test_an_ended_subscription_of_before_does_not_end_the_one_that_lives(bank, cast) -> None:
    first = subscribe(bank, cast.tenant)
    bank.cancel(first["id"], at_period_end=False)
    tell(bank)
    subscribe(bank, cast.tenant, "scale")
    bank._emit("customer.subscription.deleted", first)
    tell(bank)
    assert (now_of(cast.tenant).plan, account(cast).collected_by) == ("scale", "stripe")


def test_an_end_that_is_told_late_holds_from_the_first_of_the_month(bank, cast) -> None:
    with time_machine.travel(MIDDLE, tick=False) as clock:
        paid = subscribe(bank, cast.tenant)
        bank.cancel(paid["id"])
        clock.move_to(FIRST)
        bank.turn_month(timezone.now().timestamp())
        assert now_of(cast.tenant).plan == "team"
        tell(bank)
        changes = plan_changes(cast)
    assert (now_of(cast.tenant).plan, changes[-1]) == ("free", ("free", FIRST.replace(minute=0, hour=0)))


def plan_changes(cast) -> list[tuple[str, datetime]]:
    with as_tenant(cast.tenant.id):
        return list(PlanChange.objects.filter(tenant=cast.tenant).order_by("effective_at").values_list("after", "effective_at"))


def test_a_paused_subscription_collects_nothing_until_it_is_resumed(bank, cast) -> None:
    paid = subscribe(bank, cast.tenant)
    bank.state._set_status(paid, "paused")
    tell(bank)
    assert (account(cast).collected_by, account(cast).next_plan) == ("manual", "free")
    bank.state._set_status(paid, "active")
    tell(bank)
    assert (account(cast).collected_by, account(cast).next_plan) == ("stripe", "")


def test_a_deleted_customer_is_forgotten_and_the_next_checkout_makes_another(bank, cast) -> None:
    subscribe(bank, cast.tenant)
    before = customer_of(cast.tenant)
    bank.state.delete_customer(before)
    tell(bank)
    assert (customer_of(cast.tenant), services.status(cast.tenant).has_subscription) == ("", False)
    subscribe(bank, cast.tenant, "scale")
    assert customer_of(cast.tenant) not in ("", before)
    assert now_of(cast.tenant).plan == "scale"


def test_an_invoice_is_copied_line_by_line(bank, cast) -> None:
    with time_machine.travel(MIDDLE, tick=False) as clock:
        subscribe(bank, cast.tenant, "team")
        services.change_plan(cast.tenant, "scale")
        clock.move_to(FIRST)
        (made,) = bank.turn_month(timezone.now().timestamp())
        tell(bank)
        newest = billing_invoices.list_invoices(cast.tenant)[0][0]
    invoice, lines = billing_invoices.get_invoice(cast.tenant, newest.id)
    assert [(line.kind, line.amount_cents) for line in lines] == [
        ("proration", made["lines"]["data"][0]["amount"]), ("plan", made["lines"]["data"][1]["amount"]), ("usage", 0),
    ]  # fmt: skip
    assert (invoice.stripe_id, invoice.total_cents, invoice.period.isoformat()) == (made["id"], made["total"], "2027-03-01")
    assert (invoice.number, invoice.page_url, invoice.paid_at) == (made["number"], made["hosted_invoice_url"], FIRST)


def test_a_long_invoice_is_copied_to_its_last_line(bank, cast) -> None:
    paid = subscribe(bank, cast.tenant)
    lines = [bank.state.line(number, f"Line {number}") for number in range(1, 26)]
    made = bank.state.make_invoice(paid, lines, "manual", (paid["start_date"], paid["start_date"]))
    tell(bank)
    copies = [row for row in billing_invoices.list_invoices(cast.tenant)[0] if row.stripe_id == made["id"]]
    assert len(billing_invoices.get_invoice(cast.tenant, copies[0].id)[1]) == 25
    assert copies[0].state == "draft"
