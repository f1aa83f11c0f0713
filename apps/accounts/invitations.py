"""Invitations: a link in a mail lets one person in, once, for a week."""

import hashlib
import secrets
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, connection
from django.utils import timezone
from django.utils.translation import gettext as _

from apps.accounts.mails import mail_after_commit
from apps.accounts.members import admit, check_role, check_seats, require_for
from apps.accounts.models import Invitation, Membership, Tenant, User
from maas import errors
from maas.actors import Permission, require
from maas.events import InvitationAccepted, InvitationCreated, InvitationWithdrawn, publish
from maas.tenancy import as_tenant

LIFE = timedelta(days=7)
OPEN_LIMIT = 50  # invitations of one organisation that wait


# ---------- inviting ----------
def invite(tenant: Tenant, *, email: str, role: str, invited_by: User | None = None) -> Invitation:
    """Mail somebody a link into the organisation.

    Raises Forbidden unless the actor may give the role, BadRequest for an address that is no address, is a member or is invited.
    """
    require_for(tenant, check_role(role))
    address, secret = _check_address(email), secrets.token_urlsafe(32)
    with as_tenant(tenant.id):
        Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)
        _check_new(tenant, address)
        invitation = Invitation.objects.create(
            tenant=tenant, email=address, role=role, hash=_hash(secret), invited_by=invited_by, expires_at=timezone.now() + LIFE
        )
        publish(InvitationCreated(tenant_id=tenant.id, invitation_id=invitation.id, label=address, after={"role": role}))
        _mail(invitation, secret)
    return invitation


def send_again(tenant: Tenant, invitation_id: UUID) -> Invitation:
    """Mail a new link, good for another week; the one before ends."""
    with as_tenant(tenant.id):
        invitation = _lock_open(tenant, invitation_id)
        require_for(tenant, invitation.role)
        secret = secrets.token_urlsafe(32)
        invitation.hash, invitation.expires_at = _hash(secret), timezone.now() + LIFE
        invitation.save(update_fields=["hash", "expires_at"])
        again = {"role": invitation.role, "sent": "again"}
        publish(InvitationCreated(tenant_id=tenant.id, invitation_id=invitation.id, label=invitation.email, after=again))
        _mail(invitation, secret)
    return invitation


def withdraw(tenant: Tenant, invitation_id: UUID) -> Invitation:
    """Make the link useless."""
    with as_tenant(tenant.id):
        invitation = _lock_open(tenant, invitation_id)
        require_for(tenant, invitation.role)
        invitation.withdrawn_at = timezone.now()
        invitation.save(update_fields=["withdrawn_at"])
        publish(InvitationWithdrawn(tenant_id=tenant.id, invitation_id=invitation.id, label=invitation.email))
    return invitation


def list_open(tenant: Tenant) -> list[Invitation]:
    """Invitations that were neither accepted nor withdrawn, newest first; expired ones among them can be sent again."""
    with as_tenant(tenant.id):
        return list(Invitation.objects.filter(tenant=tenant, accepted_at=None, withdrawn_at=None).order_by("-id"))


