"""What sign-up asks beyond allauth's e-mail address and password."""

from typing import Any

from django import forms
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from apps.accounts import services
from maas import errors


class OrganisationForm(forms.Form):
    """The organisation that is made with the account."""

    organisation = forms.SlugField(label=_("Organisation"), min_length=2, max_length=40)

    def clean_organisation(self) -> str:
        slug: str = self.cleaned_data["organisation"]
        try:
            services.check_slug(slug)
        except errors.BadRequest as error:
            raise forms.ValidationError(error.message) from None
        if services.slug_taken(slug):
            raise forms.ValidationError(_("%(slug)s is taken. If it is yours, ask its owner to add you."), params={"slug": slug})
        return slug

    def signup(self, request: HttpRequest, user: services.User) -> None:
        """Called by allauth once the user is saved, in the same transaction (see the adapter)."""
        services.create_tenant(user, name=self.cleaned_data["organisation"], slug=self.cleaned_data["organisation"])

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["organisation"].error_messages["invalid"] = _("Use 2 to 40 small letters, digits and hyphens.")
