"""API keys: made, found, changed, rotated, revoked."""

import ipaddress
import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.utils import timezone
from django.utils.translation import gettext as _

from apps.accounts import secrets
from apps.accounts.models import ApiKey, Tenant, User
from apps.accounts.restrictions import Restrictions, check_grant, check_restrictions
from maas import errors, ids
from maas.actors import Permission, bar, require
from maas.events import KeyChanged, KeyCreated, KeyRevoked, KeyRotated, publish
from maas.questions import Question, ask
from maas.tenancy import as_tenant, run_as_tenant

ENDED = {"revoked": "key_revoked", "expired": "key_expired"}
KEY_LIMIT = 100  # live keys of one tenant
GRACE, LONGEST_GRACE = timedelta(days=1), timedelta(days=30)  # that the secret before a rotation stays valid
TOUCH_SECONDS = 60  # a key's use is noted this often at most


@dataclass(frozen=True)
class Caller:
    """Who a valid key speaks for."""

    tenant: Tenant
    key: ApiKey
    aside: tuple[Any, ...] = ()  # what was asked in the same trip
    is_fading: bool = False  # by the secret before the last rotation


# ---------- making and changing ----------
def create_key(
    tenant: Tenant, *, name: str, scopes: list[str], expires_at: datetime | None = None, created_by: User | None = None,
    allowed_models: list[str] | None = None, allowed_addresses: list[str] | None = None, limits: dict[str, int | None] | None = None,
) -> tuple[ApiKey, str]:  # fmt: skip
    """A new key and its secret, which nobody can see again.

    Raises BadRequest for a name, scope, restriction or expiry that does not fit and at 100 live keys, Forbidden for more
    than the actor has itself.
    """
    require(tenant.id, Permission.KEYS)
    wanted = check_restrictions(Restrictions(name, scopes, allowed_models or [], allowed_addresses or [], expires_at, limits or {}))
    check_grant(tenant.id, wanted)
    secret = secrets.make_secret()
    with as_tenant(tenant.id):
        Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)  # two requests must not pass the limit together
        if ApiKey.objects.filter(tenant=tenant, revoked_at=None).count() >= KEY_LIMIT:
            raise errors.BadRequest(_("An organisation can have %(n)d keys. Revoke one first.") % {"n": KEY_LIMIT}, code="key_limit")
        key = ApiKey.objects.create(tenant=tenant, hash=secrets.digest(secret), last4=secret[-4:], created_by=created_by, **wanted.__dict__)
        publish(KeyCreated(tenant_id=tenant.id, key_id=key.id, label=key.name, after=wanted.as_json()))
    return key, secret


def change_key(tenant: Tenant, key_id: UUID, **changes: Any) -> ApiKey:
    """Give a live key another `name`, `scopes`, `allowed_models`, `allowed_addresses`, `limits` or `expires_at`.

    Raises as `create_key` does, and BadRequest for a key that has ended.
    """
    require(tenant.id, Permission.KEYS)
    with as_tenant(tenant.id):
        key = _lock_live(tenant, key_id)
        before = Restrictions.of(key)
        wanted = check_restrictions(Restrictions(**{**before.__dict__, **changes}), unchanged_expiry=before.expires_at)
        check_grant(tenant.id, before)
        check_grant(tenant.id, wanted)
        if wanted != before:
            ApiKey.objects.filter(pk=key.pk).update(**wanted.__dict__)
            publish(KeyChanged(tenant_id=tenant.id, key_id=key.id, label=wanted.name, before=before.as_json(), after=wanted.as_json()))
        return get_key(tenant, key_id)


def rotate_key(tenant: Tenant, key_id: UUID, *, grace: timedelta = GRACE) -> tuple[ApiKey, str]:
    """A new secret for a live key. The one before stays valid for `grace`, one older than that ends at once.

    Raises BadRequest for a grace of more than 30 days and for a key that has ended, Forbidden for one that may more than the actor.
    """
    require(tenant.id, Permission.KEYS)
    if not timedelta(0) <= grace <= LONGEST_GRACE:
        raise errors.BadRequest(_("The old secret can stay valid for 0 to 30 days."), param="grace_seconds", code="invalid_value")
    secret = secrets.make_secret()
    with as_tenant(tenant.id):
        key = _lock_live(tenant, key_id)
        check_grant(tenant.id, Restrictions.of(key))
        until = timezone.now() + grace
        ApiKey.objects.filter(pk=key.pk).update(hash=secrets.digest(secret), last4=secret[-4:], old_hash=key.hash, old_expires_at=until)
        publish(KeyRotated(tenant_id=tenant.id, key_id=key.id, label=key.name, after={"old_secret_until": until.isoformat()}))
        return get_key(tenant, key_id), secret


def revoke_key(tenant: Tenant, key_id: UUID) -> ApiKey:
    """Make a key useless for every request that begins after this returns. Revoking twice changes nothing."""
    require(tenant.id, Permission.KEYS)
    end_key(tenant.id, key_id, reason="revoked")
    return get_key(tenant, key_id)


