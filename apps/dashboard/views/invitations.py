"""The page behind an invitation's link: for whoever has it, signed in or not."""

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from apps.accounts import invitations
from apps.accounts.forms import INVITATION, remember_invitation
from apps.accounts.middleware import SESSION_KEY
from apps.dashboard.page import MemberRequest
from maas import errors


@never_cache
@require_http_methods(["GET", "POST"])
def show(request: MemberRequest, secret: str) -> HttpResponse:
    """Say who invites whom to what, then let the right person in, once."""
    try:
        invitation = invitations.find_invitation(secret)
        if request.method == "POST" and request.user.is_authenticated:
            return _join(request, secret)
    except errors.MaasError as error:
        return render(request, "invitation_refused.html", {"error": error}, status=error.status)
    signed_in = request.user.is_authenticated
    if not signed_in:
        remember_invitation(request, invitation, secret)
    fits = signed_in and request.user.email.lower() == invitation.email
    return render(request, "invitation.html", {"invitation": invitation, "signed_in": signed_in, "fits": fits})


def _join(request: MemberRequest, secret: str) -> HttpResponse:
    member = invitations.accept(request.user, secret)
    request.session.pop(INVITATION, None)
    request.session[SESSION_KEY] = str(member.tenant_id)
    messages.success(request, _("You are in %(tenant)s now.") % {"tenant": member.tenant.slug})
    return redirect("overview")
