"""API keys: which there are, making one, changing, rotating and revoking one."""

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django_htmx.http import HttpResponseClientRedirect

from apps.accounts import keys
from apps.accounts.restrictions import LARGEST_LIMIT, LIMITS
from apps.billing import budgets
from apps.billing.plans import plan_of
from apps.catalog import services as catalog
from apps.dashboard import example, money, quotas
from apps.dashboard.page import MemberRequest, page, read_id, require_writer
from apps.dashboard.words import SCOPES
from maas import errors, ids
from maas.tenancy import as_tenant

EXPIRY = {"30": 30, "90": 90, "365": 365, "never": None}  # days
LATELY = timedelta(days=1)  # a key used since then asks for its name before it is revoked
GRACES = {"0": timedelta(0), "1": timedelta(days=1), "7": timedelta(days=7), "30": timedelta(days=30)}


class KeyForm(forms.Form):
    """What a new key is asked for. `models` are the names that can be ticked; none ticked means all."""

    name = forms.CharField(label=gettext_lazy("Name"), max_length=80)
    scopes = forms.MultipleChoiceField(
        label=gettext_lazy("May"),
        choices=list(SCOPES.items()),
        initial=["predict"],
        error_messages={"required": gettext_lazy("Choose at least one thing that the key may do.")},
    )
    allowed_models = forms.MultipleChoiceField(label=gettext_lazy("Models"), required=False)
    allowed_addresses = forms.CharField(label=gettext_lazy("Addresses"), required=False, max_length=2000)
    requests_per_minute = forms.IntegerField(label=gettext_lazy("Requests a minute"), required=False, min_value=1, max_value=LARGEST_LIMIT)
    units_per_minute = forms.IntegerField(label=gettext_lazy("Units a minute"), required=False, min_value=1, max_value=LARGEST_LIMIT)
    spend_limit = money.DollarField(label=gettext_lazy("Spend limit a month"), required=False)
    expires = forms.ChoiceField(
        label=gettext_lazy("Expires"),
        initial="90",
        choices=[
            ("30", gettext_lazy("in 30 days")),
            ("90", gettext_lazy("in 90 days")),
            ("365", gettext_lazy("in a year")),
            ("never", gettext_lazy("never")),
        ],
    )

    def __init__(self, *args: Any, models: list[str], has_price: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not has_price:
            del self.fields["spend_limit"]  # no unit costs anything, so no amount would limit anything
        self.fields["allowed_models"].choices = [(name, name) for name in models]  # type: ignore[attr-defined]

    def wanted(self) -> dict[str, Any]:
        """The arguments of `keys.create_key` and `keys.change_key`; the spend limit is the budgets' matter."""
        data = self.cleaned_data
        addresses = data["allowed_addresses"].replace(",", " ").split()
        wanted = {
            "name": data["name"], "scopes": data["scopes"], "allowed_models": data["allowed_models"], "allowed_addresses": addresses,
            "limits": {name: data[name] for name in LIMITS},
        }  # fmt: skip
        if data["expires"] != "keep":
            days = EXPIRY[data["expires"]]
            wanted["expires_at"] = timezone.now() + timedelta(days=days) if days else None
        return wanted

    def refuse(self, error: errors.MaasError) -> None:
        """Put a service's error under its field."""
        param = (error.param or "").partition("[")[0].removeprefix("limits.")
        field = {"expires_at": "expires", "amount": "spend_limit"}.get(param, param)
        self.add_error(field if field in self.fields else None, error.message)


class EditForm(KeyForm):
    """The same for a key that exists; its expiry stays unless another one is chosen."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["expires"].choices = [("keep", gettext_lazy("as it is")), *self.fields["expires"].choices]  # type: ignore[attr-defined]
        self.fields["expires"].initial = "keep"


@page()
def index(request: MemberRequest) -> HttpResponse:
    return render(request, "keys.html", _context(request) | {"form": _new_form(request)})


def _new_form(request: MemberRequest, data: Any = None) -> KeyForm:
    return KeyForm(data, models=_models(request), has_price=_has_price(request))


def _has_price(request: MemberRequest) -> bool:
    """Whether units cost something on the organisation's plan."""
    return plan_of(request.tenant.plan).unit_price > 0


def _models(request: MemberRequest, *more: str) -> list[str]:
    names = [model.name for model in catalog.list_models(request.tenant)]
    return names + [name for name in more if name not in names]


def _context(request: MemberRequest) -> dict[str, Any]:
    found = keys.list_keys(request.tenant, with_revoked=True)
    return {
        "section": "keys",
        "keys": [key for key in found if key.status == "active"],
        "gone": [key for key in found if key.status != "active"],
        "limit": keys.KEY_LIMIT,
        "soon": timezone.now() + timedelta(days=14),
        "scopes": SCOPES,
    }


@page("GET", "POST")
def new(request: MemberRequest) -> HttpResponse:
    """The form as a page of its own, and where the dialog posts to.

    The secret is in this one answer and nowhere else.
    """
    require_writer(request)
    form = _new_form(request, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            with as_tenant(request.tenant.id):  # the key with its limit, or neither
                made = keys.create_key(request.tenant, created_by=request.user, **form.wanted())
                _limit_spending(request, made[0], form, None)
            return _show_secret(request, *made)
        except (errors.BadRequest, errors.Forbidden) as error:
            form.refuse(error)
    template = "parts/key_form.html" if request.htmx and request.method == "POST" else "new_key.html"
    return render(request, template, {"form": form, "section": "keys", "scopes": SCOPES}, status=422 if form.errors else 200)


def _show_secret(request: MemberRequest, key: Any, secret: str) -> HttpResponse:
    """The list with the secret above it; in place of the whole page where a dialog asked."""
    shown = {"form": _new_form(request), "made": key, "secret": secret, "root": example.root(request)}
    response = render(request, "keys.html", _context(request) | shown)
    response["Cache-Control"] = "no-store"
    response["HX-Push-Url"] = "/keys"
    response["HX-Retarget"], response["HX-Reswap"], response["HX-Reselect"] = "#main", "outerHTML show:window:top", "#main"
    return response


@page("GET", "POST")
def edit(request: MemberRequest, key_id: str) -> HttpResponse:
    """Change what a key may do; it holds from its next call on."""
    require_writer(request)
    key = keys.get_key(request.tenant, read_id(ids.KEY, key_id))
    initial = {name: getattr(key, name) for name in ("name", "scopes", "allowed_models")}
    initial |= key.limits
    initial["allowed_addresses"] = ", ".join(key.allowed_addresses)
    limit = quotas.find_budget(request.tenant, "key", quotas.key_subject(key))
    initial["spend_limit"] = money.typed(limit.amount) if limit else None
    more = {"models": _models(request, *key.allowed_models), "has_price": _has_price(request)}
    form = EditForm(request.POST if request.method == "POST" else None, initial=initial, **more)
    if request.method == "POST" and form.is_valid():
        try:
            with as_tenant(request.tenant.id):  # both or neither
                keys.change_key(request.tenant, key.id, **form.wanted())
                _limit_spending(request, key, form, limit)
            messages.success(request, _("%(name)s is changed. It holds from its next call on.") % {"name": form.cleaned_data["name"]})
            return redirect("keys")
        except (errors.BadRequest, errors.Forbidden) as error:
            form.refuse(error)
    context = {"form": form, "key": key, "section": "keys", "scopes": SCOPES}
    return render(request, "edit_key.html", context, status=422 if form.errors else 200)


def _limit_spending(request: MemberRequest, key: Any, form: KeyForm, limit: budgets.Budget | None) -> None:
    """Give the key the spend limit that was typed, unless it has it; take it away where nothing was typed."""
    amount = form.cleaned_data.get("spend_limit")
    if "spend_limit" not in form.fields or amount == (limit.amount if limit else None):
        return
    if amount is None and limit:
        budgets.delete_budget(request.tenant, limit.id)
    elif amount is not None:
        same = {"hard": limit.hard, "thresholds": limit.thresholds} if limit else {}
        budgets.set_budget(request.tenant, scope="key", subject=quotas.key_subject(key), amount=amount, **same)


@page("GET", "POST")
def rotate(request: MemberRequest, key_id: str) -> HttpResponse:
    """Ask how long the old secret stays, then show the new one."""
    require_writer(request)
    key = keys.get_key(request.tenant, read_id(ids.KEY, key_id))
    if request.method == "POST":
        grace = GRACES.get(request.POST.get("grace", ""), keys.GRACE)
        return _show_secret(request, *keys.rotate_key(request.tenant, key.id, grace=grace))
    template = "parts/rotate_key.html" if request.htmx else "rotate_key.html"
    return render(request, template, {"key": key, "section": "keys"})


@page("GET", "POST")
def revoke(request: MemberRequest, key_id: str) -> HttpResponse:
    """Ask once more, then revoke. A key that was in use lately asks for its name."""
    require_writer(request)
    key = keys.get_key(request.tenant, read_id(ids.KEY, key_id))
    in_use = bool(key.last_used_at and key.last_used_at > timezone.now() - LATELY)
    wrong = request.method == "POST" and in_use and request.POST.get("name", "").strip() != key.name
    if request.method == "POST" and not wrong:
        keys.revoke_key(request.tenant, key.id)
        messages.success(request, _("%(name)s is revoked. Programs that hold it get 401 from now on.") % {"name": key.name})
        return HttpResponseClientRedirect("/keys") if request.htmx else redirect("keys")
    context = {"key": key, "in_use": in_use, "wrong": wrong, "section": "keys"}
    template = "parts/revoke_key.html" if request.htmx else "revoke_key.html"
    return render(request, template, context, status=422 if wrong else 200)
