"""A job's way from queued to its end. Every step is a compare-and-set: whoever changes the row owns what follows."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any
from uuid import UUID

from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext as _

from apps.files import services as files
from apps.jobs.models import Batch, Job, JobEvent, Slice, SliceState, State
from apps.usage import reservations
from maas import errors, events
from maas.events import publish
from maas.queue import enqueue
from maas.tenancy import SystemUse, as_system, as_tenant

LEASE = timedelta(seconds=15)
CHECKS = 5  # workers that may die while they check a file before the batch is given up
ERRANDS = 20  # that a worker looks for at once
FIRST_NUDGES = 8  # workers that are told of a new batch at once; the sweep tells the others
ENDINGS: dict[str, type[events.BatchCompleted] | type[events.BatchFailed] | type[events.BatchCancelled] | type[events.BatchExpired]] = {
    State.SUCCEEDED: events.BatchCompleted, State.FAILED: events.BatchFailed,
    State.CANCELLED: events.BatchCancelled, State.EXPIRED: events.BatchExpired,
}  # fmt: skip
OPENAI = {State.QUEUED: "validating", State.RUNNING: "in_progress", State.SUCCEEDED: "completed"}


@dataclass(frozen=True, slots=True)  # there may be 50,000 at once
class Run:
    """Lines of an input file that will be a slice: the byte at which they begin, the first one's number, how many, their work
    in milliseconds, and the numbers of those whose custom_id was used before."""

    start: int
    first_line: int
    lines: int
    work: int = 1
    repeats: tuple[int, ...] = ()


def openai_status(job: Job) -> str:
    """The state in the words of OpenAI's batches."""
    if job.state == State.RUNNING and job.batch.finalizing_at:
        return "finalizing"
    return OPENAI.get(State(job.state), str(job.state))


def add_event(job: Job, message: str, *, level: str = "info", **data: Any) -> None:
    """Tell whoever watches the job, in the caller's transaction."""
    JobEvent.objects.create(tenant_id=job.tenant_id, job_id=job.pk, level=level, message=message, data=data)


# ---------- the job's own lease ----------
TO_CHECK = Q(state=State.QUEUED)
TO_FINISH = Q(finished_at=None, batch__finalizing_at__isnull=False)
FREE = Q(lease_until=None) | Q(lease_until__lt=Now())


def find_errands(what: Q) -> list[tuple[UUID, UUID]]:
    """Jobs of all tenants that wait for `what` and that nobody holds, as (tenant, job), oldest first; a few of them."""
    with as_system(SystemUse.CLAIM_SLICES):
        return list(Job.objects.filter(FREE, what, finished_at=None).order_by("created_at").values_list("tenant_id", "id")[:ERRANDS])


def claim_job(tenant_id: UUID, job_id: UUID, what: Q) -> Job | None:
    """Take a job that waits for `what`, or None when there is nothing to do or another worker holds it."""
    with as_tenant(tenant_id):
        if not Job.objects.filter(FREE, what, pk=job_id).update(lease_until=Now() + LEASE, fence=F("fence") + 1):
            return None
        return Job.objects.select_related("tenant", "batch__input_file").get(pk=job_id)


def renew_job(job: Job) -> bool:
    """Hold on to a claimed job; False when it belongs to another worker by now."""
    with as_tenant(job.tenant_id):
        return bool(Job.objects.filter(pk=job.pk, fence=job.fence, finished_at=None).update(lease_until=Now() + LEASE))


# ---------- checked ----------
def start_job(job: Job, *, runs: Iterable[Run], total: int, bad: int = 0, model_names: list[str], versions: dict[str, str]) -> bool:
    """The file can be run, but for `bad` lines: its slices can be taken. False when the job was cancelled or taken over meanwhile."""
    with as_tenant(job.tenant_id):
        mine = Job.objects.filter(pk=job.pk, fence=job.fence, state=State.QUEUED)
        if not mine.update(state=State.RUNNING, started_at=timezone.now(), total=total, model_names=model_names, lease_until=None):
            return False
        Batch.objects.filter(job=job).update(versions=versions)
        made = _make_slices(job, runs)
        add_event(job, _said_of_file(total, bad), total=total, bad=bad)
        for _number in range(min(made, FIRST_NUDGES)):
            enqueue("workers.tasks.run_slices", queue="batch")
    return True


def _make_slices(job: Job, runs: Iterable[Run]) -> int:
    """A row for each run; how many. Never holds more than a few hundred of them."""
    made, left = 0, iter(runs)
    while chunk := list(islice(left, 500)):
        rows = [
            Slice(
                tenant_id=job.tenant_id, job=job, number=number, start=run.start, first_line=run.first_line, lines=run.lines,
                work=run.work, repeats=run.repeats,
            )
            for number, run in enumerate(chunk, made)
        ]  # fmt: skip
        made += len(Slice.objects.bulk_create(rows))
    return made


def _said_of_file(total: int, bad: int) -> str:
    if not bad:
        return _("The file is fine: %(n)s lines.") % {"n": f"{total:,}"}
    words = {"bad": f"{bad:,}", "n": f"{total:,}"}
    return _("%(bad)s of %(n)s lines cannot be run; the error file will say why. The others are run.") % words


