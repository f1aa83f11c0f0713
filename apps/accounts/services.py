"""Tenants, members and API keys: the one way to read and change them."""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from apps.accounts import secrets
from apps.accounts.models import ApiKey, Membership, Role, Tenant, User
from maas import errors, ids
from maas.events import KeyCreated, KeyRevoked, TenantCreated, publish
from maas.tenancy import as_tenant, as_user

SCOPES = ("predict", "files", "jobs", "models", "usage", "keys", "webhooks")
ENDED = {"revoked": "key_revoked", "expired": "key_expired"}
KEY_LIMIT = 100  # live keys of one tenant
SLUG = re.compile(r"[a-z0-9][a-z0-9-]{1,39}")
RESERVED = {"admin", "api", "maas", "shared", "system", "www"}


@dataclass(frozen=True)
class Caller:
    """Who a valid key speaks for."""

    tenant: Tenant
    key: ApiKey


# ---------- tenants and members ----------
def check_slug(slug: str) -> str:
    """The slug, if it can be an organisation's name; BadRequest says what it must look like."""
    if not SLUG.fullmatch(slug) or slug in RESERVED:
        raise errors.BadRequest(_("Use 2 to 40 small letters, digits and hyphens."), param="organisation", code="invalid_slug")
    return slug


def slug_taken(slug: str) -> bool:
    """Whether any organisation has this slug."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT maas_slug_taken(%s)", [slug])
        return bool(cursor.fetchone()[0])


def create_tenant(user: User, *, name: str, slug: str, plan: str = "free") -> Tenant:
    """A new organisation that `user` owns.

    Raises BadRequest when the slug cannot be used or is taken.
    """
    tenant = Tenant(name=name, slug=check_slug(slug), plan=plan)
    try:
        with as_tenant(tenant.id):
            tenant.save(force_insert=True)
            Membership.objects.create(tenant=tenant, user=user, role=Role.OWNER)
            publish(TenantCreated(tenant_id=tenant.id, user_id=user.pk))
    except IntegrityError:
        message = _("%(slug)s is taken. If it is yours, ask its owner to add you.") % {"slug": slug}
        raise errors.BadRequest(message, param="organisation", code="taken") from None
    return tenant


def add_member(tenant: Tenant, *, user: User, role: str) -> Membership:
    """Let a user into an organisation."""
    with as_tenant(tenant.id):
        return Membership.objects.create(tenant=tenant, user=user, role=role)


def list_tenants(user: User) -> list[Tenant]:
    """The organisations that a user belongs to, by name."""
    with as_user(user.pk):
        return list(Tenant.objects.order_by("slug"))


def get_membership(user: User, tenant_id: UUID | None) -> Membership | None:
    """The user's membership of this tenant, or of their first one when none is named; its `.tenant` is loaded."""
    with as_user(user.pk):
        rows = Membership.objects.filter(user=user).select_related("tenant").order_by("created_at")
        return rows.filter(tenant_id=tenant_id).first() or rows.first() if tenant_id else rows.first()


# ---------- keys ----------
def create_key(
    tenant: Tenant, *, name: str, scopes: list[str], expires_at: datetime | None = None, created_by: User | None = None
) -> tuple[ApiKey, str]:
    """A new key and its secret, which nobody can see again.

    Raises BadRequest for a name, scope or expiry that does not fit, and at 100 live keys.
    """
    _check_key(name, scopes, expires_at)
    secret = secrets.make_secret()
    with as_tenant(tenant.id):
        Tenant.objects.select_for_update().get(pk=tenant.pk)  # two requests at once must not pass the limit together
        if ApiKey.objects.filter(tenant=tenant, revoked_at=None).count() >= KEY_LIMIT:
            raise errors.BadRequest(_("An organisation can have %(n)d keys. Revoke one first.") % {"n": KEY_LIMIT}, code="key_limit")
        key = ApiKey.objects.create(
            tenant=tenant, name=name.strip(), hash=secrets.digest(secret), last4=secret[-4:],
            scopes=sorted(set(scopes), key=SCOPES.index), expires_at=expires_at, created_by=created_by,
        )  # fmt: skip
        publish(KeyCreated(tenant_id=tenant.id, key_id=key.id))
    return key, secret


