"""The ends of months: which line belongs where, leap days, time zones, and closing all that is due, once and in order."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import pytest
from django.utils import timezone

from apps.accounts.models import Tenant
from apps.billing import closing, credits, invoices, months, subscriptions
from apps.billing.models import ClosedMonth, CreditEntry, Invoice
from apps.usage import services as usage
from maas import errors
from maas.tenancy import as_tenant
from tests.money import at, begin, cap, moment, on_plan, together, use
from tests.money import closing as done

CENT = 10_000
OCTOBER, NOVEMBER, DECEMBER = date(2026, 10, 1), date(2026, 11, 1), date(2026, 12, 1)


@pytest.fixture
def team(cast) -> Tenant:
    with as_tenant(cast.tenant.id):
        Tenant.objects.filter(pk=cast.tenant.pk).update(created_at=moment(2026, 1, 1))
    return on_plan(cast.tenant, "team")


def units(tenant: Tenant, period: date) -> int:
    return invoices.preview(tenant, period).statement.units


def closed(tenant: Tenant) -> list[date]:
    with as_tenant(tenant.id):
        return list(ClosedMonth.objects.filter(tenant=tenant).order_by("period").values_list("period", flat=True))


def totals(tenant: Tenant) -> dict[date, int]:
    with as_tenant(tenant.id):
        return dict(Invoice.objects.filter(tenant=tenant).values_list("period", "total_cents"))


def due(tenant: Tenant) -> list[date]:
    return [period for found, period in closing.due_months() if found == tenant]


# ---------- which month ----------
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/Los_Angeles"])
def test_the_last_moment_of_a_month_and_the_first_of_the_next_are_told_apart(team, zone, settings_of) -> None:
    """A month is one of UTC, whatever zone somebody looks from."""
    with timezone.override(zone), settings_of(TIME_ZONE=zone):
        with at(2026, 10, 31, 23, 59, 59, 999_999):
            use(team, 250_007)
        with at(2026, 11, 1):
            use(team, 5)
            assert invoices.preview(team).statement.period == NOVEMBER
        assert (units(team, OCTOBER), units(team, NOVEMBER), units(team, DECEMBER)) == (250_007, 5, 0)
        assert (cap(team, OCTOBER).used, cap(team, NOVEMBER).used) == (250_007, 5)
        usage.roll_up()
        assert (units(team, OCTOBER), units(team, NOVEMBER)) == (250_007, 5)
        with at(2026, 11, 1, 1):
            invoices.close_month(team, OCTOBER)
        assert totals(team) == {OCTOBER: 4_900 + 0}  # 7 units above: 0.21 cents


def test_february_has_a_29th_in_a_leap_year(team) -> None:
    february, march = date(2028, 2, 1), date(2028, 3, 1)
    with at(2028, 2, 29, 23, 59, 59, 999_999):
        use(team, 250_100)
        subscriptions.change_plan(team, plan="scale")
        found = invoices.preview(team)
        assert [(line.kind, line.cents) for line in found.lines] == [("plan", 29_900), ("proration", -169), ("proration", 1_031)]
    with at(2028, 3, 1):
        use(team, 3)
    with at(2028, 3, 1, 0, 59, 59):
        assert invoices.close_month(team, february) is False
    with at(2028, 3, 1, 1):
        assert invoices.close_month(team, february) is True
    assert (units(team, february), units(team, march), totals(team)) == (250_100, 3, {february: 30_762})


def test_a_month_waits_an_hour_before_it_is_closed(team) -> None:
    with at(2026, 10, 5):
        use(team, 1)
    for moment_, is_closed in (((2026, 10, 31, 23), False), ((2026, 11, 1, 0, 59, 59, 999_999), False), ((2026, 11, 1, 1), True)):
        with at(*moment_):
            assert invoices.close_month(team, OCTOBER) is is_closed


# ---------- plans in the middle ----------
def test_a_rise_in_the_middle_prices_the_month_by_the_new_plan_alone(team) -> None:
    with at(2026, 10, 10):
        use(team, 300_000)
    with at(2026, 10, 16):
        subscriptions.change_plan(team, plan="scale")
        use(team, 300_000)
    with at(2026, 11, 1, 0, 30):
        subscriptions.change_plan(team, plan="team")  # to come on the 1st of December
    with at(2026, 11, 1, 1):
        invoices.close_month(team, OCTOBER)
    # Scale for November, and of October 16 of 31 days: 154.32 less 25.29 that were paid for Team.
    assert totals(team) == {OCTOBER: 29_900 + 15_432 - 2_529}


def test_a_smaller_plan_prices_from_the_first_and_is_paid_from_the_first(team) -> None:
    with at(2026, 10, 10):
        use(team, 250_100)
        subscriptions.change_plan(team, plan="free")
    with at(2026, 11, 1, 0, 0, 1):
        use(team, 100)
        subscriptions.apply_due_plans()
    with at(2026, 11, 1, 1):
        invoices.close_month(team, OCTOBER)
    assert totals(team) == {OCTOBER: 3}  # 100 units at Team's price, and no plan for November
    with at(2026, 12, 1, 1):
        invoices.close_month(team, NOVEMBER)
    assert totals(team) == {OCTOBER: 3}


def test_a_rise_in_the_first_hour_belongs_to_the_new_month(team) -> None:
    """October is closed at one o'clock, with the plan that October ended with."""
    with at(2026, 10, 10):
        use(team, 250_100)
    with at(2026, 11, 1, 0, 30):
        subscriptions.change_plan(team, plan="scale")
    with at(2026, 11, 1, 1):
        invoices.close_month(team, OCTOBER)
    assert totals(team) == {OCTOBER: 4_900 + 3}
    with at(2026, 12, 1, 1):
        invoices.close_month(team, NOVEMBER)
    assert totals(team)[NOVEMBER] == 29_900 + 29_900 - 4_900  # all of November's days