def end_key(tenant_id: UUID, key_id: UUID, *, reason: str, details: dict[str, Any] | None = None) -> bool:
    """Revoke with both of its secrets, for whoever has checked that this may be; False when it was over already."""
    with as_tenant(tenant_id):
        live = ApiKey.objects.filter(tenant_id=tenant_id, pk=key_id, revoked_at=None)
        changed = live.update(revoked_at=timezone.now(), revoked_reason=reason)
        if changed:
            name = ApiKey.objects.values_list("name", flat=True).get(tenant_id=tenant_id, pk=key_id)
            publish(KeyRevoked(tenant_id=tenant_id, key_id=key_id, label=name, after={"reason": reason, **(details or {})}))
        return bool(changed)


def _lock_live(tenant: Tenant, key_id: UUID) -> ApiKey:
    key = ApiKey.objects.select_for_update(no_key=True).filter(tenant=tenant, pk=key_id).first()
    if key is None:
        raise _missing(key_id)
    if key.status != "active":
        raise errors.BadRequest(_("This key is %(status)s. Make a new one.") % {"status": key.status}, code=ENDED[key.status])
    return key


# ---------- looking ----------
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
            raise _missing(key_id) from None


def _missing(key_id: UUID) -> errors.NotFound:
    return errors.NotFound(_("There is no key '%(id)s'.") % {"id": ids.encode(ids.KEY, key_id)}, param="id")


# ---------- who calls ----------
FOUND = (
    "id", "name", "last4", "scopes", "allowed_models", "allowed_addresses", "limits", "old_expires_at", "expires_at", "revoked_at",
    "last_used_at", "created_at", "tenant_id", "tenant_name", "tenant_slug", "tenant_plan", "tenant_require_mfa",
    "tenant_suspended_at", "tenant_created_at",
)  # fmt: skip
JSON = ("scopes", "allowed_models", "allowed_addresses", "limits")  # Django has psycopg hand JSON over as text


TOUCH = "UPDATE accounts_apikey SET last_used_at = $2 WHERE id = $1 RETURNING id"
FIND: Question = "SELECT * FROM maas_find_key($1)", ()


def find_caller(secret: str, *, address: str = "", opening: Question = FIND) -> Caller:
    """Who this key speaks for, read from the database. Who remembers it has to compare stamps (`maas.stamps`).

    `opening` may ask for more in the same trip: its first parameter is the secret's digest, its columns begin with those of
    `maas_find_key`, the others become `Caller.aside`. Raises Unauthenticated for a malformed, unknown, revoked, rotated or
    expired key, Forbidden for an `address` that it may not be used from and while its organisation is suspended; each says
    which of these it is.
    """
    caller, is_old = look_up(secret, opening) or _unknown()
    key = caller.key
    if key.status != "active":
        raise errors.Unauthenticated(_("This key is %(status)s. Make a new one.") % {"status": key.status}, code=ENDED[key.status])
    if is_old and not key.rotating_until:
        raise errors.Unauthenticated(_("This key was rotated and its old secret has ended. Use the new one."), code="key_rotated")
    _check_address(key, address)
    if caller.tenant.suspended_at:
        raise bar("organisation_suspended")
    _touch(key)
    return replace(caller, is_fading=True) if is_old else caller


def look_up(secret: str, opening: Question = FIND) -> tuple[Caller, bool] | None:
    """The key with this secret whatever its state, and whether it is the secret before the last rotation.

    Raises Unauthenticated for a text that cannot be a key.
    """
    if not secrets.looks_right(secret):
        raise errors.Unauthenticated(_("This is not a maas API key. Keys start with 'maas_' and have 51 characters."))
    sql, others = opening
    rows = ask((sql, (secrets.digest(secret), *others)))
    return ((_same_caller if others else _caller)(rows[0][1:]), rows[0][0]) if rows else None


def _unknown() -> Any:
    raise errors.Unauthenticated(_("No key like this exists. Make one in the dashboard under API keys."))


def _caller(row: tuple[Any, ...]) -> Caller:
    found = dict(zip(FOUND, row, strict=False))
    own = ("id", "name", "slug", "plan", "require_mfa", "suspended_at", "created_at")
    tenant = Tenant(**{name: found.pop(f"tenant_{name}") for name in own})
    found.update({name: json.loads(found[name]) for name in JSON})
    return Caller(tenant, ApiKey(tenant=tenant, **found), row[len(FOUND) :])


_same_caller = lru_cache(maxsize=1024)(_caller)  # who asks for more calls a model, which changes neither tenant nor key


def _check_address(key: ApiKey, address: str) -> None:
    if not key.allowed_addresses:
        return
    if address and any(ipaddress.ip_address(address) in ipaddress.ip_network(network) for network in key.allowed_addresses):
        return
    message = _("This key may not be used from %(address)s. An admin can change its addresses.")
    raise errors.Forbidden(message % {"address": address or _("an unknown address")}, code="address_not_allowed")


def _touch(key: ApiKey) -> None:
    """Note the use, at most once a minute; a lost race costs nothing."""
    if is_touched(key):
        return
    key.last_used_at = timezone.now()
    run_as_tenant(key.tenant_id, (TOUCH, [key.pk, key.last_used_at]))


def is_touched(key: ApiKey) -> bool:
    """Whether the last use that was noted is young enough."""
    return bool(key.last_used_at and (timezone.now() - key.last_used_at).total_seconds() < TOUCH_SECONDS)