# ---------- accepting ----------
def find_invitation(secret: str) -> Invitation:
    """The invitation behind a link, with `.tenant`.

    Raises NotFound for a link that was never made, or was replaced; BadRequest for one that was used, withdrawn or has expired, and while
    the organisation is suspended.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT tenant_id, id FROM maas_find_invitation(%s)", [_hash(secret)])
        row = cursor.fetchone()
    if row is None:
        message = _("This invitation link does not work. If you were invited again, use the link of the latest mail.")
        raise errors.NotFound(message, code="invitation_not_found")
    with as_tenant(row[0]):
        return _check_open(Invitation.objects.select_related("tenant", "invited_by").get(pk=row[1]))


def accept(user: User, secret: str) -> Membership:
    """Let the invited person in, once.

    Raises what `find_invitation` raises, Forbidden for anybody but the person with the invited address, BadRequest for a member.
    """
    found = find_invitation(secret)
    if user.email.lower() != found.email:
        words = {"invited": found.email, "email": user.email}
        message = _("The invitation is for %(invited)s; you are signed in as %(email)s. Sign in with the invited address.") % words
        raise errors.Forbidden(message, code="invitation_for_another")
    with as_tenant(found.tenant_id):
        taken = Invitation.objects.filter(pk=found.pk, hash=found.hash, accepted_at=None, withdrawn_at=None)
        if not taken.update(accepted_at=timezone.now()):
            raise _ended("accepted")
        publish(InvitationAccepted(tenant_id=found.tenant_id, invitation_id=found.pk, label=found.email))
        return _admit(found, user)


def _admit(invitation: Invitation, user: User) -> Membership:
    try:
        return admit(invitation.tenant, user=user, role=invitation.role)
    except IntegrityError:
        raise _is_member(invitation.email) from None


# ---------- checks ----------
def _check_address(email: str) -> str:
    address = email.strip().lower()
    try:
        validate_email(address)
    except ValidationError:
        raise errors.BadRequest(_("Enter an e-mail address, such as name@example.org."), param="email", code="invalid_value") from None
    return address


def _check_new(tenant: Tenant, address: str) -> None:
    if Membership.objects.filter(tenant=tenant, user__email=address).exists():
        raise _is_member(address)
    waiting = Invitation.objects.filter(tenant=tenant, accepted_at=None, withdrawn_at=None)
    if waiting.filter(email=address).exists():
        message = _("%(email)s is invited already. Send the invitation again, or withdraw it.") % {"email": address}
        raise errors.BadRequest(message, param="email", code="already_invited")
    check_seats(tenant, waiting.count() + Membership.objects.filter(tenant=tenant).count())
    if waiting.count() >= OPEN_LIMIT:
        raise errors.BadRequest(
            _("%(n)d invitations wait. Withdraw one first.") % {"n": OPEN_LIMIT}, param="email", code="invitation_limit"
        )


def _is_member(address: str) -> errors.BadRequest:
    message = _("%(email)s is in this organisation already. To give other rights, change the role.") % {"email": address}
    return errors.BadRequest(message, param="email", code="already_member")


def _lock_open(tenant: Tenant, invitation_id: UUID) -> Invitation:
    require(tenant.id, Permission.MEMBERS)
    found = Invitation.objects.select_for_update(no_key=True).filter(tenant=tenant, pk=invitation_id).first()
    if found is None:
        raise errors.NotFound(_("There is no such invitation."), code="invitation_not_found")
    if found.accepted_at or found.withdrawn_at:
        raise _ended(found.status)
    return found


def _check_open(invitation: Invitation) -> Invitation:
    if invitation.status != "open":
        raise _ended(invitation.status)
    if invitation.tenant.suspended_at:
        raise _ended("suspended")
    return invitation


def _ended(status: str) -> errors.BadRequest:
    reasons: dict[str, Any] = {
        "accepted": _("This invitation was used already. If that was you, sign in."),
        "suspended": _("This organisation is suspended just now. Ask whoever invited you, and use the link later."),
        "withdrawn": _("This invitation was withdrawn. Ask whoever invited you."),
        "expired": _("This invitation has expired: a link works for a week. Ask whoever invited you to send it again."),
    }
    return errors.BadRequest(reasons[status], code={"accepted": "invitation_used"}.get(status, f"invitation_{status}"))


def _hash(secret: str) -> bytes:
    """32 bytes of SHA-256: 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode()).digest()


def _mail(invitation: Invitation, secret: str) -> None:
    slug = invitation.tenant.slug
    who = invitation.invited_by.email if invitation.invited_by else slug
    paragraphs = [
        _("%(who)s invites you to the organisation %(tenant)s on maas, as %(role)s.")
        % {"who": who, "tenant": slug, "role": invitation.get_role_display()},
        _("Accept here within a week: %(url)s") % {"url": f"{settings.MAAS_URL}/invitations/{secret}"},
        _("If you do not know %(who)s, leave this mail alone; nothing happens.") % {"who": who},
    ]
    subject = _("Join %(tenant)s on maas") % {"tenant": slug}
    mail_after_commit(invitation.tenant_id, subject=subject, paragraphs=paragraphs, to=[invitation.email])
