"""What an operator can do to an organisation: a form, a service, and a line in the organisation's audit log."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.widgets import UnfoldAdminTextInputWidget

from apps.accounts.models import Tenant
from apps.accounts.operator_site import site
from apps.accounts.operators import operator_actor, proved_lately, where_to_prove
from apps.accounts.suspension import LONGEST_REASON
from maas import errors
from maas.actors import acting


def always(_tenant: Tenant) -> bool:
    return True


class NoForm(forms.Form):
    """For a deed that needs no more than a yes."""


class ReasonForm(forms.Form):
    """`who_reads` goes below the field."""

    reason = forms.CharField(max_length=LONGEST_REASON, widget=UnfoldAdminTextInputWidget)


@dataclass(frozen=True)
class Deed:
    """`name` ends its address. `run` calls the service and says what was done, or leads elsewhere.

    `fits` says for which organisations it is offered, `fresh` that it asks for a second factor given within the last minutes.
    """

    name: str
    title: Any
    explanation: Any
    button: Any
    run: Callable[[HttpRequest, Tenant, dict[str, Any]], str | HttpResponse]
    form: type[forms.Form] = NoForm
    fits: Callable[[Tenant], bool] = always
    fresh: bool = False
    danger: bool = False


DEEDS: dict[str, Deed] = {}


def declare(deed: Deed) -> None:
    """Offer a deed on the page of every organisation that it fits."""
    DEEDS[deed.name] = deed


def links(tenant: Tenant) -> list[dict[str, Any]]:
    """The deeds for this organisation, as the admin's buttons."""
    return [
        {"title": deed.title, "path": address(tenant.pk, deed.name), "variant": "danger" if deed.danger else "default", "attrs": {}}
        for deed in DEEDS.values()
        if deed.fits(tenant)
    ]


def address(tenant_id: UUID, name: str) -> str:
    return reverse("operator:deed", args=[tenant_id, name])


def do(request: HttpRequest, tenant_id: UUID, name: str) -> HttpResponse:
    """A deed's page, and where it posts to."""
    deed, tenant = DEEDS.get(name), Tenant.objects.filter(pk=tenant_id).first()
    if deed is None or tenant is None:
        raise Http404
    if deed.fresh and not proved_lately(request):
        return HttpResponseRedirect(where_to_prove(request.user, address(tenant_id, name)))  # type: ignore[arg-type]
    form = deed.form(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        answer = _run(deed, request, tenant, form)
        if answer is not None:
            return answer
    context = {**site.each_context(request), "title": deed.title, "deed": deed, "tenant": tenant, "form": form}
    return TemplateResponse(request, "operator/deed.html", context, status=422 if form.errors else 200)


def _run(deed: Deed, request: HttpRequest, tenant: Tenant, form: forms.Form) -> HttpResponse | None:
    """The answer after the deed; None when it was refused, with the reason in the form and nothing written."""
    try:
        with acting(operator_actor(request.user, tenant)), transaction.atomic():  # type: ignore[arg-type]
            done = deed.run(request, tenant, form.cleaned_data)
    except errors.MaasError as error:
        form.add_error(error.param if error.param in form.fields else None, error.message)
        return None
    if isinstance(done, HttpResponse):
        return done
    messages.success(request, done)
    return redirect("operator:accounts_tenant_change", tenant.pk)
