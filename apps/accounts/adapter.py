"""How allauth behaves here."""

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.conf import settings
from django.db import transaction
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from apps.accounts import lockout
from maas.requests import client_address

# Mails that a person waits for: when one cannot be sent, they have to be told. The others only report what was done.
AWAITED = {
    f"account/email/{name}"
    for name in ("password_reset_key", "email_confirmation", "email_confirmation_signup", "account_already_exists", "unknown_account")
}


class AccountAdapter(DefaultAccountAdapter):
    error_messages = {
        **DefaultAccountAdapter.error_messages,
        "email_password_mismatch": _("That e-mail address and password do not belong together. Try again, or reset the password."),
        "incorrect_password": _("That is not your password. Try again, or reset it."),
        "incorrect_code": _("That code is not right. Each works once and for about a minute: take the one that your app shows now."),
        "too_many_login_attempts": _("Too many wrong tries. Wait some minutes."),
        "rate_limited": _("Too many tries in a short time. Wait a minute."),
        "email_taken": _("This address belongs to an account already. Sign in with it, or reset its password."),
    }

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """Operators may close sign-up with MAAS_SIGNUP_OPEN=false; who is invited comes in all the same."""
        from apps.accounts.forms import pending_invitation  # which asks for the adapter itself

        return bool(settings.MAAS_SIGNUP_OPEN) or pending_invitation(request) is not None

    def pre_authenticate(self, request: HttpRequest, **credentials: Any) -> None:
        """Before a password is looked at, of sign-in and of proving who one is."""
        lockout.take_turns(request, credentials)
        super().pre_authenticate(request, **credentials)

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Mail leaves after the transaction: what is undone is not reported, and a slow mail server holds no locks."""
        context = {"request": self.request, "email": email, **context}
        message = self.render_mail(template_prefix, email, context)
        transaction.on_commit(message.send, robust=template_prefix not in AWAITED)

    def get_client_ip(self, request: HttpRequest) -> str:
        """The caller's address as every other part sees it; 0.0.0.0 where there is none, as on a socket file."""
        return client_address(request) or "0.0.0.0"  # noqa: S104  # nothing is bound

    def get_reauthentication_methods(self, user: Any) -> list[dict[str, Any]]:
        """allauth's ways, in our words."""
        words = {
            "reauthenticate": _("Use the password"),
            "mfa_reauthenticate": _("Use a code from the app"),
            "mfa_reauthenticate:webauthn": _("Use a passkey"),
        }
        return [{**way, "description": words.get(way["id"], way["description"])} for way in super().get_reauthentication_methods(user)]
