"""Tags and filters of the pages about signing in."""

from urllib.parse import quote

from django import template
from django.conf import settings

from apps.accounts import passkeys, sessions, sign_in
from apps.accounts.services import User

register = template.Library()

register.filter("device", sessions.device)
register.simple_tag(passkeys.can_have_passkeys)


@register.simple_tag
def oidc_name() -> str:
    """What the OpenID Connect provider is called; empty when there is none."""
    return settings.MAAS_OIDC_NAME if settings.MAAS_OIDC_URL else ""


@register.simple_tag
def unconfirmed_address(user: User) -> str:
    """The primary address while its owner has not confirmed it, else empty."""
    return sign_in.unconfirmed_address(user)


@register.filter
def text_file(lines: list[str]) -> str:
    """The lines as an address that downloads them, so that they are not asked for a second time."""
    return "data:text/plain;charset=utf-8," + quote("".join(f"{line}\n" for line in lines))
