"""Slices: taken one at a time in turn over tenants, held by a lease, written once."""

import json
from dataclasses import dataclass, fields
from datetime import timedelta
from enum import Enum
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import F, Max, QuerySet
from django.db.models.functions import Greatest, Now
from django.utils.translation import gettext as _

from apps.billing.plans import every_plan
from apps.jobs import holders, stages
from apps.jobs.models import Job, Slice, SliceState
from apps.usage import reservations
from apps.usage import services as usage
from maas.tenancy import SystemUse, as_system, as_tenant

ATTEMPTS = 3  # runs of a slice that may fail before its lines are given up
DEATHS = 2  # processes that a slice may end before it is split, or given up when it is a single line
HOPELESS = 64  # processes that a job may end lately before its slices are given up whole when they end one
PAUSE = timedelta(seconds=5)  # before a slice is tried again

# Start-time fair queueing (Goyal, Vin, Cheng 1996). `due` is where a tenant's next turn begins in virtual time; the least
# comes first, of its jobs the one served longest ago. The clock is where the latest turn began. A turn begins at its due and moves
# it by the slice's work over the plan's weight; who had nothing waiting begins at the clock, so that nobody saves up turns while
# idle. Who was waiting all the time does not: two workers that look at once both take the least, and the clock runs ahead.
# A slice that another worker is just taking is passed over; a tenant's own row is waited for, which is a moment.
# Whoever held the slice and let it go without a word has died with it, unless the database was started again since their last
# word: then they had nobody to tell.
CLAIM = """
WITH weights AS (
    SELECT * FROM unnest(%(plans)s::text[], %(weights)s::int[]) AS known (plan, weight)
), clock AS (
    SELECT coalesce(max(begun), 0) AS time FROM jobs_turn
), waiting AS MATERIALIZED (
    SELECT job.id, job.served_at, job.created_at, coalesce(turn.due, 0) AS due,
        bool_or(job.served_at IS NOT NULL) OVER (PARTITION BY job.tenant_id) AS was_here
    FROM jobs_job job LEFT JOIN jobs_turn turn ON turn.tenant_id = job.tenant_id
    WHERE job.finished_at IS NULL AND job.state = 'running' AND job.ending = '' AND (%(job)s::uuid IS NULL OR job.id = %(job)s)
          AND EXISTS (SELECT FROM jobs_slice WHERE job_id = job.id AND state = 'open' AND (lease_until IS NULL OR lease_until < now()))
), taken AS MATERIALIZED (
    SELECT slice.*, was_here FROM (SELECT id, was_here FROM waiting ORDER BY due, served_at NULLS FIRST, created_at) job
    CROSS JOIN LATERAL (
        SELECT id, job_id, tenant_id, work, (holder <> '')::int AS held, (
            holder <> '' AND (lease_until IS NULL OR lease_until - make_interval(secs => %(lease)s) > pg_postmaster_start_time())
        )::int AS died FROM jobs_slice
        WHERE job_id = job.id AND state = 'open' AND (lease_until IS NULL OR lease_until < now())
              AND (%(job)s::uuid IS NULL OR deaths + (holder <> '')::int = 1)
        ORDER BY first_line LIMIT 1 FOR UPDATE SKIP LOCKED
    ) slice LIMIT 1
), served AS (
    UPDATE jobs_job SET served_at = clock_timestamp(), deaths = deaths + taken.died FROM taken WHERE jobs_job.id = taken.job_id
), turned AS (
    INSERT INTO jobs_turn AS mine (id, tenant_id, created_at, begun, due)
    SELECT gen_random_uuid(), taken.tenant_id, now(), since, since + taken.work::float / coalesce(weights.weight, %(least)s)
    FROM taken CROSS JOIN clock CROSS JOIN LATERAL (SELECT CASE WHEN was_here THEN 0 ELSE clock.time END AS since) arrived
    JOIN accounts_tenant tenant ON tenant.id = taken.tenant_id
    LEFT JOIN weights ON weights.plan = tenant.plan
    ON CONFLICT (tenant_id) DO UPDATE SET begun = greatest(mine.due, excluded.begun),
        due = greatest(mine.due, excluded.begun) + excluded.due - excluded.begun
)
UPDATE jobs_slice SET lease_until = now() + make_interval(secs => %(lease)s), holder = %(holder)s, fence = fence + 1,
    attempts = attempts + 1 - taken.held, deaths = deaths + taken.died
FROM taken WHERE jobs_slice.id = taken.id
RETURNING jobs_slice.id, jobs_slice.tenant_id, jobs_slice.job_id, number, start, first_line, lines, fence, attempts,
          (SELECT key_id FROM jobs_job WHERE jobs_job.id = jobs_slice.job_id), repeats, deaths,
          (SELECT deaths FROM jobs_job WHERE jobs_job.id = jobs_slice.job_id)
"""


