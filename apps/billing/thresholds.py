"""At how many units somebody wants to be told: parts of budgets, and of what the plan includes."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from apps.billing.models import AlertSent, Budget, BudgetScope
from apps.billing.plans import Plan

INCLUDED = "included"  # the scope of alerts about the plan's units
INCLUDED_PARTS = (80, 100)  # per cent


@dataclass(frozen=True)
class Mark:
    """A part of an amount, and the units at which it is reached. `amount` is micro-dollars, for `included` units.

    `free` units of the month cost nothing before the others cost `price` micro-dollars each.
    """

    scope: str
    subject: str
    threshold: int
    units: int
    amount: int
    free: int
    price: int

    @property
    def row(self) -> tuple[str, str]:
        """The row of the month that counts the units."""
        return (BudgetScope.TENANT if self.scope == INCLUDED else self.scope), self.subject

    def spent(self, used: int) -> int:
        """How much of the amount these units are."""
        return used if self.scope == INCLUDED else max(0, used - self.free) * self.price


def marks_of(plan: Plan, budgets: Iterable[Budget]) -> list[Mark]:
    """Every part that an alert is sent about."""
    found = []
    if plan.included_units:
        found = [Mark(INCLUDED, "", part, _up(plan.included_units * part, 100), plan.included_units, 0, 0) for part in INCLUDED_PARTS]
    for budget in budgets:
        found += [_mark(plan, budget, part) for part in budget.thresholds if plan.unit_price and budget.amount]
    return found


def units_for(plan: Plan, budget: Budget) -> int | None:
    """How many units of a month the amount pays for; None where units cost nothing."""
    return free_units(plan, budget.scope) + budget.amount // plan.unit_price if plan.unit_price else None


def free_units(plan: Plan, scope: str) -> int:
    """An organisation pays for what exceeds the plan; of a key or a model each unit counts at its list price."""
    return (plan.included_units or 0) if scope == BudgetScope.TENANT else 0


def unsent(tenant_id: UUID, period: date, marks: Iterable[Mark]) -> list[Mark]:
    """The marks of a month that nobody was told of."""
    rows = AlertSent.objects.filter(tenant_id=tenant_id, period=period).values_list("scope", "subject", "threshold")
    sent = set(rows)
    return [mark for mark in marks if (mark.scope, mark.subject, mark.threshold) not in sent]


def next_units(marks: Iterable[Mark]) -> dict[tuple[str, str], int]:
    """For each row of the month the units at which the next of these marks is reached."""
    found: dict[tuple[str, str], int] = {}
    for mark in marks:
        found[mark.row] = min(mark.units, found.get(mark.row, mark.units))
    return found


def _mark(plan: Plan, budget: Budget, part: int) -> Mark:
    free = free_units(plan, budget.scope)
    units = free + _up(budget.amount * part, 100 * plan.unit_price)
    if budget.hard:  # a rest that pays for no unit is never spent
        units = min(units, units_for(plan, budget) or 0)
    return Mark(budget.scope, budget.subject, part, max(1, units), budget.amount, free, plan.unit_price)


def _up(value: int, by: int) -> int:
    return -(-value // by)
