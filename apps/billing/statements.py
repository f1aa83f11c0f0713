"""What a month costs, to the cent: the same figures for the preview, for Stripe and for the invoice. Reading alone."""

import calendar
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from apps.accounts.services import Tenant
from apps.billing import history, lots
from apps.billing.models import ClosedMonth, Collector, PlanChange
from apps.billing.money import CENT, prorate, spread, to_cents
from apps.billing.plans import plan_of
from apps.usage import services as usage
from apps.usage.periods import month_after


@dataclass(frozen=True)
class Detail:
    """What one key used of one model; `charged` units are those above its part of the included ones, `amount` micro-dollars."""

    model: str
    key_id: UUID | None
    unit: str
    requests: int
    quantity: int
    units: int
    included: int
    charged: int
    amount: int


@dataclass(frozen=True)
class Statement:
    """The units of a month and what they cost. `included` None: all. Cents are rounded half to even, once."""

    period: date
    plan: str
    units: int
    included: int | None
    unit_price: int
    usage_cents: int
    credit_cents: int  # of it paid by credit
    waived_cents: int  # of it asked of nobody: the plan has no overage, and became smaller
    is_closed: bool
    details: list[Detail]

    @property
    def charged(self) -> int:
        return 0 if self.included is None else max(0, self.units - self.included)

    @property
    def amount(self) -> int:
        """Micro-dollars before rounding; the details add up to it."""
        return self.charged * self.unit_price

    @property
    def due_cents(self) -> int:
        """What is to be paid besides credit."""
        return self.usage_cents - self.credit_cents - self.waived_cents


@dataclass(frozen=True)
class Line:
    """A line of an invoice: `kind` is plan, proration, usage, credit or waived; `amount` micro-dollars before rounding."""

    kind: str
    text: str
    amount: int
    cents: int
    units: int | None = None
    included: int | None = None
    charged: int | None = None
    unit_price: int | None = None


def state_month(tenant: Tenant, period: date) -> Statement:
    """A month as it stands, in the caller's transaction; a closed one as it was closed."""
    rows = usage.month_report(tenant, period)
    units = sum(row["units"] for row in rows)
    closed = ClosedMonth.objects.filter(tenant=tenant, period=period).first()
    if closed:
        same = {name: getattr(closed, name) for name in ("plan", "included", "unit_price", "usage_cents", "credit_cents", "waived_cents")}
        details = detail(rows, closed.included, closed.unit_price)
        return Statement(period=period, units=closed.units, is_closed=True, details=details, **same)
    plan = history.plan_in(tenant.id, period)
    cost = to_cents(lots.charge(plan, units))
    credit = min(cost, lots.available(tenant.id, period, timezone.now()) // CENT)
    waived = 0 if plan.overage else cost - credit
    details = detail(rows, plan.included_units, plan.unit_price)
    return Statement(period, plan.name, units, plan.included_units, plan.unit_price, cost, credit, waived, False, details)


def detail(rows: list[dict[str, Any]], included: int | None, unit_price: int) -> list[Detail]:
    """Cut the included units over the rows in proportion to their units, so that what is charged adds up exactly.

    A row below zero, of which more was taken back than used, leaves its units to the others.
    """
    used = [max(0, row["units"]) for row in rows]
    owed = sum(row["units"] for row in rows if row["units"] < 0)
    total = sum(used)
    free = total if included is None else max(0, min(total, included - owed))
    parts = spread(free, used)
    return [_detail(row, part, unit_price) for row, part in zip(rows, parts, strict=True)]


def _detail(row: dict[str, Any], included: int, unit_price: int) -> Detail:
    included = min(row["units"], included) if row["units"] < 0 else included
    charged = row["units"] - included
    same = {name: row[name] for name in ("model", "key_id", "unit", "requests", "quantity", "units")}
    return Detail(**same, included=included, charged=charged, amount=charged * unit_price)


# ---------- lines ----------
def lines_of(tenant: Tenant, statement: Statement) -> list[Line]:
    """What the invoice of the 1st after a month holds: its units less credit, and the plan of the month that begins.

    Units that Stripe collected are not on a manual invoice that follows on it.
    """
    period, following = statement.period, month_after(statement.period)
    payer = history.collector_of(tenant.id, following)
    lines = unit_lines(statement) if history.collector_of(tenant.id, period) == payer else []
    if payer == Collector.MANUAL:
        changes = [change for change in history.changes_in(tenant.id, period) if change.collected_by == Collector.MANUAL]
        lines = [*_prorations(changes), *lines]
    plan = history.plan_at_start(tenant.id, following)
    if plan.monthly_price:
        text = _("%(plan)s, %(month)s") % {"plan": plan.title, "month": date_format(following, "F Y")}
        lines = [Line("plan", text, plan.monthly_price, to_cents(plan.monthly_price)), *lines]
    return lines


def unit_lines(statement: Statement) -> list[Line]:
    """The units of the month, and what credit pays of them."""
    month = {"month": date_format(statement.period, "F Y")}
    facts = {name: getattr(statement, name) for name in ("units", "included", "charged", "unit_price")}
    found = []
    if statement.usage_cents or statement.charged:
        found.append(Line("usage", _("Units above the included, %(month)s") % month, statement.amount, statement.usage_cents, **facts))
    for kind, text, cents in (
        ("credit", _("Paid by credit"), statement.credit_cents),
        ("waived", _("Not charged: the plan stops at what it includes"), statement.waived_cents),
    ):
        if cents:
            found.append(Line(kind, text, -cents * CENT, -cents))
    return found


def _prorations(changes: list[PlanChange]) -> list[Line]:
    """Changes within a month: the new plan from that day on, less the old one that was paid in advance."""
    found = []
    for change in changes:
        day = change.effective_at.date()
        of_days = calendar.monthrange(day.year, day.month)[1]
        days = of_days - day.day + 1
        for name, sign in ((change.before, -1), (change.after, 1)):
            plan = plan_of(name)
            if plan.monthly_price:
                cents = sign * prorate(plan.monthly_price, days, of_days)
                found.append(Line("proration", _proration_text(sign) % _words(plan.title, days, of_days, day), cents * CENT, cents))
    return found


def _proration_text(sign: int) -> str:
    if sign < 0:
        return _("%(plan)s, unused: %(days)d of %(all)d days from %(day)s")
    return _("%(plan)s: %(days)d of %(all)d days from %(day)s")


def _words(title: str, days: int, of_days: int, day: date) -> dict[str, Any]:
    return {"plan": title, "days": days, "all": of_days, "day": date_format(day, "j F Y")}
