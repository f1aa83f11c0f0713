"""Which plan held when, and when a plan to come takes over. Reading alone, in the caller's transaction."""

from datetime import date
from uuid import UUID

from apps.accounts.services import Tenant
from apps.billing.models import Account, Collector, PlanChange
from apps.billing.months import end_of, start_of
from apps.billing.plans import Plan, plan_of


def plan_in(tenant_id: UUID, period: date) -> Plan:
    """The plan that prices a month: the last one that held in it, or the one that is to hold in it."""
    later = _changes(tenant_id).filter(effective_at__gte=end_of(period)).first()
    return plan_of(later.before if later else _latest(tenant_id, period))


def plan_at_start(tenant_id: UUID, period: date) -> Plan:
    """The plan with which a month begins: its price is paid in advance."""
    later = _changes(tenant_id).filter(effective_at__gt=start_of(period)).first()
    return plan_of(later.before if later else _latest(tenant_id, period))


def changes_in(tenant_id: UUID, period: date) -> list[PlanChange]:
    """What changed within a month; not what changed with its first moment."""
    return list(_changes(tenant_id).filter(effective_at__gt=start_of(period), effective_at__lt=end_of(period)))


def account_of(tenant_id: UUID) -> Account:
    """How a tenant pays; an unsaved row where nothing was ever noted."""
    return Account.objects.filter(tenant_id=tenant_id).first() or Account(tenant_id=tenant_id)


def collector_of(tenant_id: UUID, period: date) -> str:
    """Who collects a month: manual or stripe."""
    account = account_of(tenant_id)
    by_stripe = account.collected_by == Collector.STRIPE or (account.stripe_until and period < account.stripe_until)
    return Collector.STRIPE if by_stripe else Collector.MANUAL


def _changes(tenant_id: UUID):  # type: ignore[no-untyped-def]
    return PlanChange.objects.filter(tenant_id=tenant_id).order_by("effective_at", "id")


def _latest(tenant_id: UUID, period: date) -> str:
    account = account_of(tenant_id)
    if account.next_plan and account.next_from and account.next_from <= period:
        return account.next_plan
    return Tenant.objects.values_list("plan", flat=True).get(pk=tenant_id)
