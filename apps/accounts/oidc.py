"""Signing in with the operator's OpenID Connect provider (MAAS_OIDC_URL and its companions)."""

from http import HTTPStatus
from typing import Any

from allauth.account.internal.userkit import filter_users_by_email
from allauth.account.models import EmailAddress
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from apps.accounts.forms import pending_invitation


class OidcAdapter(DefaultSocialAccountAdapter):
    """Who comes back from the provider is let in, linked or refused."""

    def authenticate_by_email(self, sociallogin: Any) -> tuple[Any, str] | None:
        """The account with the same address, if provider and we have both verified it; that one is then linked."""
        for found in sociallogin.email_addresses:
            ours = EmailAddress.objects.filter(email__iexact=found.email, verified=True).select_related("user").first()
            if found.verified is True and ours and ours.user.is_active:
                return ours.user, ours.email
        return None

    def pre_social_login(self, request: HttpRequest, sociallogin: Any) -> None:
        _check_subject(request, sociallogin.account.extra_data)
        for found in sociallogin.email_addresses:
            found.verified = found.verified is True  # a provider's "false" is a text that Python takes for true
        if not sociallogin.is_existing and sociallogin.state.get("process") != "connect":
            _check_taken(request, sociallogin)

    def is_open_for_signup(self, request: HttpRequest, sociallogin: Any) -> bool:
        """As by form; an invitation opens the door to its own address only."""
        invitation = pending_invitation(request)
        invited = invitation and any(found.verified and found.email.lower() == invitation.email for found in sociallogin.email_addresses)
        return bool(settings.MAAS_SIGNUP_OPEN or invited)

    def on_authentication_error(self, request: HttpRequest, provider: Any, **_kwargs: Any) -> None:
        """Cancelled, a lost state, a provider that does not answer: one page says that signing in did not work."""


def _check_subject(request: HttpRequest, claims: dict[str, Any]) -> None:
    """OpenID Connect Core 5.3.2: what userinfo says counts only if it is about the person in the ID token."""
    userinfo, token = claims.get("userinfo") or {}, claims.get("id_token")
    if not token or (userinfo and userinfo.get("sub") != token.get("sub")):
        raise ImmediateHttpResponse(refuse(request, _("The provider's answers are about two different people, so neither was let in.")))


def _check_taken(request: HttpRequest, sociallogin: Any) -> None:
    """An account with the same address is not given away unless both sides know that it is the same person."""
    for found in sociallogin.email_addresses:
        if filter_users_by_email(found.email):
            words = {"email": found.email, "name": settings.MAAS_OIDC_NAME}
            text = _(
                "%(email)s has an account here already, and it is not certain that it is yours: both %(name)s and this server must have "
                "confirmed the address. Sign in with your password, confirm the address, then link %(name)s on your account page."
            )
            raise ImmediateHttpResponse(refuse(request, text % words))


def refuse(request: HttpRequest, reason: str, status: int = HTTPStatus.FORBIDDEN) -> HttpResponse:
    """The page that says why signing in with the provider did not work."""
    return render(request, "socialaccount/authentication_error.html", {"reason": reason}, status=status)


# ---------- its two addresses; the provider's code is loaded when somebody comes, not with every web process ----------
def login(request: HttpRequest, provider_id: str) -> HttpResponse:
    """Go to the provider."""
    from allauth.socialaccount.providers.openid_connect import views

    return _reach(views.login, request, provider_id)


def callback(request: HttpRequest, provider_id: str) -> HttpResponse:
    """Come back from it."""
    from allauth.socialaccount.providers.openid_connect import views

    return _reach(views.callback, request, provider_id)


def _reach(view: Any, request: HttpRequest, provider_id: str) -> HttpResponse:
    import requests

    try:
        response: HttpResponse = view(request, provider_id)
    except (requests.RequestException, KeyError, ValueError):
        name = {"name": settings.MAAS_OIDC_NAME}
        return refuse(request, _("%(name)s does not answer. Try again in a minute, or sign in with a password.") % name, 502)
    return response
