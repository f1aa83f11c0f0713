"""The invoice that is to come, line by line, so far and at the end of the month when it goes on like this."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.utils.translation import gettext as _

from apps.accounts import keys
from apps.accounts.services import Tenant
from apps.billing import credits, invoices, terms
from apps.billing.invoices import Preview, Statement
from apps.billing.money import CENT, to_cents
from apps.billing.months import end_of
from apps.billing.plans import Plan, plan_of
from apps.dashboard import money
from apps.dashboard.pace import Pace


@dataclass(frozen=True)
class Row:
    """One line: what, how much of it at which price, and whole cents."""

    text: str
    sub: str
    so_far: int
    forecast: int


@dataclass(frozen=True)
class Forecast:
    """The end of the month: units, and cents of them before credit, by credit, and asked of nobody."""

    units: int
    usage: int
    credit: int
    waived: int


@dataclass(frozen=True)
class Bill:
    """`rows` add up to `total` and `forecast_total`, all in cents; `details` are what the units' line is made of.

    `forecast_units` end at a limit that stops calls, `pace_units` do not: those are what another plan would have to hold.
    """

    preview: Preview
    rows: list[Row]
    details: list[dict[str, Any]]
    total: int
    forecast_total: int
    forecast_units: int
    pace_units: int
    last_day: Any

    @property
    def statement(self) -> Statement:
        return self.preview.statement

    @property
    def is_empty(self) -> bool:
        """Nothing is to be paid, now or with the first of the month."""
        return not self.preview.lines


def read_bill(tenant: Tenant, pace: Pace) -> Bill:
    """The invoice of the running month as it stands, and its forecast."""
    preview = invoices.preview(tenant)
    forecast = forecast_of(tenant, preview.statement, pace)
    rows = list(_rows(preview, forecast))
    last_day = end_of(preview.statement.period) - timedelta(days=1)
    totals = sum(row.so_far for row in rows), sum(row.forecast for row in rows)
    units = preview.statement.units + pace.ahead(end_of(preview.statement.period))
    return Bill(preview, rows, _details(tenant, preview), *totals, forecast.units, units, last_day)


def forecast_of(tenant: Tenant, statement: Statement, pace: Pace) -> Forecast:
    """What the month comes to; calls that a limit would refuse are not in it."""
    units = statement.units + pace.ahead(end_of(statement.period))
    own = next((row for row in terms.standings_of(tenant, statement.period) if row.scope == "tenant"), None)
    if own is not None and own.cap is not None:
        units = max(statement.units, min(units, own.cap))
    usage = to_cents(cost_of(plan_of(statement.plan), units))
    credit = min(usage, statement.credit_cents + credits.left(tenant) // CENT)
    return Forecast(units, usage, credit, 0 if plan_of(statement.plan).overage else usage - credit)


def cost_of(plan: Plan, units: int) -> int:
    """Micro-dollars for the units of a month on a plan, before credit."""
    return 0 if plan.included_units is None else max(0, units - plan.included_units) * plan.unit_price


def _rows(preview: Preview, forecast: Forecast) -> Iterator[Row]:
    """Fixed prices, the units included, those above them, and what pays for them."""
    statement = preview.statement
    for line in preview.lines:
        if line.kind in ("plan", "proration"):
            yield Row(line.text, _("paid in advance") if line.kind == "plan" else "", line.cents, line.cents)
    if statement.included is not None and not _is_billed_elsewhere(preview):
        yield _included(statement)
        yield _above(statement, forecast)
        paid = ((_("Paid by credit"), statement.credit_cents, forecast.credit), (_not_charged(), statement.waived_cents, forecast.waived))
        yield from (Row(text, "", -now, -later) for text, now, later in paid if now or later)


def _is_billed_elsewhere(preview: Preview) -> bool:
    """Whether the units were Stripe's to collect, or the operator's, before the payer changed."""
    return bool(preview.statement.usage_cents) and not any(line.kind == "usage" for line in preview.lines)


def _not_charged() -> str:
    return _("Not charged: the plan stops at what it includes")


def _included(statement: Statement) -> Row:
    included = statement.included or 0
    words = {"n": f"{min(statement.units, included):,}", "all": f"{included:,}"}
    return Row(_("Units included"), _("%(n)s of %(all)s used") % words, 0, 0)


def _above(statement: Statement, forecast: Forecast) -> Row:
    words = {"n": f"{statement.charged:,}", "price": money.unit_price(statement.unit_price)}
    return Row(_("Units above the included"), _("%(n)s at %(price)s") % words, statement.usage_cents, forecast.usage)


def _details(tenant: Tenant, preview: Preview) -> list[dict[str, Any]]:
    names = key_names(tenant)
    found = sorted(preview.details, key=lambda part: (-part.units, part.model, str(part.key_id)))
    return [{"row": part, "key": key_name(part.key_id, names)} for part in found]


def key_names(tenant: Tenant) -> dict[Any, str]:
    """The names of all keys by id, revoked ones too."""
    return {key.id: key.name for key in keys.list_keys(tenant, with_revoked=True)}


def key_name(key_id: Any, names: dict[Any, str]) -> str:
    """What called: a key, or the dashboard."""
    return _("Dashboard") if key_id is None else names.get(key_id, _("a deleted key"))
