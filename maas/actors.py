"""Who acts: a member in a session, a key, the operator, the platform itself, or nobody yet.

The web sets the actor of each request; services ask it whether it may, and the audit log writes it down. Workers and
commands act for the platform, which may do everything. The operator is a user with the role `operator` and the few
permissions that its deeds need, in the one organisation that a deed is about.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from maas import errors


class Permission(StrEnum):
    """What an actor may change; reading needs membership alone, but for the audit log. A key's scopes are the first seven."""

    PREDICT = "predict"
    FILES = "files"
    JOBS = "jobs"
    MODELS = "models"
    USAGE = "usage"
    KEYS = "keys"
    WEBHOOKS = "webhooks"
    MEMBERS = "members"
    AUDIT = "audit"
    ORGANISATION = "organisation"
    OWNERS = "owners"
    BILLING = "billing"
    OPERATE = "operate"  # the platform's operator in one organisation: no role and no scope has it
    APPOINT = "appoint"  # who is an operator; of superusers alone


@dataclass(frozen=True)
class Actor:
    """`kind` is user, key, system or nobody; `id` is a user's number or `key_...`, `name` an e-mail address or a key's name.

    `permissions` hold in the tenant `tenant_id` and nowhere else. A key may be limited to `models` and `networks` (empty:
    all) and by `limits` a minute, and ends at `expires_at`; whatever it makes must be limited as much. `barred` is the code of
    why it may change nothing here just now, whatever its role; empty when it may.
    """

    kind: str
    id: str = ""
    name: str = ""
    role: str = ""
    tenant_id: UUID | None = None
    permissions: frozenset[str] = frozenset()
    models: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    limits: tuple[tuple[str, int], ...] = ()
    expires_at: datetime | None = None
    barred: str = ""
    address: str = ""
    request_id: str = ""


BARS = {
    "organisation_suspended": gettext_lazy(
        "This organisation is suspended by the operator: it can be read in the dashboard, no more. Its owners were told why by mail."
    ),
    "looking": gettext_lazy("You look at this organisation as its operator, which only reads. Leave it first."),
}
SYSTEM = Actor("system", name="maas")
_current: ContextVar[Actor] = ContextVar("maas_actor", default=SYSTEM)


def current_actor() -> Actor:
    """Who acts right now."""
    return _current.get()


@contextmanager
def acting(actor: Actor) -> Iterator[None]:
    """Let `actor` act in this block. It is forgotten at the end, whatever happens inside."""
    token = _current.set(actor)
    try:
        yield
    finally:
        _current.reset(token)


def set_actor(actor: Actor) -> None:
    """Name the actor of the current request once it is known; the block that began the request forgets it."""
    _current.set(actor)


def require(tenant_id: UUID, permission: Permission) -> None:
    """Raises Forbidden unless the actor may do this in this tenant. Every service that changes something begins with it."""
    actor = current_actor()
    if actor.kind == "system" or (actor.tenant_id == tenant_id and permission in actor.permissions):
        return
    if actor.barred and actor.tenant_id == tenant_id:
        raise bar(actor.barred)
    if actor.kind == "key":
        raise errors.Forbidden(_("A key with the scopes of this one cannot do that."), code="missing_scope")
    words = {"role": actor.role or _("none")}
    raise errors.Forbidden(
        _("Your role in this organisation is %(role)s, which does not allow this. An owner can change it.") % words, code="role_forbids"
    )


def is_operating(permission: Permission = Permission.OPERATE) -> bool:
    """Whether the platform's operator acts, or the platform itself."""
    actor = current_actor()
    return actor.kind == "system" or permission in actor.permissions


def require_operator(permission: Permission = Permission.OPERATE) -> None:
    """Raises Forbidden unless the platform's operator acts: for money, and for what belongs to no organisation."""
    if not is_operating(permission):
        raise errors.Forbidden(_("Only the operator of this platform may do that."), code="operator_only")


def bar(code: str) -> errors.Forbidden:
    """The error of whoever is barred for this reason."""
    return errors.Forbidden(str(BARS[code]), code=code)
