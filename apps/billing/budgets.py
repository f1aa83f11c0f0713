"""What an organisation, a key or a model may cost a month: set, looked at, taken away."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.utils import timezone
from django.utils.translation import gettext as _

from apps.accounts import keys
from apps.accounts.services import Tenant
from apps.billing import terms
from apps.billing.models import Budget, BudgetScope
from apps.billing.months import hold, this_month
from apps.catalog import services as catalog
from maas import errors, ids
from maas.actors import Permission, current_actor, require
from maas.events import BudgetChanged, publish
from maas.tenancy import as_tenant

__all__ = ["Budget", "BudgetScope"]  # what the layers above may name

THRESHOLDS = (50, 80, 100)  # per cent
LARGEST = 10**15  # micro-dollars
MOST = 500  # budgets of one tenant


def set_budget(
    tenant: Tenant, *, scope: str, subject: str = "", amount: int, hard: bool = True, thresholds: Sequence[int] = THRESHOLDS
) -> Budget:
    """Give the organisation, a key (`key_...`) or a model a budget in micro-dollars a month, in place of one that it has.

    A hard one refuses calls, the other only alerts. It holds at once, for what the month has cost already too. Raises
    Forbidden, BadRequest that names the field, NotFound for a key or model that the organisation does not have.
    """
    require_for(tenant, scope)
    place: dict[str, Any] = {"scope": scope, "subject": _subject(tenant, scope, subject)}
    wanted = {"amount": _amount(amount), "hard": bool(hard), "thresholds": _thresholds(thresholds)}
    with as_tenant(tenant.id):
        hold(tenant.id, this_month())
        before = Budget.objects.filter(tenant=tenant, **place).first()
        if before is None and Budget.objects.filter(tenant=tenant).count() >= MOST:
            raise errors.BadRequest(_("An organisation can have %(n)d budgets. Delete one first.") % {"n": MOST}, code="budget_limit")
        budget, _made = Budget.objects.update_or_create(defaults={**wanted, "changed_at": timezone.now()}, tenant=tenant, **place)
        if before is None or _json(before) != _json(budget):
            publish(_changed(tenant, budget, before=_json(before) if before else None, after=_json(budget)))
        terms.refresh(tenant)
    return budget


def delete_budget(tenant: Tenant, budget_id: UUID) -> None:
    """Take a budget away; it stops limiting at once. Raises Forbidden and NotFound."""
    budget = get_budget(tenant, budget_id)
    require_for(tenant, budget.scope)
    with as_tenant(tenant.id):
        hold(tenant.id, this_month())
        if Budget.objects.filter(tenant=tenant, pk=budget_id).delete()[0]:
            publish(_changed(tenant, budget, before=_json(budget), after=None))
        terms.refresh(tenant)


def list_budgets(tenant: Tenant) -> list[Budget]:
    """All budgets, the organisation's own first."""
    with as_tenant(tenant.id):
        rows = Budget.objects.filter(tenant=tenant).order_by("subject")
        return sorted(rows, key=lambda row: BudgetScope.values.index(row.scope))


def get_budget(tenant: Tenant, budget_id: UUID) -> Budget:
    """One of the tenant's budgets; NotFound for any other."""
    with as_tenant(tenant.id):
        found = Budget.objects.filter(tenant=tenant, pk=budget_id).first()
    if found is None:
        raise errors.NotFound(_("There is no budget '%(id)s'.") % {"id": ids.encode(ids.BUDGET, budget_id)}, param="id")
    return found


def require_for(tenant: Tenant, scope: str) -> None:
    """Raises Forbidden unless the actor may set budgets. Who makes keys may limit them; a key itself never may."""
    actor = current_actor()
    if scope == BudgetScope.KEY and actor.kind == "user" and actor.tenant_id == tenant.id and Permission.KEYS in actor.permissions:
        return
    require(tenant.id, Permission.BILLING)


def subject_id(scope: str, subject: str) -> str:
    """A subject as the API spells it: `key_...`, a model's name, or nothing."""
    return ids.KEY + subject if scope == BudgetScope.KEY else subject


def label_of(tenant: Tenant, scope: str, subject: str) -> str:
    """What people call it: a key's or a model's name, else the organisation's."""
    if scope == BudgetScope.KEY:
        return keys.get_key(tenant, UUID(hex=subject)).name
    return subject or tenant.name


def _subject(tenant: Tenant, scope: str, subject: str) -> str:
    if scope == BudgetScope.KEY:
        key_id = ids.decode(ids.KEY, subject)
        if key_id is None:
            raise errors.BadRequest(_("'subject' must be the id of a key, such as key_0199..."), param="subject", code="invalid_value")
        return keys.get_key(tenant, key_id).id.hex
    if scope == BudgetScope.MODEL:
        return catalog.get_model(tenant, subject).name
    if scope != BudgetScope.TENANT or subject:
        known = {"known": ", ".join(BudgetScope.values)}
        message = _("'subject' belongs to budgets of a key or a model.") if subject else _("'scope' must be one of: %(known)s.") % known
        raise errors.BadRequest(message, param="subject" if subject else "scope", code="invalid_value")
    return ""


def _amount(amount: int) -> int:
    if isinstance(amount, bool) or not isinstance(amount, int) or not 0 <= amount <= LARGEST:
        message = _("'amount' must be whole micro-dollars from 0 to %(n)d.") % {"n": LARGEST}
        raise errors.BadRequest(message, param="amount", code="invalid_value")
    return amount


def _thresholds(thresholds: Sequence[int]) -> list[int]:
    found = list(thresholds)
    if len(found) > 10 or any(isinstance(part, bool) or not isinstance(part, int) or not 1 <= part <= 100 for part in found):
        message = _("'thresholds' must be up to 10 whole per cents from 1 to 100.")
        raise errors.BadRequest(message, param="thresholds", code="invalid_value")
    return sorted(set(found))


def _json(budget: Budget) -> dict[str, Any]:
    subject = subject_id(budget.scope, budget.subject)
    return {"scope": budget.scope, "subject": subject, "amount": budget.amount, "hard": budget.hard, "thresholds": budget.thresholds}


def _changed(tenant: Tenant, budget: Budget, **change: Any) -> BudgetChanged:
    return BudgetChanged(tenant_id=tenant.id, label=label_of(tenant, budget.scope, budget.subject), **change)
