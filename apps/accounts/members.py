"""The people of an organisation and their roles."""

from django.utils.translation import gettext as _

from apps.accounts.models import Membership, Role, Tenant, User
from maas import errors
from maas.actors import Permission, current_actor, require
from maas.events import MemberAdded, MemberChanged, MemberRemoved, OwnershipTransferred, publish
from maas.tenancy import as_tenant

# People by plan, None: any number. Plans belong to billing, which lies above and declares them here at the start.
SEATS: dict[str, int | None] = {}


def declare_seats(seats: dict[str, int | None]) -> None:
    """Say how many members each plan has room for, None: any number."""
    SEATS.update(seats)


def seats_of(tenant: Tenant) -> int | None:
    """How many members the organisation has room for; None for any number, as for a plan that nobody knows."""
    return SEATS.get(tenant.plan)


def check_seats(tenant: Tenant, taken: int) -> None:
    """Raises BadRequest when no seat is free beside those taken."""
    seats = seats_of(tenant)
    if seats is not None and taken >= seats:
        message = _(
            "The plan has room for %(n)d people, invited ones included. Remove somebody, withdraw an invitation, or change the plan."
        )
        raise errors.BadRequest(message % {"n": seats}, param="email", code="member_limit")


def admit(tenant: Tenant, *, user: User, role: str) -> Membership:
    """Let a user into an organisation, for whoever has checked that this may be, as an invitation does."""
    with as_tenant(tenant.id):
        Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)
        check_seats(tenant, Membership.objects.filter(tenant=tenant).count())
        member = Membership.objects.create(tenant=tenant, user=user, role=check_role(role))
        publish(MemberAdded(tenant_id=tenant.id, user_id=user.pk, label=user.email, after={"role": role}))
    return member


def list_members(tenant: Tenant) -> list[Membership]:
    """Who belongs to the organisation, in the order of joining, each with `.user`."""
    with as_tenant(tenant.id):
        return list(Membership.objects.filter(tenant=tenant).select_related("user").order_by("created_at"))


def addresses_of(tenant: Tenant, *roles: str) -> list[str]:
    """The e-mail addresses of the members with these roles."""
    return [member.user.email for member in list_members(tenant) if member.role in roles]


def change_role(tenant: Tenant, user_id: int, *, role: str) -> Membership:
    """Give a member another role. Raises Forbidden unless the actor may give and take both, BadRequest for the last owner."""
    with as_tenant(tenant.id):
        member = _lock(tenant, user_id)
        before, role = member.role, check_role(role)
        require_for(tenant, before)
        require_for(tenant, role)
        if role == before:
            return member
        _keep_an_owner(tenant, member)
        member.role = role
        member.save(update_fields=["role"])
        publish(_changed(member, before))
    return member


def remove_member(tenant: Tenant, user_id: int) -> None:
    """Take a member out; with their next request they see nothing of the organisation. Everybody may leave themselves.

    Raises Forbidden and BadRequest as `change_role` does. Keys that the member made stay: they belong to the organisation.
    """
    with as_tenant(tenant.id):
        member = _lock(tenant, user_id)
        actor = current_actor()
        if not (actor.kind == "user" and actor.id == str(user_id) and actor.tenant_id == tenant.id):
            require_for(tenant, member.role)
        _keep_an_owner(tenant, member)
        member.delete()
        publish(MemberRemoved(tenant_id=tenant.id, user_id=user_id, label=member.user.email, before={"role": member.role}))


def transfer_ownership(tenant: Tenant, *, from_user: User, to_user_id: int) -> None:
    """Make another member an owner and `from_user` an admin, both or none. Raises Forbidden unless the actor is an owner."""
    require(tenant.id, Permission.OWNERS)
    with as_tenant(tenant.id):
        target, own = _lock(tenant, to_user_id), _lock(tenant, from_user.pk)
        if own.role != Role.OWNER or own.pk == target.pk:
            raise errors.BadRequest(_("An owner hands the organisation over to another member."), param="user", code="invalid_value")
        was = target.role
        Membership.objects.filter(pk=target.pk).update(role=Role.OWNER)
        Membership.objects.filter(pk=own.pk).update(role=Role.ADMIN)
        publish(
            OwnershipTransferred(
                tenant_id=tenant.id, user_id=to_user_id, label=target.user.email,
                before={"owner": from_user.email, "role": was}, after={"owner": target.user.email, "former_owner": Role.ADMIN.value},
            )
        )  # fmt: skip


def check_role(role: str) -> str:
    """The role, or BadRequest that lists them."""
    if role not in Role.values:
        raise errors.BadRequest(_("Choose a role: %(roles)s.") % {"roles": ", ".join(Role.values)}, param="role", code="invalid_value")
    return role


def require_for(tenant: Tenant, role: str) -> None:
    """Raises Forbidden unless the actor may give or take this role: only owners deal with owners."""
    require(tenant.id, Permission.OWNERS if role == Role.OWNER else Permission.MEMBERS)


def _lock(tenant: Tenant, user_id: int) -> Membership:
    """The membership, with changes of the organisation's people one after the other. NotFound for anybody else."""
    Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)
    member = Membership.objects.filter(tenant=tenant, user_id=user_id).select_related("user").first()
    if member is None:
        raise errors.NotFound(_("This person is not a member of the organisation."), param="user", code="member_not_found")
    return member


def _keep_an_owner(tenant: Tenant, member: Membership) -> None:
    if member.role == Role.OWNER and not Membership.objects.filter(tenant=tenant, role=Role.OWNER).exclude(pk=member.pk).exists():
        message = _("%(email)s is the only owner. Make somebody else an owner first.") % {"email": member.user.email}
        raise errors.BadRequest(message, param="user", code="last_owner")


def _changed(member: Membership, before: str) -> MemberChanged:
    return MemberChanged(
        tenant_id=member.tenant_id, user_id=member.user_id, label=member.user.email,
        before={"role": before}, after={"role": member.role},
    )  # fmt: skip
