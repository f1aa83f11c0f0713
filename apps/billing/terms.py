"""How much an organisation may use in a month: its plan, its budgets, its credit and whether it has paid.

Everything here runs in the caller's transaction.
"""

from datetime import date, datetime, timedelta
from uuid import UUID

from django.db.models import Q
from django.utils import timezone

from apps.accounts.services import Tenant
from apps.billing import lots
from apps.billing.history import account_of, plan_in
from apps.billing.models import Budget, BudgetScope, CreditEntry
from apps.billing.months import end_of, hold, hold_money, start_of
from apps.billing.plans import Plan
from apps.billing.thresholds import marks_of, next_units, units_for, unsent
from apps.usage import allowances
from apps.usage.allowances import Cap, Standing
from apps.usage.models import Allowance, Scope
from apps.usage.periods import month_of
from maas.tenancy import SystemUse, as_system, as_tenant

GRACE = timedelta(days=7)  # after a payment is overdue; then calls are refused
TENANT = ("tenant", "")


def caps_of(tenant: Tenant, period: date) -> list[Cap]:
    """The caps of a month, in the caller's transaction and after `usage.allowances.lock_month`."""
    hold_money(tenant.id)
    plan, now = plan_in(tenant.id, period), timezone.now()
    budgets = list(Budget.objects.filter(tenant_id=tenant.id).order_by("scope", "subject"))
    marks = marks_of(plan, budgets)
    told_at = next_units(unsent(tenant.id, period, marks))
    units, reason = _tenant_cap(tenant.id, period, plan, budgets, now)
    caps = [Cap(*TENANT, units, reason, told_at.get(TENANT))]
    for budget in budgets:
        place = (budget.scope, budget.subject)
        if place != TENANT:
            most = units_for(plan, budget) if budget.hard else None
            caps.append(Cap(*place, most, "budget_exceeded", told_at.get(place)))
    return caps


def refresh(tenant: Tenant, now: datetime | None = None) -> None:
    """Let what was changed hold for the running month at once; a month that has not begun reads it when it does."""
    period = month_of(now or timezone.now())
    if hold(tenant.id, period):
        apply_caps(tenant, period)


def refresh_all() -> int:
    """Write off what has expired and bring every running month up to date: plan files change, grace ends; how many tenants."""
    now = timezone.now()
    with as_system(SystemUse.CLOSE_MONTHS):
        running = Allowance.objects.filter(scope=Scope.TENANT, period=month_of(now)).values("tenant_id")
        tenants = list(Tenant.objects.filter(Q(pk__in=running) | Q(pk__in=lots.expiring(now).values("tenant_id"))))
    for tenant in tenants:
        with as_tenant(tenant.id):
            hold(tenant.id, month_of(now))
            lots.write_off(tenant.id, now)
            refresh(tenant, now)
    return len(tenants)


def apply_caps(tenant: Tenant, period: date) -> None:
    """Write the caps of a month that the caller holds."""
    allowances.set_caps(tenant.id, period, caps_of(tenant, period))


def standings_of(tenant: Tenant, period: date) -> list[Standing]:
    """What the organisation, its keys and models have used of a month and may use; nothing before the month's first call."""
    with as_tenant(tenant.id):
        return allowances.standings(tenant.id, period)


def cut_off_at(overdue_since: datetime) -> datetime:
    """From when on calls are refused because of a payment."""
    return overdue_since + GRACE


def _tenant_cap(tenant_id: UUID, period: date, plan: Plan, budgets: list[Budget], now: datetime) -> tuple[int | None, str]:
    """The smallest of the limits that hold for the whole organisation, and which one that is."""
    overdue_since = account_of(tenant_id).overdue_since
    if overdue_since and cut_off_at(overdue_since) <= now:
        return 0, "payment_overdue"
    found = [_credit_cap(tenant_id, period, plan, now)] if plan.included_units is not None and not plan.overage else []
    own = [budget for budget in budgets if budget.scope == BudgetScope.TENANT and budget.hard]
    found += [
        (most, "budget_exceeded") for budget in own if plan.included_units is not None and (most := units_for(plan, budget)) is not None
    ]
    return min(found, default=(None, ""))


def _credit_cap(tenant_id: UUID, period: date, plan: Plan, now: datetime) -> tuple[int, str]:
    """What the plan includes and what credit pays for besides; without credit this month it is the plan that ends it."""
    credit = lots.available(tenant_id, period, now)
    had = credit or CreditEntry.objects.filter(
        tenant_id=tenant_id, lot=None, created_at__gte=start_of(period), created_at__lt=end_of(period)
    )
    units = (plan.included_units or 0) + (credit // plan.unit_price if plan.unit_price else 0)
    return units, "insufficient_credit" if had else "quota_exceeded"
