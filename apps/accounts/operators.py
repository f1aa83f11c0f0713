"""The people who run the platform: who they are, what proves it, and what they may do."""

import time
from typing import Any

from allauth.account.app_settings import REAUTHENTICATION_TIMEOUT
from allauth.account.internal.flows.login import get_authentication_records
from allauth.mfa.models import Authenticator
from django.http import HttpRequest
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _

from apps.accounts import security_events
from apps.accounts.models import Tenant, User
from apps.accounts.second_factor import has_second_factor
from maas import errors
from maas.actors import Actor, Permission, current_actor, require_operator
from maas.events import SecurityChanged

ROLE = "operator"


def is_operator(user: Any) -> bool:
    """Whether this is an operator with a second factor: without one they are like anybody else."""
    return bool(user.is_authenticated and user.is_active and user.is_staff and has_second_factor(user))


def operator_actor(user: User, tenant: Tenant | None = None) -> Actor:
    """An operator at work on one organisation, or on none: with an operator's deeds there, and nothing that its members may do."""
    before = current_actor()
    may = {Permission.OPERATE, Permission.BILLING} | ({Permission.APPOINT} if user.is_superuser else set())
    return Actor(
        "user", id=str(user.pk), name=user.email, role=ROLE, tenant_id=tenant.id if tenant else None, permissions=frozenset(may),
        address=before.address, request_id=before.request_id,
    )  # fmt: skip


def set_operator(user: User, *, is_operator: bool) -> None:
    """Make a person an operator or take that away; it holds from their next request on and stands in their organisations' logs.

    Raises Forbidden unless a superuser or the platform acts, BadRequest when they would take it from themselves.
    """
    require_operator(Permission.APPOINT)
    if not is_operator and current_actor().id == str(user.pk):
        raise errors.BadRequest(_("Let another superuser take it from you."), param="is_staff", code="invalid_value")
    rights = {"is_staff": True} if is_operator else {"is_staff": False, "is_superuser": False}
    if User.objects.filter(pk=user.pk).exclude(is_staff=is_operator).update(**rights):
        what = "made an operator of the platform" if is_operator else "no operator of the platform any more"
        security_events.tell(user, SecurityChanged, {"what": what}, by_user=False)


# ---------- proofs ----------
def proved_second_factor(request: HttpRequest, *, within: float | None = None) -> bool:
    """Whether this session gave a second factor, in the last `within` seconds if that is given."""
    times = [record["at"] for record in get_authentication_records(request, request.user) if record.get("method") == "mfa"]
    return bool(times) and (within is None or time.time() - max(times) < within)


def proved_lately(request: HttpRequest) -> bool:
    """Whether it gave one within the last minutes: what reaches far asks for that."""
    return proved_second_factor(request, within=REAUTHENTICATION_TIMEOUT)


def where_to_prove(user: User, after: str) -> str:
    """The page that asks for a second factor once more and goes on to the address `after`."""
    has_app = Authenticator.objects.filter(user_id=user.pk, type=Authenticator.Type.TOTP).exists()
    return f"{reverse('mfa_reauthenticate' if has_app else 'mfa_reauthenticate_webauthn')}?{urlencode({'next': after})}"
