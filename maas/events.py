"""Facts that other parts may want to hear of.

A service publishes a fact inside its transaction; audit and webhooks subscribe in their `AppConfig.ready`, so what
they write commits or rolls back with the fact itself.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar
from uuid import UUID

from django.db import connection

from maas import ids


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a tenant.

    `name` is what the audit log and webhooks call it, `target` the thing it happened to as the API spells its id, `label`
    what people call that thing. `before` and `after` hold what changed, as JSON, never a secret. `result` is `ok` or `refused`.
    """

    tenant_id: UUID
    label: str = ""
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    name: ClassVar[str] = "event"
    result: ClassVar[str] = "ok"

    @property
    def target(self) -> str:
        return f"org_{self.tenant_id.hex}"

    def data(self) -> dict[str, Any]:
        """What a webhook carries of it."""
        return {"id": self.target}


# ---------- organisations and their people ----------
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


# ---------- keys ----------
@dataclass(frozen=True, kw_only=True)
class KeyEvent(Event):
    key_id: UUID

    @property
    def target(self) -> str:
        return ids.encode(ids.KEY, self.key_id)


class KeyCreated(KeyEvent):
    name = "key.created"


class KeyChanged(KeyEvent):
    name = "key.changed"


class KeyRotated(KeyEvent):
    name = "key.rotated"


class KeyRevoked(KeyEvent):
    """`after["reason"]` is revoked or leaked."""

    name = "key.revoked"


# ---------- webhooks and audit ----------
@dataclass(frozen=True, kw_only=True)
class EndpointEvent(Event):
    endpoint_id: UUID

    @property
    def target(self) -> str:
        return ids.encode(ids.WEBHOOK, self.endpoint_id)


class EndpointCreated(EndpointEvent):
    name = "webhook.created"


class EndpointChanged(EndpointEvent):
    name = "webhook.changed"


class EndpointDeleted(EndpointEvent):
    name = "webhook.deleted"


class EndpointDisabled(EndpointEvent):
    """Switched off because it failed for days."""

    name = "webhook.disabled"


class SecretRotated(EndpointEvent):
    name = "webhook.secret_rotated"


class DeliveryReplayed(EndpointEvent):
    """`after["delivery"]` is sent once more."""

    name = "webhook.replayed"


class AuditExported(Event):
    name = "audit.exported"


class AuditPruned(Event):
    """Entries older than the plan keeps are gone; `after` says up to which one, and its hash."""

    name = "audit.pruned"


# ---------- files and jobs ----------
@dataclass(frozen=True, kw_only=True)
class FileEvent(Event):
    file_id: UUID

    @property
    def target(self) -> str:
        return ids.encode(ids.FILE, self.file_id)


class FileCreated(FileEvent):
    name = "file.created"


@dataclass(frozen=True, kw_only=True)
class FileDeleted(FileEvent):
    """A file is gone for its tenant; `reason` is deleted or expired."""

    reason: str
    name = "file.deleted"


@dataclass(frozen=True, kw_only=True)
class BatchEvent(Event):
    job_id: UUID

    @property
    def target(self) -> str:
        return ids.encode(ids.BATCH, self.job_id)


class BatchCreated(BatchEvent):
    name = "batch.created"


class BatchCancelling(BatchEvent):
    """Somebody asked for the end; `batch.cancelled` follows once it is reached."""

    name = "batch.cancelling"


class BatchCompleted(BatchEvent):
    name = "batch.completed"


class BatchFailed(BatchEvent):
    name = "batch.failed"


class BatchCancelled(BatchEvent):
    name = "batch.cancelled"


class BatchExpired(BatchEvent):
    name = "batch.expired"


# ---------- money and limits ----------
class TenantSuspended(Event):
    """The operator stopped the organisation; `after["reason"]` says why."""

    name = "tenant.suspended"


class TenantResumed(Event):
    name = "tenant.resumed"


class ImpersonationStarted(Event):
    """An operator looks at the organisation as its members do; `after["reason"]` says why."""

    name = "operator.entered"


class ImpersonationEnded(Event):
    name = "operator.left"


class PlanChanged(Event):
    """`before` and `after` hold `plan`; `after["from"]` is the day from which it holds when that is to come."""

    name = "billing.plan_changed"


class BudgetChanged(Event):
    """A budget was set or taken away (`after` None); `label` says whose it is."""

    name = "billing.budget_changed"


@dataclass(frozen=True, kw_only=True)
class BudgetReached(Event):
    """A part of a budget is spent. `facts` is what a webhook carries: scope, subject, period, threshold, spent and amount."""

    facts: dict[str, Any]
    name = "budget.threshold"

    def data(self) -> dict[str, Any]:
        """`object`, `scope`, `subject`, `period`, `threshold` (per cent), `spent` and `amount` (micro-dollars, or units)."""
        return {"object": "budget", **self.facts}


class CreditGranted(Event):
    """`after` holds `amount` in micro-dollars (below zero: taken back) and `reason`; a coupon's code is the `label`."""

    name = "billing.credit_granted"


class InvoiceChanged(Event):
    """An invoice was made or its state changed; `label` is its number, `after` holds `state` and `total` in cents."""

    name = "billing.invoice_changed"


class PaymentOverdue(Event):
    """A payment failed. `after["until"]`: calls are refused from then on unless it is made."""

    name = "billing.payment_overdue"


class PaymentMade(Event):
    name = "billing.payment_made"


_subscribers: dict[type[Event], list[Callable[[Event], None]]] = defaultdict(list)


def subscribe(kind: type[Event], function: Callable[[Event], None]) -> None:
    """Call `function` with every event of this kind (`Event` itself: with every event)."""
    if function not in _subscribers[kind]:
        _subscribers[kind].append(function)


def publish(event: Event) -> None:
    """Tell the subscribers, in the publisher's transaction.

    Raises RuntimeError outside of a transaction: what a subscriber writes could outlive a fact that was undone.
    """
    if not connection.in_atomic_block:
        raise RuntimeError(f"{type(event).__name__} was published outside of a transaction.")
    for kind in type(event).__mro__:
        for function in _subscribers.get(kind, []):
            function(event)
