"""What each role may change. Reading an organisation's models, jobs, files, keys and usage needs membership alone."""

from apps.accounts.models import ApiKey, Membership, Role, User
from maas import ids
from maas.actors import Actor, Permission

DEVELOPER = frozenset(
    {Permission.PREDICT, Permission.FILES, Permission.JOBS, Permission.MODELS, Permission.USAGE, Permission.KEYS, Permission.WEBHOOKS}
)
ADMIN = DEVELOPER | {Permission.MEMBERS, Permission.AUDIT, Permission.ORGANISATION, Permission.BILLING}
MAY: dict[str, frozenset[str]] = {
    Role.VIEWER: frozenset(),
    Role.DEVELOPER: DEVELOPER,
    Role.ADMIN: ADMIN,
    Role.OWNER: ADMIN | {Permission.OWNERS},
}


# What stays while an organisation is suspended: its log tells who did that, and why.
SUSPENDED = frozenset({Permission.AUDIT})


def user_actor(user: User, membership: Membership | None, *, address: str = "", request_id: str = "") -> Actor:
    """A person, with what their role allows in the organisation they work in; without one they may change nothing in any."""
    role, tenant_id = (membership.role, membership.tenant_id) if membership else ("", None)
    suspended = bool(membership and membership.tenant.suspended_at)
    may = MAY.get(role, frozenset())
    return Actor(
        "user", id=str(user.pk), name=user.email, role=role, tenant_id=tenant_id,
        permissions=may & SUSPENDED if suspended else may, barred="organisation_suspended" if suspended else "",
        address=address, request_id=request_id,
    )  # fmt: skip


def key_actor(key: ApiKey, *, address: str = "", request_id: str = "") -> Actor:
    """A key, with what its scopes allow. The scope `keys` is the one of security, so it reads the audit log too."""
    permissions = frozenset(key.scopes) | ({Permission.AUDIT} if "keys" in key.scopes else frozenset())
    return Actor(
        "key", id=ids.encode(ids.KEY, key.id), name=key.name, tenant_id=key.tenant_id,
        permissions=permissions, models=tuple(key.allowed_models), networks=tuple(key.allowed_addresses),
        limits=tuple(key.limits.items()), expires_at=key.expires_at, address=address, request_id=request_id,
    )  # fmt: skip
