"""What sign-up asks beyond allauth's e-mail address and password."""

from typing import Any

from allauth.account.adapter import get_adapter
from allauth.core import context
from django import forms
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from apps.accounts import invitations, services
from apps.accounts.models import Invitation
from maas import errors

INVITATION = "invitation"  # the secret of the invitation whose link this session has followed


def pending_invitation(request: HttpRequest) -> Invitation | None:
    """The invitation whose link was followed in this session, while it is open."""
    secret = request.session.get(INVITATION)
    try:
        return invitations.find_invitation(secret) if secret else None
    except errors.MaasError:
        return None


def remember_invitation(request: HttpRequest, invitation: Invitation, secret: str) -> None:
    """Let sign-up in this session take the invitation. Its link came by mail, so the address needs no other confirmation."""
    request.session[INVITATION] = secret
    get_adapter().stash_verified_email(request, invitation.email)


class OrganisationForm(forms.Form):
    """The organisation that is made with the account; whoever was invited joins theirs instead and makes none."""

    organisation = forms.SlugField(label=_("Organisation"), min_length=2, max_length=40)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["organisation"].error_messages["invalid"] = _("Use 2 to 40 small letters, digits and hyphens.")
        self.invitation = pending_invitation(context.request) if context.request else None
        if self.invitation:
            del self.fields["organisation"]

    def clean_organisation(self) -> str:
        slug: str = self.cleaned_data["organisation"]
        try:
            services.check_slug(slug)
        except errors.BadRequest as error:
            raise forms.ValidationError(error.message) from None
        if services.slug_taken(slug):
            raise forms.ValidationError(_("%(slug)s is taken. If it is yours, ask its owner to add you."), params={"slug": slug})
        return slug

    def clean(self) -> dict[str, Any]:
        """An invitation is for one address."""
        found: dict[str, Any] = super().clean() or self.cleaned_data
        if self.invitation and found.get("email", "").lower() != self.invitation.email:
            message = _("The invitation is for %(email)s. Sign up with that address.")
            self.add_error("email", forms.ValidationError(message, params={"email": self.invitation.email}))
        return found

    def signup(self, request: HttpRequest, user: services.User) -> None:
        """Called by allauth once the user is saved, in the same transaction (see the adapter)."""
        if self.invitation:
            invitations.accept(user, request.session.pop(INVITATION))
        else:
            services.create_tenant(user, name=self.cleaned_data["organisation"], slug=self.cleaned_data["organisation"])
