"""Files: what tenants upload and what their batches write."""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from maas.tenancy import TenantOwned


class Purpose(models.TextChoices):
    BATCH = "batch", _("Input of a batch")
    FINE_TUNE = "fine-tune", _("Training data")
    VISION = "vision", _("Picture to refer to")
    BATCH_OUTPUT = "batch_output", _("Output of a batch")


class Status(models.TextChoices):
    UPLOADED = "uploaded", _("Uploaded")
    PROCESSED = "processed", _("Processed")


class File(TenantOwned):
    """Stored bytes. The body lies in storage; the row says that it is there and whole.

    A row is written before its body, without `stored_at`, and nobody sees it until the body is safe: so a body whose
    upload broke off is found by its row. A deleted row stays behind as what other rows point at; `purged_at` says
    that its body is gone.
    """

    filename = models.CharField(max_length=255)
    purpose = models.CharField(max_length=16, choices=Purpose.choices)
    bytes = models.BigIntegerField(default=0)
    sha256 = models.CharField(max_length=64, default="")
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.UPLOADED)
    expires_at = models.DateTimeField(null=True)
    stored_at = models.DateTimeField(null=True)
    deleted_at = models.DateTimeField(null=True)
    purged_at = models.DateTimeField(null=True)
    holds = models.IntegerField(default=0)  # unfinished jobs that read it; a held file cannot be deleted

    class Meta:
        indexes = [
            models.Index(fields=["tenant", "-id"], name="files_of_tenant"),
            models.Index(fields=["expires_at"], name="files_expiring", condition=Q(deleted_at=None, expires_at__isnull=False)),
            models.Index(fields=["deleted_at"], name="files_to_purge", condition=Q(deleted_at__isnull=False, purged_at=None)),
            models.Index(fields=["created_at"], name="files_unfinished", condition=Q(stored_at=None, purged_at=None)),
        ]
        constraints = [models.CheckConstraint(condition=Q(holds__gte=0), name="files_holds_not_negative")]

    def __str__(self) -> str:
        return self.filename