def _check_key(name: str, scopes: list[str], expires_at: datetime | None) -> None:
    if not name.strip() or len(name) > 80:
        raise errors.BadRequest(_("Give the key a name of 1 to 80 characters."), param="name", code="invalid_value")
    if not scopes or (unknown := set(scopes) - set(SCOPES)):
        extra = _("'%(scope)s' is not a scope. ") % {"scope": sorted(unknown)[0]} if scopes else ""
        raise errors.BadRequest(extra + _("Choose from: %(scopes)s.") % {"scopes": ", ".join(SCOPES)}, param="scopes", code="invalid_value")
    if expires_at and expires_at <= timezone.now():
        raise errors.BadRequest(_("The expiry must lie in the future."), param="expires_at", code="invalid_value")


def list_keys(tenant: Tenant, *, with_revoked: bool = False) -> list[ApiKey]:
    """The tenant's keys, newest first."""
    with as_tenant(tenant.id):
        rows = ApiKey.objects.filter(tenant=tenant).select_related("created_by").order_by("-id")
        return list(rows if with_revoked else rows.filter(revoked_at=None))


def get_key(tenant: Tenant, key_id: UUID) -> ApiKey:
    """One of the tenant's keys; NotFound for any other."""
    with as_tenant(tenant.id):
        try:
            return ApiKey.objects.get(tenant=tenant, pk=key_id)
        except ApiKey.DoesNotExist:
            raise errors.NotFound(f"There is no key '{ids.encode(ids.KEY, key_id)}'.", param="id") from None


def revoke_key(tenant: Tenant, key_id: UUID) -> ApiKey:
    """Make a key useless for every request that begins after this returns. Revoking twice changes nothing."""
    with as_tenant(tenant.id):
        changed = ApiKey.objects.filter(tenant=tenant, pk=key_id, revoked_at=None).update(revoked_at=timezone.now())
        if changed:
            publish(KeyRevoked(tenant_id=tenant.id, key_id=key_id))
        return get_key(tenant, key_id)


FOUND = (
    "id", "name", "last4", "scopes", "expires_at", "revoked_at", "last_used_at", "created_at",
    "tenant_id", "tenant_name", "tenant_slug", "tenant_plan", "tenant_created_at",
)  # fmt: skip


def find_caller(secret: str) -> Caller:
    """Who this key speaks for, read from the database each time, so revocation is immediate.

    Raises Unauthenticated for a malformed, unknown, revoked or expired key, and says which of these it is.
    """
    if not secrets.looks_right(secret):
        raise errors.Unauthenticated(_("This is not a maas API key. Keys start with 'maas_' and have 51 characters."))
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM maas_find_key(%s)", [secrets.digest(secret)])
        row = cursor.fetchone()
    if row is None:
        raise errors.Unauthenticated(_("No key like this exists. Make one in the dashboard under API keys."))
    caller = _caller(dict(zip(FOUND, row, strict=True)))
    if (status := caller.key.status) != "active":
        raise errors.Unauthenticated(_("This key is %(status)s. Make a new one.") % {"status": status}, code=ENDED[status])
    _touch(caller.key)
    return caller


def _caller(found: dict[str, Any]) -> Caller:
    tenant = Tenant(**{name: found.pop(f"tenant_{name}") for name in ("id", "name", "slug", "plan", "created_at")})
    found["scopes"] = json.loads(found["scopes"])  # Django has psycopg hand JSON over as text
    return Caller(tenant, ApiKey(tenant=tenant, **found))


def _touch(key: ApiKey) -> None:
    """Note the use, at most once a minute; a lost race costs nothing."""
    now = timezone.now()
    if key.last_used_at and (now - key.last_used_at).total_seconds() < 60:
        return
    with as_tenant(key.tenant_id), transaction.atomic():
        ApiKey.objects.filter(pk=key.pk).update(last_used_at=now)
