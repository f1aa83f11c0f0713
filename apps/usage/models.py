"""The ledger of usage, the roll-ups that charts and reports read, and what may be used."""

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


class Scope(models.TextChoices):
    TENANT = "tenant", _("Organisation")
    KEY = "key", _("API key")
    MODEL = "model", _("Model")


class Allowance(TenantOwned):
    """What a tenant, one of its keys or one of its models may use in a UTC calendar month, and has used.

    `used` is what the ledger charged in the month, `reserved` what open reservations hold besides. Nothing is reserved
    that would lift the two above `cap` (None: no limit); `reason` says which limit that is. `alert_at` are the units of
    which somebody wants to hear. `subject` is a key's id in hex or a model's name. Whoever writes any row of a month holds
    the tenant's row of that month.
    """

    period = models.DateField()
    scope = models.CharField(max_length=8, choices=Scope.choices)
    subject = models.CharField(max_length=120, blank=True, default="")
    cap = models.BigIntegerField(null=True)
    reason = models.CharField(max_length=40, blank=True, default="")
    used = models.BigIntegerField(default=0)
    reserved = models.BigIntegerField(default=0)
    alert_at = models.BigIntegerField(null=True)
    is_over = models.BooleanField(default=False)  # the next month has begun: nothing more is reserved

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "period", "scope", "subject"], name="one_allowance"),
            models.CheckConstraint(condition=models.Q(reserved__gte=0), name="reserved_not_below_zero"),
        ]
        indexes = [models.Index(fields=["alert_at"], name="allowances_to_tell", condition=models.Q(alert_at__isnull=False, is_over=False))]


class Use(models.TextChoices):
    CALLS = "calls", _("Calls")  # of one process, granted from its memory
    SLICE = "slice", _("Slice of a batch")
    JOB = "job", _("Job")  # kept for its slices, which reserve what they need themselves


class Reservation(TenantOwned):
    """Units set aside for work that has begun: `units` in all, of which `settled` are charged.

    What is closed holds nothing any more and pays for nothing. `lease_until` is when the sweep closes it; None: with its job.
    """

    period = models.DateField()
    use = models.CharField(max_length=8, choices=Use.choices)
    key_id = models.UUIDField(null=True)
    model = models.CharField(max_length=120, null=True)  # null: of no model in particular
    job_id = models.UUIDField(null=True)
    slice_id = models.UUIDField(null=True)
    units = models.BigIntegerField()
    settled = models.BigIntegerField(default=0)
    lease_until = models.DateTimeField(null=True)
    closed_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(settled__lte=models.F("units")), name="settled_within_reserved")]
        indexes = [
            models.Index(fields=["lease_until"], name="reservations_to_sweep", condition=models.Q(closed_at=None)),
            models.Index(fields=["tenant", "period"], name="reservations_open", condition=models.Q(closed_at=None)),
            models.Index(fields=["job_id"], name="reservations_of_job", condition=models.Q(closed_at=None, job_id__isnull=False)),
            models.Index(fields=["slice_id"], name="reservations_of_slice", condition=models.Q(closed_at=None, slice_id__isnull=False)),
            models.Index(fields=["closed_at"], name="reservations_to_forget", condition=models.Q(closed_at__isnull=False)),
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
