"""Limits as meters: what was used of what a plan, a budget or credit allows."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.formats import date_format
from django.utils.translation import gettext as _

from apps.accounts import keys
from apps.accounts.services import Tenant
from apps.billing import budgets, credits, rates
from apps.billing.budgets import Budget, BudgetScope
from apps.billing.invoices import Statement
from apps.billing.months import end_of
from apps.billing.plans import Plan, plan_of
from apps.dashboard import money, texts
from apps.files import room
from maas import ids

LOW, HIGH = 80, 95  # per cent from which a meter is amber, red


@dataclass(frozen=True)
class Quota:
    """One meter. `most` 0: there is no limit, or none to draw. `warns`: it turns amber, then red."""

    title: str
    have: str
    of: str
    value: int
    most: int
    note: str = ""
    warns: bool = True

    @property
    def low(self) -> int:
        return self.most * LOW // 100

    @property
    def high(self) -> int:
        return self.most * HIGH // 100

    @property
    def part(self) -> int:
        """Per cent."""
        return 100 * self.value // self.most if self.most else 0


def quotas_of(tenant: Tenant, statement: Statement) -> list[Quota]:
    """The limits of an organisation in the running month."""
    plan = plan_of(tenant.plan)
    return [
        units_quota(statement),
        *_budget(tenant, statement),
        *_credit(tenant, statement),
        *_rate(tenant),
        _storage(tenant, plan),
    ]


def units_quota(statement: Statement) -> Quota:
    """Units of those that the plan includes."""
    title = _("Units included")
    if statement.included is None:
        return Quota(title, f"{statement.units:,}", _("used, no limit"), 0, 0)
    used, plan = min(statement.units, statement.included), plan_of(statement.plan)
    of = _("of %(n)s") % {"n": f"{statement.included:,}"}
    price = money.unit_price(statement.unit_price)
    if plan.overage:
        more = {"n": f"{statement.charged:,}", "price": price}
        note = _("%(n)s more at %(price)s") % more if statement.charged else _("then %(price)s") % more
    else:
        note = _("then calls stop until %(day)s, or credit pays") % {"day": date_format(end_of(statement.period), "j F")}
    return Quota(title, f"{used:,}", of, used, statement.included, note, warns=not plan.overage)


def _budget(tenant: Tenant, statement: Statement) -> Iterator[Quota]:
    own = own_budget(tenant)
    if own is not None and statement.unit_price:
        yield money_quota(_("Budget"), statement.amount, own)


def own_budget(tenant: Tenant) -> Budget | None:
    """What the whole organisation may cost a month."""
    return find_budget(tenant, BudgetScope.TENANT, "")


def find_budget(tenant: Tenant, scope: str, subject: str) -> Budget | None:
    """The budget of the organisation, a key (`key_...`) or a model, if it has one."""
    rows = budgets.list_budgets(tenant)
    return next((row for row in rows if (row.scope, budgets.subject_id(row.scope, row.subject)) == (scope, subject)), None)


def money_quota(title: str, spent: int, budget: Budget) -> Quota:
    """What was spent of a budget, in micro-dollars."""
    amount = money.short(budget.amount)
    note = _("calls stop at %(amount)s") if budget.hard else _("only tells at %(amount)s")
    of = _("of %(amount)s") % {"amount": amount}
    return Quota(title, money.exact(spent), of, min(spent, budget.amount), budget.amount, note % {"amount": amount})


def _credit(tenant: Tenant, statement: Statement) -> Iterator[Quota]:
    balance, left = credits.balance(tenant), credits.left(tenant)
    if balance > 0 or statement.credit_cents:
        used = max(0, balance - left)
        title, of = _("Credit used"), _("of %(amount)s") % {"amount": money.exact(balance)}
        yield Quota(title, money.exact(used), of, used, balance, _("%(left)s left") % {"left": money.exact(left)})


def _rate(tenant: Tenant) -> Iterator[Quota]:
    """Requests a minute, as GET /v1/limits shows them."""
    for standing in rates.look(tenant, None).standings:
        limit = standing.limit
        if (limit.scope, limit.kind) == ("tenant", "requests"):
            used = max(0, limit.most - standing.remaining)
            of = _("of %(n)s requests a minute") % {"n": f"{limit.most:,}"}
            yield Quota(_("Rate now"), f"{used:,}", of, used, limit.most, _("past it calls get 429"))


def _storage(tenant: Tenant, plan: Plan) -> Quota:
    stored = room.stored_bytes(tenant)
    if plan.storage_gigabytes is None:
        return Quota(_("Files"), texts.size(stored), _("stored, no limit"), 0, 0)
    most = plan.storage_gigabytes * room.GIGABYTE
    note = _("uploads are refused") if stored >= most else ""
    return Quota(_("Files"), texts.size(stored), _("of %(n)s GB") % {"n": f"{plan.storage_gigabytes:,}"}, min(stored, most), most, note)


# ---------- spend limits of keys and models ----------
@dataclass(frozen=True)
class SpendLimit:
    """A key's or a model's budget with what it has cost, at the list price from the first unit on.

    `is_live`: it can be used, so that its limit can be changed.
    """

    budget: Budget
    name: str
    subject: str  # as the API spells it
    quota: Quota
    told: dict[int, datetime]
    is_live: bool


def spend_limits(tenant: Tenant, statement: Statement, told: dict[tuple[str, str, int], datetime]) -> list[SpendLimit]:
    """Those of all keys and models; `told` says when an alert of this month was sent."""
    known = {key.id.hex: key for key in keys.list_keys(tenant, with_revoked=True)}
    found = [row for row in budgets.list_budgets(tenant) if row.scope != BudgetScope.TENANT]
    return [_limit(row, known.get(row.subject), statement, told) for row in found]


def _limit(row: Budget, key: Any, statement: Statement, told: dict[Any, datetime]) -> SpendLimit:
    is_key = row.scope == BudgetScope.KEY
    name = (key.name if key else _("a deleted key")) if is_key else row.subject
    spent = units_of(row.scope, row.subject, statement) * statement.unit_price
    mine = {part: moment for (scope, subject, part), moment in sorted(told.items()) if (scope, subject) == (row.scope, row.subject)}
    is_live = not is_key or bool(key and key.status == "active")
    return SpendLimit(row, name, budgets.subject_id(row.scope, row.subject), money_quota(name, spent, row), mine, is_live)


def units_of(scope: str, subject: str, statement: Statement) -> int:
    """The units that a key (its id in hex) or a model used in the month."""
    if scope == BudgetScope.KEY:
        return sum(part.units for part in statement.details if part.key_id and part.key_id.hex == subject)
    return sum(part.units for part in statement.details if part.model == subject)


def key_subject(key: Any) -> str:
    """A key as the budgets' service is told of it."""
    return ids.encode(ids.KEY, key.id)
