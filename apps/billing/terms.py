"""How much an organisation may use in a month, from its plan."""

from datetime import date

from apps.accounts.services import Tenant
from apps.billing.plans import plan_of
from apps.usage.allowances import Cap


def caps_of(tenant: Tenant, period: date) -> list[Cap]:
    """The caps of a month, in the caller's transaction and after `usage.allowances.lock_month`."""
    plan = plan_of(tenant.plan)
    return [Cap("tenant", "", None if plan.unit_price else plan.included_units)]
