"""How a person can sign in: addresses, password, second factors, a linked provider."""

from dataclasses import dataclass

from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from django.conf import settings

from apps.accounts.models import User
from apps.accounts.second_factor import SecondFactors, list_second_factors


@dataclass(frozen=True)
class WaysIn:
    """`linked` is the id of the link to the OpenID Connect provider, None without one; `unconfirmed` the primary address if it is."""

    unconfirmed: str
    more_addresses: int
    has_password: bool
    factors: SecondFactors
    provider: str
    linked: int | None


def list_ways_in(user: User) -> WaysIn:
    """What the account page shows."""
    link = SocialAccount.objects.filter(user_id=user.pk).first()
    return WaysIn(
        unconfirmed=unconfirmed_address(user),
        more_addresses=EmailAddress.objects.filter(user_id=user.pk, primary=False).count(),
        has_password=user.has_usable_password(),
        factors=list_second_factors(user),
        provider=settings.MAAS_OIDC_NAME if settings.MAAS_OIDC_URL else "",
        linked=link.pk if link else None,
    )


def unconfirmed_address(user: User) -> str:
    """The primary address while its owner has not confirmed it, else empty."""
    row = EmailAddress.objects.filter(user_id=user.pk, primary=True, verified=False).first()
    return row.email if row else ""
