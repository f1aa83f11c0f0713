"""Long work: one row a job, a detail row for its kind, and what it is made of."""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from maas.tenancy import TenantOwned


class Kind(models.TextChoices):
    BATCH = "batch", _("Batch")


class State(models.TextChoices):
    QUEUED = "queued", _("Queued")
    RUNNING = "running", _("Running")
    CANCELLING = "cancelling", _("Cancelling")
    SUCCEEDED = "succeeded", _("Succeeded")
    FAILED = "failed", _("Failed")
    CANCELLED = "cancelled", _("Cancelled")
    EXPIRED = "expired", _("Expired")
    PAUSED = "paused", _("Paused")


class Leased(TenantOwned):
    """A row that a worker holds until `lease_until`. Every claim raises `fence`, and only the latest one may write."""

    lease_until = models.DateTimeField(null=True)
    fence = models.IntegerField(default=0)

    class Meta:
        abstract = True


class Job(Leased):
    """Long work of a tenant. Its own lease covers what is done once: checking the input and assembling the output.

    `ending` is set when work stops early: the state that the job takes once what is running has come in.
    """

    kind = models.CharField(max_length=12, choices=Kind.choices)
    state = models.CharField(max_length=12, choices=State.choices, default=State.QUEUED)
    ending = models.CharField(max_length=12, choices=State.choices, blank=True, default="")
    model_names = models.JSONField(default=list)
    total = models.IntegerField(default=0)  # lines
    completed = models.IntegerField(default=0)
    failed = models.IntegerField(default=0)
    units = models.BigIntegerField(default=0)  # charged so far
    error = models.JSONField(null=True)  # {"code", "message", "data": [{"code", "line", "message", "param"}]}
    key_id = models.UUIDField(null=True)
    expires_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    served_at = models.DateTimeField(null=True)  # when a worker last took a slice: the jobs of a tenant take turns by it
    deaths = models.IntegerField(default=0)  # of processes that ran its slices, less the slices that went well since
    tidied_at = models.DateTimeField(null=True)  # when what it wrote on the way was removed

    class Meta:
        indexes = [
            models.Index(fields=["tenant", "-id"], name="jobs_of_tenant"),
            models.Index(fields=["state", "created_at"], name="jobs_unfinished", condition=Q(finished_at=None)),
            models.Index(fields=["finished_at"], name="jobs_to_tidy", condition=Q(finished_at__isnull=False, tidied_at=None)),
        ]


class Batch(TenantOwned):
    """What a job of the kind batch has besides. `versions` pins what each model reference meant when it was checked."""

    job = models.OneToOneField(Job, on_delete=models.CASCADE, related_name="batch")
    endpoint = models.CharField(max_length=60)
    completion_window = models.CharField(max_length=8)
    input_file = models.ForeignKey("files.File", on_delete=models.PROTECT, related_name="+")
    output_file = models.ForeignKey("files.File", null=True, on_delete=models.PROTECT, related_name="+")
    error_file = models.ForeignKey("files.File", null=True, on_delete=models.PROTECT, related_name="+")
    output_expires_in = models.IntegerField(null=True)  # seconds
    metadata = models.JSONField(default=dict)
    versions = models.JSONField(default=dict)  # {"name@current": version id}
    allowed_models = models.JSONField(default=list)  # what the key that started it was limited to; empty: all
    finalizing_at = models.DateTimeField(null=True)
    cancelling_at = models.DateTimeField(null=True)


class SliceState(models.TextChoices):
    OPEN = "open", _("Open")  # waits, or is held while its lease runs
    DONE = "done", _("Done")
    CLOSED = "closed", _("Closed")  # will not run: its job was cancelled or expired


class Slice(Leased):
    """A contiguous run of a batch's lines: what is claimed, retried and billed as one.

    `number` names it and says nothing of its place, which is `first_line`: a slice that was split in two leaves its number
    to the first half. `holder` is the process that has it and has not said a word since; a process that lets go clears it.
    """

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="slices")
    number = models.IntegerField()
    start = models.BigIntegerField()  # byte of the input file at which the first line begins
    first_line = models.IntegerField()  # counted from 1
    lines = models.IntegerField()  # blank ones included
    work = models.IntegerField(default=1)  # milliseconds that it will take one core, roughly: what a turn counts
    repeats = models.JSONField(default=list)  # numbers of lines whose custom_id was used before
    state = models.CharField(max_length=8, choices=SliceState.choices, default=SliceState.OPEN)
    holder = models.CharField(max_length=200, blank=True, default="")
    attempts = models.IntegerField(default=0)  # that ended with a word
    deaths = models.IntegerField(default=0)  # that ended without one
    part = models.IntegerField(null=True)  # the fence whose part in storage counts
    output_bytes = models.BigIntegerField(default=0)  # of the part; error lines follow
    completed = models.IntegerField(default=0)
    failed = models.IntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["job", "number"], name="one_slice_a_number")]
        indexes = [models.Index(fields=["job", "first_line"], name="slices_open", condition=Q(state="open"))]


class Turn(TenantOwned):
    """Where a tenant stands in the order of turns, in milliseconds of work for each unit of its weight (`apps.jobs.slices`)."""

    begun = models.FloatField()  # its last turn
    due = models.FloatField()  # its next one

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant"], name="one_turn_a_tenant")]
        indexes = [models.Index(fields=["-begun"], name="turns_clock")]


class JobEvent(TenantOwned):
    """Something that a job tells whoever watches it."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="events")
    level = models.CharField(max_length=8, default="info")
    message = models.TextField()
    data = models.JSONField(default=dict)

    class Meta:
        indexes = [models.Index(fields=["job", "-id"], name="events_of_job")]
