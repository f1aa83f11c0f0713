"""The people of the organisation: who they are, what each may do, inviting and removing them."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django_htmx.http import HttpResponseClientRedirect

from apps.accounts import invitations, members, services
from apps.accounts.second_factor import has_second_factor, have_second_factor
from apps.accounts.services import Membership, Role
from apps.dashboard.page import MemberRequest, page, read_id
from apps.dashboard.words import ROLES
from maas import errors, ids
from maas.actors import Permission, current_actor


class InviteForm(forms.Form):
    email = forms.EmailField(label=gettext_lazy("E-mail"), max_length=254)
    role = forms.ChoiceField(label=gettext_lazy("Role"), choices=Role.choices, initial=Role.DEVELOPER)


@page()
def index(request: MemberRequest) -> HttpResponse:
    return _show(request, InviteForm())


def _show(request: MemberRequest, form: InviteForm, status: int = 200) -> HttpResponse:
    people = members.list_members(request.tenant)
    actor = current_actor()
    context = {
        "section": "team",
        "people": _persons(people),
        "seats": members.seats_of(request.tenant),
        "invitations": invitations.list_open(request.tenant),
        "form": form,
        "may_invite": Permission.MEMBERS in actor.permissions,
        "may_own": Permission.OWNERS in actor.permissions,
        "roles": ROLES,
        "choices": [choice for choice in Role.choices if choice[0] != Role.OWNER or Permission.OWNERS in actor.permissions],
    }
    return render(request, "team.html", context, status=status)


def _persons(people: list[Membership]) -> list[dict[str, Any]]:
    """The members with what the table says of each."""
    owners = sum(member.role == Role.OWNER for member in people)
    secured = have_second_factor([member.user_id for member in people])
    actor = current_actor()
    return [
        {
            "row": member,
            "last_owner": member.role == Role.OWNER and owners == 1,
            "second_factor": member.user_id in secured,
            "is_me": actor.id == str(member.user_id),
            "may_change": (Permission.OWNERS if member.role == Role.OWNER else Permission.MEMBERS) in actor.permissions,
        }
        for member in people
    ]


@page("POST")
def invite(request: MemberRequest) -> HttpResponse:
    form = InviteForm(request.POST)
    if not form.is_valid():
        return _show(request, form, 422)
    try:
        invitation = invitations.invite(request.tenant, invited_by=request.user, **form.cleaned_data)
    except errors.BadRequest as error:
        form.add_error(error.param if error.param in form.fields else None, error.message)
        return _show(request, form, 422)
    messages.success(request, _("%(email)s is invited. The link in the mail works for a week.") % {"email": invitation.email})
    return redirect("team")


@page("POST")
def send_again(request: MemberRequest, invitation_id: str) -> HttpResponse:
    invitation = invitations.send_again(request.tenant, read_id(ids.INVITATION, invitation_id))
    messages.success(request, _("%(email)s gets a new link; the one before has ended.") % {"email": invitation.email})
    return redirect("team")


@page("POST")
def withdraw(request: MemberRequest, invitation_id: str) -> HttpResponse:
    invitation = invitations.withdraw(request.tenant, read_id(ids.INVITATION, invitation_id))
    messages.success(request, _("The invitation of %(email)s is withdrawn.") % {"email": invitation.email})
    return redirect("team")


@page("POST")
def change_role(request: MemberRequest, user_id: int) -> HttpResponse:
    try:
        member = members.change_role(request.tenant, user_id, role=request.POST.get("role", ""))
    except errors.BadRequest as error:
        messages.error(request, error.message)
        return redirect("team")
    words = {"email": member.user.email, "role": member.get_role_display()}
    messages.success(request, _("Saved. %(email)s is %(role)s from the next click on.") % words)
    return redirect("team")


@page("GET", "POST", viewers=True)
def remove(request: MemberRequest, user_id: int) -> HttpResponse:
    """Ask once more, then take a member out, or leave."""
    found = [member for member in members.list_members(request.tenant) if member.user_id == user_id]
    if not found:
        raise errors.NotFound(_("This person is not a member of the organisation."), code="member_not_found")
    leaving = user_id == request.user.pk
    if request.method == "POST":
        members.remove_member(request.tenant, user_id)
        words = {"email": found[0].user.email, "tenant": request.tenant.slug}
        messages.success(request, (_("You left %(tenant)s.") if leaving else _("%(email)s is removed.")) % words)
        to = "overview" if leaving else "team"
        return HttpResponseClientRedirect(f"/{'' if leaving else 'team'}") if request.htmx else redirect(to)
    context = {"member": found[0], "leaving": leaving, "section": "team"}
    return render(request, "parts/remove_member.html" if request.htmx else "remove_member.html", context)


@page("GET", "POST")
def transfer(request: MemberRequest) -> HttpResponse:
    """Hand the organisation over: the other becomes an owner, who does it an admin."""
    if Permission.OWNERS not in current_actor().permissions:
        raise errors.Forbidden(_("Only an owner can hand the organisation over."), code="role_forbids")
    people = [member for member in members.list_members(request.tenant) if member.user_id != request.user.pk]
    chosen = next((member for member in people if str(member.user_id) == request.POST.get("user")), None)
    if request.method == "POST" and chosen:
        members.transfer_ownership(request.tenant, from_user=request.user, to_user_id=chosen.user_id)
        messages.success(request, _("%(email)s is an owner now, and you are an admin.") % {"email": chosen.user.email})
        return redirect("team")
    return render(request, "transfer.html", {"people": people, "section": "team"}, status=422 if request.method == "POST" else 200)


@page("POST")
def second_factor(request: MemberRequest) -> HttpResponse:
    """Say whether everybody here needs a second factor."""
    needed = request.POST.get("require_mfa") == "on"
    if needed and not has_second_factor(request.user):
        messages.error(request, _("Set up a second factor for yourself first, or you would lock yourself out."))
        return redirect("team")
    services.change_tenant(request.tenant, require_mfa=needed)
    messages.success(request, _("Everybody needs a second factor now.") if needed else _("A second factor is everybody's own choice now."))
    return redirect("team")