# ---------- closing what is due ----------
def test_what_is_due_is_what_was_used_and_what_is_paid_for(team, cast) -> None:
    free = on_plan(cast.other, "free")
    with at(2026, 10, 5):
        use(free, 5)
    with at(2026, 11, 1, 0, 59):
        assert (due(team), due(free)) == ([date(2026, 9, 1)], [])
    with at(2026, 11, 1, 1):
        assert (due(team), due(free)) == ([OCTOBER], [OCTOBER])
        closing.close_months()
        assert (due(team), due(free), closed(team), closed(free)) == ([], [], [OCTOBER], [OCTOBER])
        closing.close_months()
    assert (totals(team), totals(free)) == ({OCTOBER: 4_900}, {})


def test_months_that_nobody_closed_in_time_are_made_up_for_in_order(team) -> None:
    with at(2026, 10, 2):
        credits.grant_credit(team, amount=5 * CENT, reason="hello")
        use(team, 250_100)
    with at(2026, 11, 1, 1):
        closing.close_months()
    with at(2026, 12, 2):
        use(team, 250_000 + 200)
    with at(2027, 2, 3):
        assert due(team) == [NOVEMBER, DECEMBER, date(2027, 1, 1)]
        closing.close_months()
    assert totals(team) == {OCTOBER: 4_900, NOVEMBER: 4_900, DECEMBER: 4_900 + 6 - 2, date(2027, 1, 1): 4_900}
    assert credits.balance(team) == 0


def test_one_tenants_trouble_keeps_no_other_back(team, cast, monkeypatch) -> None:
    other, original = on_plan(cast.other, "free"), closing._close
    with at(2026, 10, 5):
        use(team, 5)
        use(other, 5)

    def fragile(tenant, *rest) -> None:
        if tenant == team:
            raise errors.Internal("x")
        original(tenant, *rest)

    with at(2026, 11, 1, 1):
        with monkeypatch.context() as broken:
            broken.setattr(closing, "_close", fragile)
            closing.close_months()
            assert (closed(team), closed(other)) == ([], [OCTOBER])
        closing.close_months()
        assert closed(team) == [OCTOBER]


def test_four_who_close_everything_at_once_make_each_invoice_once(team) -> None:
    with at(2026, 10, 5):
        use(team, 260_000)
    with at(2026, 11, 1, 1):
        together(4, lambda _n: closing.close_months())
    assert totals(team) == {OCTOBER: 5_200}


def test_who_came_after_the_month_owes_nothing_for_it(cast) -> None:
    late = on_plan(cast.tenant, "team")
    with as_tenant(late.id):
        Tenant.objects.filter(pk=late.pk).update(created_at=moment(2026, 11, 1, 0, 10))
    with at(2026, 11, 1, 1):
        assert due(late) == []


def test_work_that_comes_in_after_the_close_is_not_charged_in_the_month(team) -> None:
    from apps.usage import reservations
    from apps.usage.reservations import Work
    from maas import ids

    with at(2026, 10, 31, 23, 59):
        held, _units = reservations.reserve(Work(team.id, begin(team), None, "m"), 10, seconds=7_200)
        source = ids.uuid7().hex
    with at(2026, 11, 1, 1):
        invoices.close_month(team, OCTOBER)
        line = usage.UsageLine(source, "prediction", "m", 1, "token", 10, 10, reservation=held)
        assert usage.settle_calls([(team.id, line)]) == set()
        assert units(team, OCTOBER) == 0


def test_closing_waits_for_credit_that_is_just_being_granted(team) -> None:
    with at(2026, 10, 5):
        use(team, 250_000 + 1_000)  # 30 cents
    with at(2026, 11, 1, 1), ThreadPoolExecutor(1) as pool:
        with as_tenant(team.id):
            months.hold_money(team.id)
            CreditEntry.objects.create(tenant=team, kind="grant", amount=20 * CENT)
            work = pool.submit(done(lambda: invoices.close_month(team, OCTOBER)))
            time.sleep(0.5)
        assert work.result() is True
    assert (totals(team), credits.balance(team)) == ({OCTOBER: 4_900 + 10}, 0)


def test_the_money_of_a_month_is_held_before_it_is_read(team) -> None:
    """Credit granted while a month is closed is drawn by it or by the next one, never by both."""
    with at(2026, 10, 5):
        use(team, 250_000 + 1_000)  # 30 cents
    with at(2026, 11, 1, 1):
        works = [
            lambda: credits.grant_credit(team, amount=30 * CENT, reason="hello"),
            lambda: invoices.close_month(team, OCTOBER),
            lambda: use(team, 250_000 + 1_000),
        ]
        results = together(3, lambda n: works[n]())
    assert not [result for result in results if isinstance(result, Exception)]
    with at(2026, 12, 1, 1):
        invoices.close_month(team, NOVEMBER)
    assert sum(totals(team).values()) == 2 * 4_900 + 30 and credits.balance(team) == 0
