"""How allauth.mfa behaves here: secrets are sealed before they are stored, passkeys belong to this server's name."""

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from allauth.core import context
from allauth.mfa.adapter import DefaultMFAAdapter
from django.conf import settings
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from maas.sealing import seal, unseal


class MfaAdapter(DefaultMFAAdapter):
    error_messages = {
        **DefaultMFAAdapter.error_messages,
        "unverified_email": _("Confirm your e-mail addresses first, so that nobody can lock you out of an account in your name."),
        "add_email_blocked": _("Remove the second factors first: a new address could be used to get around them."),
        "incorrect_code": _("That did not work. A code works once and for about a minute; a passkey only on this server's address."),
    }

    def encrypt(self, text: str) -> str:
        return seal(text)

    def decrypt(self, encrypted_text: str) -> str:
        return unseal(encrypted_text)

    def get_public_key_credential_rp_entity(self) -> dict[str, str]:
        return {"id": relying_party(), "name": "maas"}

    def get_totp_issuer(self) -> str:
        return f"maas ({relying_party()})"

    def generate_authenticator_name(self, user: Any, type: Any) -> str:
        number = user.authenticator_set.filter(type=type).count() + 1
        return gettext("Passkey %(number)d") % {"number": number}


def relying_party() -> str:
    """The name that passkeys are bound to: the host of MAAS_URL if the request came to it or below it, else the request's own."""
    host = urlsplit(f"//{context.request.get_host()}").hostname or ""
    public = urlsplit(settings.MAAS_URL).hostname or host
    return public if host == public or host.endswith("." + public) else host


def can_have_passkeys() -> bool:
    """Browsers bind passkeys to names, so none can be made while the dashboard is open under an IP address."""
    try:
        ipaddress.ip_address(relying_party())
    except ValueError:
        return True
    return False
