"""API keys: which there are, making one, revoking one."""

from datetime import timedelta

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django_htmx.http import HttpResponseClientRedirect

from apps.accounts import services
from apps.dashboard import example
from apps.dashboard.page import MemberRequest, page, read_id, require_writer
from apps.dashboard.words import SCOPES
from maas import errors, ids

EXPIRY = {"30": 30, "90": 90, "365": 365, "never": None}  # days
LATELY = timedelta(days=1)  # a key used since then asks for its name before it is revoked


class NewKey(forms.Form):
    """What a new key is asked for."""

    name = forms.CharField(label=gettext_lazy("Name"), max_length=80)
    scopes = forms.MultipleChoiceField(
        label=gettext_lazy("May"),
        choices=list(SCOPES.items()),
        initial=["predict"],
        error_messages={"required": gettext_lazy("Choose at least one thing that the key may do.")},
    )
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


@page()
def index(request: MemberRequest) -> HttpResponse:
    return render(request, "keys.html", _context(request) | {"form": NewKey()})


def _context(request: MemberRequest) -> dict[str, object]:
    keys = services.list_keys(request.tenant, with_revoked=True)
    live = [key for key in keys if key.status == "active"]
    return {
        "section": "keys",
        "keys": live,
        "gone": [key for key in keys if key.status != "active"],
        "limit": services.KEY_LIMIT,
        "soon": timezone.now() + timedelta(days=14),
        "lately": timezone.now() - LATELY,
        "scopes": SCOPES,
    }


@page("GET", "POST")
def new(request: MemberRequest) -> HttpResponse:
    """The form as a page of its own, and where the dialog posts to.

    The secret is in this one answer and nowhere else.
    """
    require_writer(request)
    form = NewKey(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        made = _make(request, form)
        if made:
            return made
    dialog = request.htmx and request.method == "POST"
    template = "parts/key_form.html" if dialog else "new_key.html"
    return render(request, template, {"form": form, "section": "keys", "scopes": SCOPES}, status=422 if form.errors else 200)


def _make(request: MemberRequest, form: NewKey) -> HttpResponse | None:
    days = EXPIRY[form.cleaned_data["expires"]]
    try:
        key, secret = services.create_key(
            request.tenant,
            name=form.cleaned_data["name"],
            scopes=form.cleaned_data["scopes"],
            expires_at=timezone.now() + timedelta(days=days) if days else None,
            created_by=request.user,
        )
    except errors.BadRequest as error:
        form.add_error(error.param if error.param in form.fields else None, error.message)
        return None
    response = render(
        request,
        "keys.html",
        _context(request) | {"form": NewKey(), "made": key, "secret": secret, "root": example.root(request)},
    )
    response["Cache-Control"] = "no-store"
    response["HX-Push-Url"] = "/keys"
    response["HX-Retarget"], response["HX-Reswap"], response["HX-Reselect"] = (
        "#main",
        "outerHTML show:window:top",
        "#main",
    )
    return response


@page("GET", "POST")
def revoke(request: MemberRequest, key_id: str) -> HttpResponse:
    """Ask once more, then revoke. A key that was in use lately asks for its name."""
    require_writer(request)
    key = services.get_key(request.tenant, read_id(ids.KEY, key_id))
    in_use = bool(key.last_used_at and key.last_used_at > timezone.now() - LATELY)
    wrong = request.method == "POST" and in_use and request.POST.get("name", "").strip() != key.name
    if request.method == "POST" and not wrong:
        services.revoke_key(request.tenant, key.id)
        messages.success(request, _("%(name)s is revoked. Programs that hold it get 401 from now on.") % {"name": key.name})
        return HttpResponseClientRedirect("/keys") if request.htmx else redirect("keys")
    context = {"key": key, "in_use": in_use, "wrong": wrong, "section": "keys"}
    template = "parts/revoke_key.html" if request.htmx else "revoke_key.html"
    return render(request, template, context, status=422 if wrong else 200)
