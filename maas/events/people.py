"""What happens to organisations and the people in them."""

from dataclasses import dataclass
from uuid import UUID

from maas import ids
from maas.events.base import Event


@dataclass(frozen=True, kw_only=True)
class TenantCreated(Event):
    user_id: int
    name = "tenant.created"


@dataclass(frozen=True, kw_only=True)
class TenantChanged(Event):
    name = "tenant.changed"


@dataclass(frozen=True, kw_only=True)
class UserEvent(Event):
    """About a person in the organisation: `label` is their e-mail address."""

    user_id: int

    @property
    def target(self) -> str:
        return f"user_{self.user_id}"


class MemberAdded(UserEvent):
    name = "member.added"


class MemberChanged(UserEvent):
    name = "member.role_changed"


class MemberRemoved(UserEvent):
    name = "member.removed"


class OwnershipTransferred(UserEvent):
    name = "tenant.ownership_transferred"


class SignedIn(UserEvent):
    name = "user.signed_in"


class SignInRefused(UserEvent):
    name = "user.sign_in_refused"
    result = "refused"


class UserLockedOut(UserEvent):
    name = "user.locked_out"
    result = "refused"


class SecurityChanged(UserEvent):
    """A password, an e-mail address or a second factor changed; `after["what"]` says which."""

    name = "user.security_changed"


class SessionEnded(UserEvent):
    name = "user.session_ended"


@dataclass(frozen=True, kw_only=True)
class InvitationEvent(Event):
    """`label` is the address that was invited."""

    invitation_id: UUID

    @property
    def target(self) -> str:
        return ids.encode(ids.INVITATION, self.invitation_id)


class InvitationCreated(InvitationEvent):
    name = "invitation.created"


class InvitationAccepted(InvitationEvent):
    name = "invitation.accepted"


class InvitationWithdrawn(InvitationEvent):
    name = "invitation.withdrawn"
