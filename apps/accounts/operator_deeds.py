"""What an operator can do to an organisation, or to something of its: a form, a service, and a line in the organisation's audit log."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import messages
from django.db import transaction
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminTextInputWidget

from apps.accounts.models import Tenant
from apps.accounts.operator_site import OperatorAdmin, site
from apps.accounts.operators import operator_actor, proved_lately, where_to_prove
from apps.accounts.suspension import LONGEST_REASON
from maas import errors
from maas.actors import acting


def always(_row: Any) -> bool:
    return True


class NoForm(forms.Form):
    """For a deed that needs no more than a yes."""


class ReasonForm(forms.Form):
    reason = forms.CharField(max_length=LONGEST_REASON, widget=UnfoldAdminTextInputWidget)


@dataclass(frozen=True)
class Deed:
    """`name` ends its address. `run` calls the service with the row and the form's data, and says what was done or leads elsewhere.

    `fits` says which rows it is offered for, `fresh` that it asks for a second factor given within the last minutes.
    """

    name: str
    title: Any
    explanation: Any
    button: Any
    run: Callable[[HttpRequest, Any, dict[str, Any]], str | HttpResponse]
    form: type[forms.Form] = NoForm
    fits: Callable[[Any], bool] = always
    fresh: bool = False
    danger: bool = False


DEEDS: dict[str, tuple[type[Model], dict[str, Deed]]] = {}


def declare(model: type[Model], *deeds: Deed) -> None:
    """Offer deeds on the page of every row of this model that they fit: a tenant, or a row of one."""
    known = DEEDS.setdefault(str(model._meta.model_name), (model, {}))[1]
    known.update({deed.name: deed for deed in deeds})


class DeedsAdmin(OperatorAdmin):
    """A page that offers the deeds of its row as buttons."""

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> Any:
        response = super().changeform_view(request, object_id, form_url, extra_context)
        row = getattr(response, "context_data", {}).get("original")
        if row is not None:
            response.context_data["actions_detail"] = _links(row)
        return response


def _links(row: Model) -> list[dict[str, Any]]:
    deeds = DEEDS[str(row._meta.model_name)][1].values()
    return [
        {
            "title": deed.title, "path": _address(row, deed), "attrs": {},
            "variant": ActionVariant.DANGER if deed.danger else ActionVariant.DEFAULT,
        }
        for deed in deeds
        if deed.fits(row)
    ]  # fmt: skip


def _address(row: Model, deed: Deed) -> str:
    return reverse("operator:deed", args=[row._meta.model_name, row.pk, deed.name])


def page_of(row: Model) -> str:
    """The admin's page about a row."""
    return reverse(f"operator:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])


def do(request: HttpRequest, kind: str, row_id: UUID, name: str) -> HttpResponse:
    """A deed's page, and where it posts to."""
    model, deeds = DEEDS.get(kind, (Tenant, {}))
    deed, row = deeds.get(name), model._default_manager.filter(pk=row_id).first()
    if deed is None or row is None:
        raise Http404
    if not deed.fits(row):
        messages.warning(request, _("That does not fit any more: look at what has changed."))
        return redirect(page_of(row))
    if deed.fresh and not proved_lately(request):
        return HttpResponseRedirect(where_to_prove(request.user, _address(row, deed)))  # type: ignore[arg-type]
    return ask(request, deed, row, tenant=row if isinstance(row, Tenant) else row.tenant, back=page_of(row))  # type: ignore[attr-defined]


def ask(request: HttpRequest, deed: Deed, row: Any, *, tenant: Tenant | None, back: str) -> HttpResponse:
    """Show the deed's form, or do it and go back."""
    form = deed.form(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        answer = _run(request, deed, row, tenant, form)
        if answer is not None:
            return answer if isinstance(answer, HttpResponse) else redirect(back)
    context = {**site.each_context(request), "title": deed.title, "deed": deed, "subject": row, "form": form, "back": back}
    return TemplateResponse(request, "operator/deed.html", context, status=422 if form.errors else 200)


def _run(request: HttpRequest, deed: Deed, row: Any, tenant: Tenant | None, form: forms.Form) -> str | HttpResponse | None:
    """What was done; None when it was refused, with the reason in the form and nothing written."""
    try:
        with acting(operator_actor(request.user, tenant)), transaction.atomic():  # type: ignore[arg-type]
            done = deed.run(request, row, form.cleaned_data)
    except errors.MaasError as error:
        form.add_error(error.param if error.param in form.fields else None, error.message)
        return None
    if isinstance(done, str):
        messages.success(request, done)
    return done
