"""What a person proves beside the password: an authenticator app or a passkey; recovery codes stand in for either."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from allauth.mfa.models import Authenticator

from apps.accounts.models import User

FACTORS = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)


@dataclass(frozen=True)
class Passkey:
    """`alone`: whether it signs in without a password."""

    id: int
    name: str
    alone: bool
    added: datetime
    used: datetime | None


@dataclass(frozen=True)
class SecondFactors:
    """`app_since` is None without an authenticator app, `codes_left` None where no recovery codes were made."""

    app_since: datetime | None
    app_used: datetime | None
    passkeys: list[Passkey]
    codes_left: int | None

    def __bool__(self) -> bool:
        return bool(self.app_since or self.passkeys)


def has_second_factor(user: User) -> bool:
    """Whether signing in as this person takes more than a password. Recovery codes alone do not count."""
    return bool(have_second_factor([user.pk]))


def have_second_factor(user_ids: list[int]) -> set[int]:
    """Those of several people who have one."""
    return set(Authenticator.objects.filter(user_id__in=user_ids, type__in=FACTORS).values_list("user_id", flat=True))


def list_second_factors(user: User) -> SecondFactors:
    """All that this person has set up, passkeys by age."""
    rows = list(Authenticator.objects.filter(user_id=user.pk).order_by("created_at"))
    one: dict[Any, Authenticator] = {row.type: row for row in rows}
    app, codes = one.get(Authenticator.Type.TOTP), one.get(Authenticator.Type.RECOVERY_CODES)
    return SecondFactors(
        app_since=app.created_at if app else None,
        app_used=app.last_used_at if app else None,
        passkeys=[_passkey(row) for row in rows if row.type == Authenticator.Type.WEBAUTHN],
        codes_left=len(codes.wrap().get_unused_codes()) if codes else None,
    )


def _passkey(row: Authenticator) -> Passkey:
    key = row.wrap()
    return Passkey(row.pk, key.name, key.is_passwordless is True, row.created_at, row.last_used_at)
