"""Tenants and who belongs to them; keys.py, members.py and invitations.py hold what else there is of accounts."""

import re
from uuid import UUID

from django.db import IntegrityError, connection
from django.utils.translation import gettext as _

from apps.accounts.models import ApiKey, Membership, Role, Tenant, User
from apps.accounts.roles import user_actor
from maas import errors
from maas.actors import Actor, Permission, acting, current_actor, require
from maas.events import TenantChanged, TenantCreated, publish
from maas.tenancy import as_tenant, as_user

__all__ = ["ApiKey", "Membership", "Role", "Tenant", "User"]  # what the layers above may name

SLUG = re.compile(r"[a-z0-9][a-z0-9-]{1,39}")
RESERVED = {"admin", "api", "maas", "shared", "system", "www"}


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
        with as_tenant(tenant.id), acting(_owner_to_be(user, tenant)):
            tenant.save(force_insert=True)
            Membership.objects.create(tenant=tenant, user=user, role=Role.OWNER)
            publish(TenantCreated(tenant_id=tenant.id, user_id=user.pk, label=slug, after={"name": name, "slug": slug, "plan": plan}))
    except IntegrityError:
        message = _("%(slug)s is taken. If it is yours, ask its owner to add you.") % {"slug": slug}
        raise errors.BadRequest(message, param="organisation", code="taken") from None
    return tenant


def _owner_to_be(user: User, tenant: Tenant) -> Actor:
    """At sign-up nobody is signed in yet, but it is known who will be."""
    before = current_actor()
    owner = Membership(tenant=tenant, user=user, role=Role.OWNER)
    return user_actor(user, owner, address=before.address, request_id=before.request_id)


def change_tenant(tenant: Tenant, *, require_mfa: bool) -> Tenant:
    """Say whether members need a second factor to work here. Raises Forbidden unless the actor is an admin or owner."""
    require(tenant.id, Permission.ORGANISATION)
    with as_tenant(tenant.id):
        if Tenant.objects.filter(pk=tenant.pk).exclude(require_mfa=require_mfa).update(require_mfa=require_mfa):
            change = {"before": {"require_mfa": not require_mfa}, "after": {"require_mfa": require_mfa}}
            publish(TenantChanged(tenant_id=tenant.id, label=tenant.slug, **change))
        return Tenant.objects.get(pk=tenant.pk)


def list_tenants(user: User) -> list[Tenant]:
    """The organisations that a user belongs to, by name."""
    with as_user(user.pk):
        mine = Membership.objects.filter(user=user).values("tenant_id")
        return list(Tenant.objects.filter(id__in=mine).order_by("slug"))


def get_membership(user: User, tenant_id: UUID | None) -> Membership | None:
    """The user's membership of this tenant, or of their first one when none is named; its `.tenant` is loaded."""
    with as_user(user.pk):
        rows = Membership.objects.filter(user=user).select_related("tenant").order_by("created_at")
        return rows.filter(tenant_id=tenant_id).first() or rows.first() if tenant_id else rows.first()