@dataclass(frozen=True)
class Claim:
    """A slice in this worker's hands, as long as its fence is the latest.

    `repeats` are numbers of lines whose custom_id was used before. `deaths` counts the processes that it has ended,
    `deaths_of_job` those that its job has ended lately.
    """

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
    repeats: tuple[int, ...]
    deaths: int
    deaths_of_job: int

    @property
    def is_given_up(self) -> bool:
        """Whether its lines are not run any more; those of a slice that can be split are told apart first."""
        return self.deaths >= DEATHS or (self.deaths > 0 and self.deaths_of_job >= HOPELESS)


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


def claim_slice(suspects_of: UUID | None = None) -> Claim | None:
    """Take the next slice of any tenant, or None when nothing waits. `suspects_of` a job are those that ended one process."""
    plans = every_plan()
    given: dict[str, Any] = {
        "plans": list(plans), "weights": [plan.weight for plan in plans.values()], "least": plans["free"].weight,
        "lease": stages.LEASE.total_seconds(), "holder": holders.my_name(), "job": suspects_of,
    }  # fmt: skip
    with as_system(SystemUse.CLAIM_SLICES), connection.cursor() as cursor:
        cursor.execute(CLAIM, given)
        row = cursor.fetchone()
    if row is None:
        return None
    named = dict(zip((field.name for field in fields(Claim)), row, strict=True))
    return Claim(**{**named, "repeats": tuple(json.loads(named["repeats"]))})


def release_losses() -> int:
    """What workers of this name held when they died, free at once: a lease would keep it for seconds. How many slices.

    When the whole machine was started again, nobody's line is suspected.
    """
    with as_system(SystemUse.CLAIM_SLICES):
        held = Slice.objects.filter(state=SliceState.OPEN, holder__startswith=holders.my_node() + " ")
        names = list(held.values_list("holder", flat=True).distinct().order_by())
        return sum(_release(name, holders.fate_of(name)) for name in names)


def _release(holder: str, fate: holders.Fate) -> int:
    held = Slice.objects.filter(state=SliceState.OPEN, holder=holder)
    if fate is holders.Fate.LIVES:
        return 0
    if fate is holders.Fate.DIED:
        return held.update(lease_until=None)
    return held.update(lease_until=None, holder="", attempts=F("attempts") - 1)


def load_job(claim: Claim) -> Job:
    """The job of a slice, with its tenant and its input file."""
    with as_tenant(claim.tenant_id):
        return Job.objects.select_related("tenant", "batch__input_file").get(pk=claim.job_id)


def renew_slice(claim: Claim) -> bool:
    """Hold on to a slice; False when it belongs to another worker by now.

    A process that was asked to stop says so: if it is killed before it is done, that is not the slice's doing.
    """
    said = {"holder": ""} if holders.is_leaving() else {}
    with as_tenant(claim.tenant_id):
        return bool(_mine(claim).update(lease_until=Now() + stages.LEASE, **said))


def give_back(claim: Claim, *, counts: bool, pause: timedelta = PAUSE) -> None:
    """Let another worker try in a moment. It does not count as an attempt when a store was away: that is nobody's fault."""
    with as_tenant(claim.tenant_id):
        _mine(claim).update(lease_until=Now() + pause, holder="", attempts=F("attempts") - (0 if counts else 1))


