"""The forms of budgets: of the organisation, and the spend limits of its keys and models."""

from typing import Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apps.accounts import keys
from apps.accounts.services import Tenant
from apps.billing.budgets import THRESHOLDS, Budget
from apps.catalog import services as catalog
from apps.dashboard import money
from apps.dashboard.quotas import SpendLimit, find_budget, key_subject
from maas import errors

AT_LIMIT = (
    ("stop", gettext_lazy("Stop calls with 402; jobs end with what they have")),
    ("tell", gettext_lazy("Go on, tell owners and admins")),
)


class _AmountForm(forms.Form):
    """Dollars a month and what follows at 100%."""

    amount = money.DollarField(label=gettext_lazy("Budget a month"))
    at_limit = forms.ChoiceField(label=gettext_lazy("At 100%"), choices=AT_LIMIT, initial="stop")

    def refuse(self, error: errors.MaasError) -> None:
        """Put a service's error under its field."""
        field = {"scope": "subject"}.get(error.param or "", error.param)
        self.add_error(field if field in self.fields else None, error.message)


class BudgetForm(_AmountForm):
    """The organisation's own; `budget` is what it has now."""

    thresholds = forms.MultipleChoiceField(label=gettext_lazy("Mail owners and admins at"), required=False)

    def __init__(self, data: Any = None, *, budget: Budget | None) -> None:
        super().__init__(data, auto_id="budget_%s", initial=_initial(budget))
        known = sorted({*THRESHOLDS, *(budget.thresholds if budget else ())})
        self.fields["thresholds"].choices = [(str(part), f"{part}%") for part in known]  # type: ignore[attr-defined]

    def wanted(self) -> dict[str, Any]:
        """The arguments of `budgets.set_budget`."""
        data = self.cleaned_data
        return {"amount": data["amount"], "hard": data["at_limit"] == "stop", "thresholds": [int(part) for part in data["thresholds"]]}


def _initial(budget: Budget | None) -> dict[str, Any]:
    if budget is None:
        return {"thresholds": [str(part) for part in THRESHOLDS], "at_limit": "stop"}
    at_limit = "stop" if budget.hard else "tell"
    return {"amount": money.typed(budget.amount), "at_limit": at_limit, "thresholds": [str(part) for part in budget.thresholds]}


class LimitForm(_AmountForm):
    """A key's or a model's; `limit` is the one that is to be changed."""

    subject = forms.ChoiceField(label=gettext_lazy("Key or model"))
    field_order = ("subject", "amount", "at_limit")

    def __init__(self, data: Any = None, *, tenant: Tenant, limit: SpendLimit | None = None) -> None:
        initial = {**_initial(limit.budget), "subject": f"{limit.budget.scope}:{limit.subject}"} if limit else {}
        super().__init__(data, auto_id="limit_%s", initial=initial)
        self.fields["amount"].label = _("Spend limit a month")
        self.fields["at_limit"].choices = [("stop", _("Stop its calls")), ("tell", _("Only tell"))]  # type: ignore[attr-defined]
        self.tenant, self.changes = tenant, limit
        self.fields["subject"].choices = _subjects(tenant, limit)  # type: ignore[attr-defined]

    def wanted(self) -> dict[str, Any]:
        """The arguments of `budgets.set_budget`."""
        data = self.cleaned_data
        scope, _colon, subject = data["subject"].partition(":")
        known = find_budget(self.tenant, scope, subject)
        thresholds = known.thresholds if known else THRESHOLDS
        same = {"scope": scope, "subject": subject, "thresholds": thresholds}
        return {**same, "amount": data["amount"], "hard": data["at_limit"] == "stop"}


def _subjects(tenant: Tenant, limit: SpendLimit | None) -> list[Any]:
    if limit:
        return [(f"{limit.budget.scope}:{limit.subject}", limit.quota.title)]
    of_keys = [(f"key:{key_subject(key)}", key.name) for key in keys.list_keys(tenant) if key.status == "active"]
    of_models = [(f"model:{model.name}", model.name) for model in catalog.list_models(tenant)]
    return [("", _("Choose one")), (_("Keys"), of_keys), (_("Models"), of_models)]
