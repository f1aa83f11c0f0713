"""The ledger of usage, and the roll-ups that charts and reports read."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from maas.tenancy import TenantOwned


class Kind(models.TextChoices):
    PREDICTION = "prediction", _("Prediction")
    SLICE = "slice", _("Slice of a batch")
    VOID = "void", _("Not answered in time")
    REVERSAL = "reversal", _("Taken back")


class UsageRecord(TenantOwned):
    """One append-only line of the ledger, in the partition of its month.

    `source` names the work (a call, a slice of a job) and is unique: whoever records it first wins, and work that runs
    twice is counted once. `period` is the UTC month in which that work began (`apps.usage.periods`), `created_at` when it
    was charged. `quantity` is what was worked on, `units` is what is charged.
    """

    id = None  # type: ignore[assignment]  # the source is what identifies a line
    pk = models.CompositePrimaryKey("period", "source")
    period = models.DateField()
    source = models.CharField(max_length=120)
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
        indexes = [models.Index(fields=["tenant", "created_at"], name="usage_by_time")]


class Sums(TenantOwned):
    """What a tenant used of a model with a key or for a job; `records` counts the lines of the ledger behind it."""

    model = models.CharField(max_length=120)
    unit = models.CharField(max_length=20)
    key_id = models.UUIDField(null=True)
    job_id = models.UUIDField(null=True)
    records = models.BigIntegerField()
    requests = models.BigIntegerField()
    quantity = models.BigIntegerField()
    units = models.BigIntegerField()

    class Meta:
        abstract = True


class UsageFresh(Sums):
    """What the ledger gained since the last roll-up. A trigger of the ledger writes it, the roll-up takes it away."""

    period = models.DateField()
    hour = models.DateTimeField()


class UsageHourly(Sums):
    """The roll-up by UTC hour, and by the month of the ledger so that a month can be compared with its lines."""

    period = models.DateField()
    hour = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "hour", "period", "model", "unit", "key_id", "job_id"], nulls_distinct=False, name="one_line_an_hour"
            )
        ]


class UsageDaily(Sums):
    """The roll-up by UTC day."""

    day = models.DateField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "day", "model", "unit", "key_id", "job_id"], nulls_distinct=False, name="one_line_a_day"
            )
        ]


class ArchivedMonth(models.Model):
    """A month that left the ledger: where it went, and what it held. `lines` counts every line, voids too."""

    period = models.DateField(primary_key=True)
    file = models.TextField()
    sha256 = models.CharField(max_length=64)
    lines = models.BigIntegerField()
    records = models.BigIntegerField()
    requests = models.BigIntegerField()
    quantity = models.BigIntegerField()
    units = models.BigIntegerField()
    archived_at = models.DateTimeField(auto_now_add=True)
