"""Slices: taken one at a time in turn over tenants, held by a lease, written once."""

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from uuid import UUID

from django.db import connection
from django.db.models import F
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from apps.jobs import stages
from apps.jobs.models import Job, Slice, SliceState
from apps.usage import reservations
from apps.usage import services as usage
from maas.tenancy import SystemUse, as_system, as_tenant

ATTEMPTS = 3  # runs of a slice that may fail before its lines are given up
PAUSE = timedelta(seconds=5)  # before a slice is tried again

# The tenant whose turn was longest ago comes first, and of its jobs the one served longest ago: a tenant with many
# lines delays another by one slice for each worker. A row that another worker is just taking is passed over.
CLAIM = """
WITH turns AS MATERIALIZED (
    SELECT id, max(served_at) OVER (PARTITION BY tenant_id) AS tenant_turn, served_at, created_at FROM jobs_job
    WHERE finished_at IS NULL AND state = 'running' AND ending = ''
), taken AS (
    SELECT slice.id, slice.job_id FROM (SELECT * FROM turns ORDER BY tenant_turn NULLS FIRST, served_at NULLS FIRST, created_at) turn
    CROSS JOIN LATERAL (
        SELECT id, job_id FROM jobs_slice
        WHERE job_id = turn.id AND state = 'open' AND (lease_until IS NULL OR lease_until < now())
        ORDER BY number LIMIT 1 FOR UPDATE SKIP LOCKED
    ) slice LIMIT 1
), served AS (
    UPDATE jobs_job SET served_at = clock_timestamp() FROM taken WHERE jobs_job.id = taken.job_id
)
UPDATE jobs_slice SET lease_until = now() + make_interval(secs => %s), fence = fence + 1, attempts = attempts + 1
FROM taken WHERE jobs_slice.id = taken.id
RETURNING jobs_slice.id, jobs_slice.tenant_id, jobs_slice.job_id, number, start, first_line, lines, fence, attempts,
          (SELECT key_id FROM jobs_job WHERE jobs_job.id = jobs_slice.job_id)
"""


@dataclass(frozen=True)
class Claim:
    """A slice in this worker's hands, as long as its fence is the latest."""

    id: UUID
    tenant_id: UUID
    job_id: UUID
    number: int
    start: int
    first_line: int
    lines: int
    fence: int
    attempts: int
    key_id: UUID | None


@dataclass(frozen=True)
class Result:
    """What became of a slice: bytes of output lines in its part, lines answered and failed, and what to charge."""

    output_bytes: int
    completed: int
    failed: int
    usage: list[usage.UsageLine]


class NotPaid(Exception):
    """What was reserved for a slice was released before it was written; it has to be run again."""


class Outcome(Enum):
    LOST = "another worker has it"
    WRITTEN = "written"
    LAST = "written, and the job has no other"


def claim_slice() -> Claim | None:
    """Take the next slice of any tenant, or None when nothing waits."""
    with as_system(SystemUse.CLAIM_SLICES), connection.cursor() as cursor:
        cursor.execute(CLAIM, [stages.LEASE.total_seconds()])
        row = cursor.fetchone()
    return Claim(*row) if row else None


def load_job(claim: Claim) -> Job:
    """The job of a slice, with its tenant and its input file."""
    with as_tenant(claim.tenant_id):
        return Job.objects.select_related("tenant", "batch__input_file").get(pk=claim.job_id)


def renew_slice(claim: Claim) -> bool:
    """Hold on to a slice; False when it belongs to another worker by now."""
    with as_tenant(claim.tenant_id):
        mine = Slice.objects.filter(pk=claim.id, fence=claim.fence, state=SliceState.OPEN)
        return bool(mine.update(lease_until=Now() + stages.LEASE))


def give_back(claim: Claim, *, counts: bool) -> None:
    """Let another worker try in a moment. It does not count as an attempt when a store was away: that is nobody's fault."""
    with as_tenant(claim.tenant_id):
        mine = Slice.objects.filter(pk=claim.id, fence=claim.fence, state=SliceState.OPEN)
        mine.update(lease_until=Now() + PAUSE, attempts=F("attempts") - (0 if counts else 1))


def write_slice(claim: Claim, result: Result) -> Outcome:
    """The slice's end, its usage, the job's progress and an event: all of it, or nothing when the slice was lost.

    Raises NotPaid when its reservation is gone.
    """
    with as_tenant(claim.tenant_id):
        mine = Slice.objects.filter(pk=claim.id, fence=claim.fence, state=SliceState.OPEN)
        counts = {"completed": result.completed, "failed": result.failed}
        if not mine.update(state=SliceState.DONE, part=claim.fence, output_bytes=result.output_bytes, lease_until=None, **counts):
            return Outcome.LOST
        if len(usage.record(claim.tenant_id, result.usage)) < len(result.usage):
            raise NotPaid
        reservations.release_slice(claim.id)
        _add_progress(claim, result)
        return Outcome.LAST if stages.close_if_done(claim.job_id) else Outcome.WRITTEN


def _add_progress(claim: Claim, result: Result) -> None:
    units = sum(line.units for line in result.usage)
    Job.objects.filter(pk=claim.job_id).update(
        completed=F("completed") + result.completed, failed=F("failed") + result.failed, units=F("units") + units
    )
    job = Job.objects.get(pk=claim.job_id)
    last = claim.first_line + claim.lines - 1
    message = _("Lines %(first)d to %(last)d are done.") % {"first": claim.first_line, "last": last}
    stages.add_event(job, message, total=job.total, completed=job.completed, failed=job.failed)


def list_slices(job: Job) -> list[Slice]:
    """All slices of a job in the order of its input."""
    with as_tenant(job.tenant_id):
        return list(Slice.objects.filter(job=job).order_by("number"))
