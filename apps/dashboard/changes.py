"""What a change of plan comes to, in figures, and which way it goes: at Stripe, here, or by the operator."""

import calendar
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from apps.accounts.services import Tenant
from apps.billing import subscriptions
from apps.billing.invoices import Statement
from apps.billing.money import prorate
from apps.billing.plans import Plan, every_plan, plan_of
from apps.billing.subscriptions import OFFERED
from apps.dashboard import money
from apps.dashboard.bills import cost_of
from apps.payments.services import PaymentStatus
from apps.usage.periods import month_after

CHECKOUT, STRIPE, HERE, OPERATOR = "checkout", "stripe", "here", "operator"


@dataclass(frozen=True)
class Card:
    """A plan as it is offered. `way` is one of the four above; `pace_cost` micro-dollars of this month's forecast with it."""

    plan: Plan
    facts: list[str]
    is_mine: bool
    is_next: bool
    way: str
    fits: bool
    pace_cost: int


def cards_of(tenant: Tenant, status: PaymentStatus, forecast_units: int) -> list[Card]:
    """The plans on offer, and the one that the organisation is on."""
    following = to_come(tenant, status)
    mine = plan_of(tenant.plan)
    shown = [plan for name, plan in every_plan().items() if name in OFFERED]
    return [
        Card(
            plan, facts_of(plan), plan.name == mine.name, bool(following and following[0] == plan.name),
            way_to(mine, plan, status), fits(plan, forecast_units), plan.monthly_price + cost_of(plan, forecast_units),
        )
        for plan in shown
    ]  # fmt: skip


def way_to(mine: Plan, wanted: Plan, status: PaymentStatus) -> str:
    """Who carries a change out. Without Stripe nobody buys here: the operator does what costs money."""
    if status.has_subscription:
        return STRIPE
    if wanted.name == mine.name or not wanted.monthly_price:
        return HERE
    return CHECKOUT if status.is_on else OPERATOR


def to_come(tenant: Tenant, status: PaymentStatus) -> tuple[str, date] | None:
    """The plan that takes over, and when; None while nothing is to change."""
    account = subscriptions.get_account(tenant)
    if account.next_plan and account.next_from:
        return account.next_plan, account.next_from
    if status.cancel_at_period_end and status.period_end:
        return "free", status.period_end.date()
    return None


def fits(plan: Plan, units: int) -> bool:
    """Whether so many units run without credit."""
    return plan.included_units is None or plan.overage or units <= plan.included_units


def facts_of(plan: Plan) -> list[str]:
    """What a plan holds, a line each."""
    return [
        _units(plan),
        _or_unlimited(plan.requests_per_minute, _("%s requests a minute"), _("any number of requests a minute")),
        _or_unlimited(plan.concurrent_jobs, _("%s jobs at a time"), _("any number of jobs at a time")),
        _or_unlimited(plan.storage_gigabytes, _("%s GB of files"), _("any amount of files")),
        _or_unlimited(plan.members, _("%s people"), _("any number of people")),
        _training(plan),
    ]


def _units(plan: Plan) -> str:
    if plan.included_units is None:
        return _("any number of units")
    words = {"n": f"{plan.included_units:,}", "price": money.unit_price(plan.unit_price)}
    return (_("%(n)s units a month, then %(price)s") if plan.overage else _("%(n)s units a month, then calls stop")) % words


def _or_unlimited(figure: int | None, text: str, without: str) -> str:
    return without if figure is None else text % f"{figure:,}"


def _training(plan: Plan) -> str:
    return _("%(price)s a minute of training") % {"price": money.exact(plan.training_minute_price)}


# ---------- one change ----------
@dataclass(frozen=True)
class Consequence:
    """What is confirmed: `title` asks, `stay` and `go` are the buttons, `lines` say what follows, `notes` what does not fit."""

    plan: Plan
    mine: Plan
    title: str
    stay: str
    go: str
    lines: list[str]
    notes: list[str]
    way: str


def consequence_of(tenant: Tenant, wanted: Plan, status: PaymentStatus, statement: Statement) -> Consequence:
    """The figures of a change, before it is made."""
    mine = plan_of(tenant.plan)
    today, following = timezone.now().date(), month_after(statement.period)
    is_rise, way = wanted.monthly_price > mine.monthly_price, way_to(mine, wanted, status)
    lines = list(_rise(mine, wanted, statement, today, way) if is_rise else _fall(mine, wanted, statement, following))
    if wanted.name == mine.name:
        lines = [_("Nothing changes: %(plan)s goes on next month.") % {"plan": mine.title}]
    notes = subscriptions.consequences(tenant, wanted.name)
    return Consequence(wanted, mine, *_titles(mine, wanted, way), lines, notes, way)


def _titles(mine: Plan, wanted: Plan, way: str) -> tuple[str, str, str]:
    """What is asked, and what the two buttons say."""
    words, now = {"plan": wanted.title}, {"plan": mine.title}
    if wanted.name == mine.name:
        return _("Stay on %(plan)s?") % words, _("Leave it as it is"), _("Stay on %(plan)s") % words
    go = _("Go to Stripe to pay") if way == CHECKOUT else _("Change to %(plan)s") % words
    return _("Change to %(plan)s?") % words, _("Stay on %(plan)s") % now, go


def _rise(mine: Plan, wanted: Plan, statement: Statement, today: date, way: str) -> Iterator[str]:
    """It holds at once, for the units of the month so far too."""
    of_days = calendar.monthrange(today.year, today.month)[1]
    days = of_days - today.day + 1
    new, old = (prorate(plan.monthly_price, days, of_days) for plan in (wanted, mine))
    words: dict[str, Any] = {"new": money.cents(new), "days": days, "price": money.short(wanted.monthly_price)}
    words |= {"old": money.cents(old), "plan": mine.title, "sum": money.cents(new - old)}
    starts = ngettext("Starts now. The day left costs about %(new)s.", "Starts now. The %(days)d days left cost about %(new)s.", days)
    yield starts % words
    if old:
        yield _("Less %(old)s of %(plan)s that is not used, that is %(sum)s.") % words
    yield _("You pay that at Stripe today.") if way == CHECKOUT else _("That goes on the next invoice.")
    yield _("Then it is %(price)s a month, paid in advance on the 1st.") % words
    yield from _units_so_far(mine, wanted, statement)


def _units_so_far(mine: Plan, wanted: Plan, statement: Statement) -> Iterator[str]:
    before, after = (money.exact(cost_of(plan, statement.units)) for plan in (mine, wanted))
    words = {"n": f"{statement.units:,}", "before": before, "after": after, "month": date_format(statement.period, "F")}
    if before != after:
        yield _("The %(n)s units of %(month)s so far cost %(after)s in place of %(before)s.") % words


def _fall(mine: Plan, wanted: Plan, statement: Statement, following: date) -> Iterator[str]:
    """What was paid lasts to the end of the month."""
    words = {"mine": mine.title, "plan": wanted.title, "day": date_format(following, "j F"), "price": money.short(wanted.monthly_price)}
    yield _("%(mine)s is paid until the end of the month. From %(day)s %(plan)s holds, at %(price)s a month.") % words
    if not fits(wanted, statement.units):
        more = {"n": f"{wanted.included_units or 0:,}", "used": f"{statement.units:,}"}
        yield _("After %(n)s units a month calls stop; you have used %(used)s this month.") % more
