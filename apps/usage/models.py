"""The ledger of usage, and the daily figures that charts read."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from maas.tenancy import TenantOwned


class Kind(models.TextChoices):
    PREDICTION = "prediction", _("Prediction")
    SLICE = "slice", _("Slice of a batch")
    VOID = "void", _("Not answered in time")
    REVERSAL = "reversal", _("Taken back")


class UsageRecord(TenantOwned):
    """One append-only line of the ledger.

    `source` names the work (a call, a slice of a job) and is unique: whoever records it first wins, and work that runs
    twice is counted once. `quantity` is what was worked on, `units` is what is charged.
    """

    source = models.CharField(max_length=120, unique=True)
    kind = models.CharField(max_length=12, choices=Kind.choices)
    model = models.CharField(max_length=120)
    version = models.IntegerField()
    unit = models.CharField(max_length=20)
    quantity = models.BigIntegerField()
    units = models.BigIntegerField()
    requests = models.IntegerField()
    key_id = models.UUIDField(null=True)
    job_id = models.UUIDField(null=True)

    class Meta:
        indexes = [models.Index(fields=["tenant", "created_at"])]


class UsageDaily(TenantOwned):
    """What a tenant used of a model with a key on a UTC day, added up from the ledger."""

    day = models.DateField()
    model = models.CharField(max_length=120)
    key_id = models.UUIDField(null=True)
    requests = models.BigIntegerField()
    quantity = models.BigIntegerField()
    units = models.BigIntegerField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "day", "model", "key_id"], nulls_distinct=False, name="one_line_a_day")]
