"""What happens to plans, budgets, credit and payments, and what the operator does."""

from dataclasses import dataclass
from typing import Any

from maas.events.base import Event


class TenantSuspended(Event):
    """The operator stopped the organisation; `after["reason"]` says why."""

    name = "tenant.suspended"


class TenantResumed(Event):
    name = "tenant.resumed"


class ImpersonationStarted(Event):
    """An operator looks at the organisation as its members do; `after["reason"]` says why."""

    name = "operator.entered"


class ImpersonationEnded(Event):
    name = "operator.left"


class PlanChanged(Event):
    """`before` and `after` hold `plan`; `after["from"]` is the day from which it holds when that is to come."""

    name = "billing.plan_changed"


class BudgetChanged(Event):
    """A budget was set or taken away (`after` None); `label` says whose it is."""

    name = "billing.budget_changed"


@dataclass(frozen=True, kw_only=True)
class BudgetReached(Event):
    """A part of a budget is spent. `facts` is what a webhook carries: scope, subject, period, threshold, spent and amount."""

    facts: dict[str, Any]
    name = "budget.threshold"

    def data(self) -> dict[str, Any]:
        """`object`, `scope`, `subject`, `period`, `threshold` (per cent), `spent` and `amount` (micro-dollars, or units)."""
        return {"object": "budget", **self.facts}


class CreditGranted(Event):
    """`after` holds `amount` in micro-dollars (below zero: taken back) and `reason`; a coupon's code is the `label`."""

    name = "billing.credit_granted"


class InvoiceChanged(Event):
    """An invoice was made or its state changed; `label` is its number, `after` holds `state` and `total` in cents."""

    name = "billing.invoice_changed"


class PaymentOverdue(Event):
    """A payment failed. `after["until"]`: calls are refused from then on unless it is made."""

    name = "billing.payment_overdue"


class PaymentMade(Event):
    name = "billing.payment_made"
