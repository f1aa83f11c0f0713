"""What happens to what an organisation has."""

from dataclasses import dataclass
from uuid import UUID

from maas import ids
from maas.events.base import Event


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


class FileDeleted(FileEvent):
    """Somebody deleted a file."""

    name = "file.deleted"


class FileExpired(FileEvent):
    """A file was kept as long as was asked for, and is gone."""

    name = "file.expired"


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
