"""The member's own page, and the organisations they belong to."""

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_POST

from apps.accounts import services, sessions, sign_in
from apps.accounts.middleware import SESSION_KEY
from apps.dashboard.page import MemberRequest, page
from maas import errors


class NewOrganisation(forms.Form):
    organisation = forms.CharField(label=gettext_lazy("Organisation"), min_length=2, max_length=40)


@page(own=True)
def show(request: MemberRequest) -> HttpResponse:
    """Who signs in and how, from where, and for which organisations."""
    context = {
        "section": "account",
        "organisations": services.list_tenants(request.user),
        "ways": sign_in.list_ways_in(request.user),
        "sessions": sessions.list_sessions(request.user),
    }
    return render(request, "account.html", context)


@login_required
@require_POST
def end_session(request: MemberRequest, session_id: int) -> HttpResponse:
    """Sign out one of the member's own browsers, whatever their role."""
    try:
        device = sessions.end_session(request, session_id)
    except errors.NotFound as error:
        messages.error(request, error.message)
    else:
        messages.success(request, _("The session on %(device)s is ended.") % {"device": device})
    return redirect("account")


@login_required
@require_POST
def switch_organisation(request: MemberRequest) -> HttpResponse:
    """Work for another of the member's organisations from now on."""
    wanted = request.POST.get("organisation", "")
    found = next((tenant for tenant in services.list_tenants(request.user) if tenant.slug == wanted), None)
    if found:
        request.session[SESSION_KEY] = str(found.id)
    else:
        messages.error(request, _("You are not a member of that organisation."))
    return redirect("overview")


@login_required
@require_http_methods(["GET", "POST"])
def new_organisation(request: MemberRequest) -> HttpResponse:
    """A further organisation, owned by who makes it; also where a user without any lands."""
    form = NewOrganisation(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid() and _create(request, form):
        return redirect("overview")
    return render(request, "new_organisation.html", {"form": form, "section": "account"}, status=422 if form.errors else 200)


def _create(request: MemberRequest, form: NewOrganisation) -> bool:
    slug = form.cleaned_data["organisation"].strip()
    try:
        tenant = services.create_tenant(request.user, name=slug, slug=slug)
    except errors.BadRequest as error:
        form.add_error("organisation", error.message)
        return False
    request.session[SESSION_KEY] = str(tenant.id)
    return True
