"""allauth's forms for codes of a second factor, with the lock-out in front of them and every code taken once."""

from allauth.account.adapter import get_adapter
from allauth.core import context
from allauth.core.internal.cryptokit import compare_user_code
from allauth.mfa.base import forms
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal import auth as totp
from django.db import transaction

from apps.accounts import lockout
from maas.sealing import unseal


class _Guarded:
    def clean_code(self) -> str:
        if lockout.refuses_codes(context.request, self.user):  # type: ignore[attr-defined]
            raise get_adapter().validation_error("too_many_login_attempts")
        code: str = super().clean_code()  # type: ignore[misc]
        used: Authenticator = self.authenticator  # type: ignore[attr-defined]
        if used.type == Authenticator.Type.TOTP and not take_code(used.pk, code):
            self._emit_authentication_failed(used)  # type: ignore[attr-defined]
            raise get_adapter().validation_error("incorrect_code")
        return code


class AuthenticateForm(_Guarded, forms.AuthenticateForm):
    """After the password."""


class ReauthenticateForm(_Guarded, forms.ReauthenticateForm):
    """Before a change that matters."""


def take_code(app_id: int, code: str) -> bool:
    """Whether this code of an authenticator app is newer than the last one that was taken; it then is the last one.

    RFC 6238 asks for that. allauth remembers used codes in the cache, which may be away, and for one step of three.
    """
    with transaction.atomic():
        row = Authenticator.objects.select_for_update().get(pk=app_id)
        secret = unseal(row.data["secret"])
        fitting = [
            step
            for step in totp.yield_hotp_counters_from_time()
            if compare_user_code(actual=code, expected=totp.format_hotp_value(totp.hotp_value(secret, step)))
        ]
        if not fitting or max(fitting) <= row.data.get("last_step", 0):
            return False
        row.data["last_step"] = max(fitting)
        row.save(update_fields=["data"])
    return True
