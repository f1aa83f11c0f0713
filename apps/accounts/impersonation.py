"""An operator looks at an organisation as a viewer would: with a reason, for an hour at most, and written down there.

The row is what counts. A session only names it, and it has to be of the same person and the same session, so a session
that somebody made up leads nowhere.
"""

import hashlib
from datetime import datetime, timedelta
from uuid import UUID

from django.contrib.auth.signals import user_logged_out
from django.http import HttpRequest
from django.utils import timezone

from apps.accounts.models import Membership, Role, Tenant, User, Visit
from apps.accounts.operators import ROLE, is_operator
from apps.accounts.suspension import check_reason
from maas import errors
from maas.actors import Actor, Permission, acting, bar, current_actor, require
from maas.events import ImpersonationEnded, ImpersonationStarted, publish
from maas.tenancy import SystemUse, as_system, as_tenant

LONGEST = timedelta(minutes=60)
SESSION_KEY = "visit"  # of the session: the organisation's and the visit's id
SAFE = ("GET", "HEAD", "OPTIONS")
OWN = ("/operator/", "/accounts/logout/", "/accounts/2fa/reauthenticate/", "/accounts/2fa/webauthn/reauthenticate/")


# ---------- entering and leaving ----------
def start_visit(tenant: Tenant, *, user: User, session_key: str, reason: str) -> Visit:
    """Let an operator look at the organisation from this session.

    Raises Forbidden unless an operator with a second factor acts, BadRequest without a reason of at most 300 characters.
    """
    require(tenant.id, Permission.OPERATE)
    if not is_operator(user) or not session_key:
        raise errors.Forbidden("Only an operator with a second factor may do that.", code="operator_only")
    reason = check_reason(reason)
    with as_tenant(tenant.id):
        visit = Visit.objects.create(tenant=tenant, user=user, reason=reason, session=_digest(session_key))
        after = {"reason": reason, "until": until(visit).isoformat(timespec="seconds")}
        publish(ImpersonationStarted(tenant_id=tenant.id, label=user.email, after=after))
    return visit


def end_visit(tenant_id: UUID, visit_id: UUID, *, why: str) -> bool:
    """End it for good; False when it had ended before. Whoever holds the session, a sweep, or a sign-out calls this."""
    with as_tenant(tenant_id):
        if not Visit.objects.filter(pk=visit_id, tenant_id=tenant_id, ended_at=None).update(ended_at=timezone.now()):
            return False
        visit = Visit.objects.select_related("user").get(pk=visit_id, tenant_id=tenant_id)
        publish(ImpersonationEnded(tenant_id=tenant_id, label=visit.user.email, after={"reason": visit.reason, "ended": why}))
    return True


def end_overdue() -> int:
    """End the visits whose time is up; how many there were."""
    with as_system(SystemUse.OPERATE):
        late = list(Visit.objects.filter(ended_at=None, created_at__lte=timezone.now() - LONGEST).values_list("tenant_id", "id"))
    return sum(end_visit(tenant_id, visit_id, why="time was up") for tenant_id, visit_id in late)


def until(visit: Visit) -> datetime:
    """When the visit ends at the latest."""
    return visit.created_at + LONGEST


# ---------- requests ----------
def enter(request: HttpRequest, tenant: Tenant, *, reason: str) -> Visit:
    """Start a visit and let the request's session remember it; one that it remembered before ends."""
    leave(request, why="another was begun")
    visit = start_visit(tenant, user=request.user, session_key=request.session.session_key or "", reason=reason)  # type: ignore[arg-type]
    request.session[SESSION_KEY] = [str(tenant.id), str(visit.id)]
    return visit


def leave(request: HttpRequest, *, why: str = "left") -> None:
    """End what the request's session remembers, if that is this person's to end."""
    named = _named(request)
    request.session.pop(SESSION_KEY, None)
    visit = _find(request, *named) if named else None
    if visit:
        with acting(visitor_actor(visit)):
            end_visit(visit.tenant_id, visit.id, why=why)


def current_visit(request: HttpRequest) -> Visit | None:
    """The visit that this request belongs to, read anew each time; None once it ended, its time is up or the rights are gone."""
    named = _named(request)
    if named is None:
        return None
    visit = _find(request, *named)
    if visit and is_operator(request.user) and timezone.now() < until(visit):
        return visit
    leave(request, why="time was up" if visit and timezone.now() >= until(visit) else "not an operator any more")
    return None


def as_viewer(visit: Visit) -> Membership:
    """A membership that no table holds: what the pages show is what a viewer sees."""
    return Membership(tenant=visit.tenant, user=visit.user, role=Role.VIEWER)


def visitor_actor(visit: Visit) -> Actor:
    """The operator, who may change nothing there."""
    before = current_actor()
    return Actor(
        "user", id=str(visit.user_id), name=visit.user.email, role=ROLE, tenant_id=visit.tenant_id, barred="looking",
        address=before.address, request_id=before.request_id,
    )  # fmt: skip


def check_method(request: HttpRequest) -> None:
    """Raises Forbidden for whatever is not reading; leaving, signing out and the operator's own pages go on."""
    if request.method not in SAFE and not request.path.startswith(OWN):
        raise bar("looking")


def listen() -> None:
    """Called once, when all apps are ready."""
    user_logged_out.connect(on_signed_out, dispatch_uid="visit_ends")


def on_signed_out(request: HttpRequest | None, **_: object) -> None:
    """Django tells it before the session is gone."""
    if request is not None and hasattr(request, "session"):
        leave(request, why="signed out")


def _find(request: HttpRequest, tenant_id: UUID, visit_id: UUID) -> Visit | None:
    mine = {"user_id": request.user.pk, "session": _digest(request.session.session_key or "")}
    with as_tenant(tenant_id):
        rows = Visit.objects.filter(pk=visit_id, tenant_id=tenant_id, ended_at=None, **mine)
        return rows.select_related("tenant", "user").first()


def _named(request: HttpRequest) -> tuple[UUID, UUID] | None:
    """What the session names; None for nothing, and for anything that it cannot have got from here."""
    try:
        tenant_id, visit_id = request.session.get(SESSION_KEY) or (None, None)
        return UUID(tenant_id), UUID(visit_id)
    except (ValueError, TypeError, AttributeError):
        return None


def _digest(session_key: str) -> bytes:
    return hashlib.sha256(session_key.encode()).digest()
