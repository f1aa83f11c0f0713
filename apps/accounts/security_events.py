"""What happens to a person's account, told to every organisation that they belong to.

allauth, axes and Django send signals; here they become facts. Each organisation gets its own, in a transaction of its own
rows, in the order of their ids so that two at once cannot wait for each other. A subscriber that fails stops the request.
"""

from typing import Any

from allauth.account import signals as account
from allauth.account.internal.flows.login import get_authentication_records
from allauth.account.internal.userkit import filter_users_by_email
from allauth.mfa import signals as mfa
from allauth.mfa.models import Authenticator
from allauth.socialaccount import signals as social
from axes.signals import user_locked_out
from django.conf import settings
from django.contrib.auth import signals as auth
from django.db.models.signals import post_delete, post_save
from django.http import HttpRequest

from apps.accounts import lockout
from apps.accounts.models import Membership, User
from apps.accounts.roles import user_actor
from maas.actors import acting, current_actor
from maas.events import SecurityChanged, SessionEnded, SignedIn, SignInRefused, UserEvent, UserLockedOut, publish
from maas.tenancy import as_tenant, as_user

FACTOR_NAMES = {Authenticator.Type.TOTP: "authenticator app", Authenticator.Type.WEBAUTHN: "passkey"}


def tell(user: User, kind: type[UserEvent], after: dict[str, Any] | None = None, *, by_user: bool = True) -> None:
    """Publish this of a person in all their organisations; `by_user`: they did it themselves, else nobody known did."""
    before = current_actor()
    for member in _memberships(user):
        known = by_user and before.kind != "system"
        actor = user_actor(user, member, address=before.address, request_id=before.request_id) if known else before
        with acting(actor), as_tenant(member.tenant_id):
            publish(kind(tenant_id=member.tenant_id, user_id=user.pk, label=user.email, after=after))


def _memberships(user: User) -> list[Membership]:
    with as_user(user.pk):
        return list(Membership.objects.filter(user=user).select_related("tenant").order_by("tenant_id"))


# ---------- signing in and out ----------
def on_signed_in(request: HttpRequest, user: User, **_: Any) -> None:
    records = get_authentication_records(request, user)
    lockout.forget_codes(user)
    tell(user, SignedIn, {"with": [_way(record) for record in records] or ["sign-up"]})


def _way(record: dict[str, Any]) -> str:
    """password, totp, webauthn, recovery_codes, or what the OpenID Connect provider is called."""
    if record.get("method") == "mfa":
        return str(record.get("type"))
    return settings.MAAS_OIDC_NAME if record.get("method") == "socialaccount" else str(record.get("method"))


def on_refused(credentials: dict[str, Any], request: HttpRequest | None = None, **_: Any) -> None:
    """A try that was looked at and failed; while locked out, none is looked at."""
    if _was_locked_out(request):
        return
    what = {"with": credentials.get(lockout.FACTOR, "password")}
    for user in _users(credentials.get("email")):
        tell(user, SignInRefused, what, by_user=current_actor().kind == "user")


def on_locked_out(request: HttpRequest, username: str | None = None, **_: Any) -> None:
    if _was_locked_out(request):  # told before
        return
    name, minutes = username or "", int(settings.AXES_COOLOFF_TIME.total_seconds() // 60)
    after = {"with": "code" if name.startswith(lockout.CODE) else "password", "minutes": minutes}
    for user in _users(name.removeprefix(lockout.CODE)):
        tell(user, UserLockedOut, after, by_user=current_actor().kind == "user")


def _was_locked_out(request: HttpRequest | None) -> bool:
    """Whether this try was refused unseen, and so not counted."""
    return getattr(request, "axes_locked_out", False) and getattr(request, "axes_failures_since_start", None) is None


def _users(email: str | None) -> list[User]:
    return list(filter_users_by_email(email, prefer_verified=True)) if email else []


def on_signed_out(request: HttpRequest | None, user: User | None, **_: Any) -> None:
    if user is not None:
        tell(user, SessionEnded, {"by": "signing out"})


# ---------- changes ----------
def changed(user: User, what: str, **more: str) -> None:
    tell(user, SecurityChanged, {"what": what, **more})


def on_password_changed(user: User, **_: Any) -> None:
    changed(user, "password changed")


def on_password_set(user: User, **_: Any) -> None:
    changed(user, "password set")


def on_password_reset(user: User, **_: Any) -> None:
    lockout.forget_passwords(user)
    changed(user, "password reset by e-mail")


def on_email_added(user: User, email_address: Any, **_: Any) -> None:
    changed(user, "e-mail address added", address=email_address.email)


def on_email_removed(user: User, email_address: Any, **_: Any) -> None:
    changed(user, "e-mail address removed", address=email_address.email)


def on_email_confirmed(email_address: Any, **_: Any) -> None:
    changed(email_address.user, "e-mail address confirmed", address=email_address.email)


def on_email_changed(user: User, to_email_address: Any, **_: Any) -> None:
    changed(user, "primary e-mail address changed", address=to_email_address.email)


def on_factor_saved(instance: Authenticator, created: bool, **_: Any) -> None:
    """The row itself is heard, not allauth's signals: some of those come only after the transaction."""
    if not created:
        return
    if instance.type == Authenticator.Type.RECOVERY_CODES:
        changed(instance.user, "recovery codes made")
    else:
        changed(instance.user, f"{FACTOR_NAMES[instance.type]} added", **_name(instance))  # type: ignore[index]


def on_factor_deleted(instance: Authenticator, **_: Any) -> None:
    if instance.type in FACTOR_NAMES:
        changed(instance.user, f"{FACTOR_NAMES[instance.type]} removed", **_name(instance))  # type: ignore[index]


def _name(instance: Authenticator) -> dict[str, str]:
    return {"name": instance.wrap().name} if instance.type == Authenticator.Type.WEBAUTHN else {}


def on_linked(sociallogin: Any, **_: Any) -> None:
    changed(sociallogin.user, f"sign-in with {settings.MAAS_OIDC_NAME} linked")


def on_unlinked(socialaccount: Any, **_: Any) -> None:
    changed(socialaccount.user, f"sign-in with {settings.MAAS_OIDC_NAME} unlinked")


def on_wrong_code(request: HttpRequest, user: User, **_: Any) -> None:
    lockout.code_failed(request, user)


HEARD = [
    (account.user_logged_in, on_signed_in),
    (auth.user_login_failed, on_refused),
    (user_locked_out, on_locked_out),
    (auth.user_logged_out, on_signed_out),
    (account.password_changed, on_password_changed),
    (account.password_set, on_password_set),
    (account.password_reset, on_password_reset),
    (account.email_added, on_email_added),
    (account.email_removed, on_email_removed),
    (account.email_confirmed, on_email_confirmed),
    (account.email_changed, on_email_changed),
    (social.social_account_added, on_linked),
    (social.social_account_removed, on_unlinked),
    (mfa.authentication_failed, on_wrong_code),
]


def listen() -> None:
    """Called once, when all apps are ready."""
    for signal, receiver in HEARD:
        signal.connect(receiver, dispatch_uid=receiver.__name__)
    post_save.connect(on_factor_saved, sender=Authenticator, dispatch_uid="factor_saved")
    post_delete.connect(on_factor_deleted, sender=Authenticator, dispatch_uid="factor_deleted")