def fail_job(job: Job, *, code: str, message: str, problems: list[dict[str, Any]]) -> bool:
    """The file cannot run. False when the job was cancelled or taken over meanwhile."""
    error = {"code": code, "message": message, "data": problems}
    with as_tenant(job.tenant_id):
        if not Job.objects.filter(pk=job.pk, fence=job.fence, state=State.QUEUED).update(error=error):
            return False
        _end(job, State.FAILED, message, level="error")
    return True


# ---------- early ends ----------
def cancel(job: Job) -> bool:
    """Mark a job cancelled. One that was not checked yet ends here; False when its state does not allow it."""
    with as_tenant(job.tenant_id):
        rows = Job.objects.filter(pk=job.pk, ending="", finished_at=None)
        if rows.filter(state=State.QUEUED).update(ending=State.CANCELLED):
            _note_cancelling(job)
            _end(job, State.CANCELLED, _("Cancelled before it began."))
            return True
        running = rows.filter(state=State.RUNNING, batch__finalizing_at=None)
        if not running.update(state=State.CANCELLING, ending=State.CANCELLED):
            return False
        _note_cancelling(job)
        add_event(job, _("Cancelling. Lines in work are finished, the others are not begun."))
    return True


def _note_cancelling(job: Job) -> None:
    Batch.objects.filter(job=job).update(cancelling_at=timezone.now())
    publish(events.BatchCancelling(tenant_id=job.tenant_id, job_id=job.pk, label=job.batch.input_file.filename))


def expire(tenant_id: UUID, job_id: UUID) -> None:
    """The completion window has passed."""
    with as_tenant(tenant_id):
        rows = Job.objects.filter(pk=job_id, ending="", finished_at=None, expires_at__lte=timezone.now())
        if rows.filter(state=State.QUEUED).update(ending=State.EXPIRED):
            _end(Job.objects.select_related("batch").get(pk=job_id), State.EXPIRED, _("The completion window passed before it began."))
        elif rows.filter(state=State.RUNNING, batch__finalizing_at=None).update(ending=State.EXPIRED):
            add_event(Job.objects.get(pk=job_id), _("The completion window has passed. What is done is kept."), level="warn")
    close_slices(tenant_id, job_id)


def stop(claim_of_slice: UUID, job: Job, error: errors.MaasError) -> None:
    """A limit has no room for what is left of a running job: what is done is kept, and the slice in hand is given up."""
    told = {"code": error.code, "message": error.message, "line": None, "param": None}
    with as_tenant(job.tenant_id):
        running = Job.objects.filter(pk=job.pk, ending="", finished_at=None, state=State.RUNNING, batch__finalizing_at=None)
        if running.update(ending=State.FAILED, error={"code": error.code, "message": error.message, "data": [told]}):
            add_event(job, _("Stopped. %(why)s What is done is kept.") % {"why": error.message}, level="error")
        Slice.objects.filter(pk=claim_of_slice, state=SliceState.OPEN).update(lease_until=None, holder="")
    close_slices(job.tenant_id, job.pk)


def close_slices(tenant_id: UUID, job_id: UUID) -> None:
    """Close what nobody works on of a job that ends early, and go on to assembly when nothing is left open."""
    with as_tenant(tenant_id):
        if not Job.objects.filter(pk=job_id, finished_at=None).exclude(ending="").exists():
            return
        Slice.objects.filter(FREE, job_id=job_id, state=SliceState.OPEN).update(state=SliceState.CLOSED)
        close_if_done(job_id)


def close_if_done(job_id: UUID) -> bool:
    """Begin assembly when no slice is open, in the caller's transaction; True for the one call that began it.

    The job's row is locked first: of two slices that end at once, the second one sees the first.
    """
    job = Job.objects.select_for_update().get(pk=job_id)
    if job.finished_at or job.state == State.QUEUED or Slice.objects.filter(job_id=job_id, state=SliceState.OPEN).exists():
        return False
    if not Batch.objects.filter(job_id=job_id, finalizing_at=None).update(finalizing_at=timezone.now()):
        return False
    Job.objects.filter(pk=job_id).update(lease_until=None)
    enqueue("workers.tasks.finish_batch", queue="batch", tenant_id=str(job.tenant_id), job_id=str(job_id))
    return True


# ---------- the end ----------
def finish_job(job: Job, *, output: Any, error: Any) -> bool:
    """Everything is in: the files become visible and the job ends, in one transaction. False when the claim was lost."""
    with as_tenant(job.tenant_id):
        if not Job.objects.select_for_update(of=("self",)).filter(TO_FINISH, pk=job.pk, fence=job.fence).exists():
            return False
        for file in filter(None, (output, error)):
            files.finish_file(file)
        Batch.objects.filter(job=job).update(output_file=output, error_file=error)
        row = Job.objects.get(pk=job.pk)
        message = _("%(done)s lines answered, %(failed)s failed.") % {"done": f"{row.completed:,}", "failed": f"{row.failed:,}"}
        _end(job, State(row.ending or State.SUCCEEDED), message)
    return True


def _end(job: Job, state: State, message: str, *, level: str = "info") -> None:
    """The last change of a job, in the caller's transaction."""
    Job.objects.filter(pk=job.pk).update(state=state, finished_at=timezone.now(), lease_until=None)
    files.release_file(job.batch.input_file_id)
    reservations.release_job(job.pk)
    add_event(job, message, level=level, state=state)
    publish(ENDINGS[state](tenant_id=job.tenant_id, job_id=job.pk, label=job.batch.input_file.filename))