def note_death(claim: Claim) -> None:
    """The process that ran this slice apart from the worker has ended; nothing happens if it gave the slice back before."""
    with as_tenant(claim.tenant_id):
        if _mine(claim).exclude(holder="").update(lease_until=None, holder="", attempts=F("attempts") - 1, deaths=F("deaths") + 1):
            Job.objects.filter(pk=claim.job_id).update(deaths=F("deaths") + 1)


def split_slice(claim: Claim, *, first_line: int, start: int) -> bool:
    """Two slices in place of one; the second begins with `first_line`, at the byte `start`. False when it was lost.

    Each half has ended one process: the next one that a half ends is its second.
    """
    with as_tenant(claim.tenant_id):
        row = _mine(claim).select_for_update().first()
        if row is None:
            return False
        reservations.hold_for_slice(claim.job_id, claim.id)
        reservations.release_slice(claim.id)
        job = Job.objects.select_for_update().get(pk=claim.job_id)  # numbers are given to one at a time
        _halve(row, job, first_line - claim.first_line, start)
        last = claim.first_line + claim.lines - 1
        message = _("Lines %(first)d to %(last)d ended their worker twice; each half is tried apart.")
        stages.add_event(job, message % {"first": claim.first_line, "last": last}, level="warn")
    stages.close_slices(claim.tenant_id, claim.job_id)  # when the job has ended meanwhile
    return True


def _halve(row: Slice, job: Job, lines: int, start: int) -> None:
    """Leave the first `lines` to the slice and make another of the rest, in the caller's transaction."""
    free = {"fence": row.fence + 1, "lease_until": None, "holder": "", "attempts": 0, "deaths": 1}
    number = 1 + (Slice.objects.filter(job=job).aggregate(last=Max("number"))["last"] or 0)
    work = max(1, row.work * lines // row.lines)
    Slice.objects.create(
        tenant_id=row.tenant_id, job=job, number=number, start=start, first_line=row.first_line + lines, lines=row.lines - lines,
        work=max(1, row.work - work), repeats=row.repeats, **{**free, "fence": 0},
    )  # fmt: skip
    Slice.objects.filter(pk=row.pk).update(lines=lines, work=work, **free)


def _mine(claim: Claim) -> QuerySet[Slice]:
    """The row of a slice, unless another worker has it by now or it is done."""
    return Slice.objects.filter(pk=claim.id, fence=claim.fence, state=SliceState.OPEN)


def write_slice(claim: Claim, result: Result) -> Outcome:
    """The slice's end, its usage, the job's progress and an event: all of it, or nothing when the slice was lost.

    Raises NotPaid when its reservation is gone.
    """
    with as_tenant(claim.tenant_id):
        ended = {"state": SliceState.DONE, "lease_until": None, "holder": "", "completed": result.completed, "failed": result.failed}
        if not _mine(claim).update(part=claim.fence, output_bytes=result.output_bytes, **ended):
            return Outcome.LOST
        if len(usage.record(claim.tenant_id, result.usage)) < len(result.usage):
            raise NotPaid
        reservations.release_slice(claim.id)
        _add_progress(claim, result)
        return Outcome.LAST if stages.close_if_done(claim.job_id) else Outcome.WRITTEN


def _add_progress(claim: Claim, result: Result) -> None:
    units = sum(line.units for line in result.usage)
    Job.objects.filter(pk=claim.job_id).update(
        completed=F("completed") + result.completed, failed=F("failed") + result.failed, units=F("units") + units,
        deaths=Greatest(F("deaths") - (1 if result.completed else 0), 0),
    )  # fmt: skip
    job = Job.objects.get(pk=claim.job_id)
    last = claim.first_line + claim.lines - 1
    message = _("Lines %(first)d to %(last)d are done.") % {"first": claim.first_line, "last": last}
    stages.add_event(job, message, total=job.total, completed=job.completed, failed=job.failed)


def list_slices(job: Job) -> list[Slice]:
    """All slices of a job in the order of its input."""
    with as_tenant(job.tenant_id):
        return list(Slice.objects.filter(job=job).order_by("first_line"))
