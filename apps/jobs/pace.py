"""How far a job is, how fast, and when it will be done: told from the events that its slices left, never from a worker's memory."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import OuterRef, Subquery
from django.utils import timezone

from apps.accounts.services import Tenant
from apps.jobs.models import Job, JobEvent, State
from maas.tenancy import as_tenant

WINDOW = timedelta(seconds=60)  # over which a running job is measured


@dataclass(frozen=True)
class Pace:
    """`percent` of the lines are handled, rounded down. `lines_per_second` is of the last minute while the job runs and of its
    whole run afterwards; `eta_seconds` are left. Both are None when they cannot be told."""

    percent: int
    lines_per_second: float | None
    eta_seconds: int | None


@dataclass(frozen=True)
class _Mark:
    """How many lines were handled at a moment."""

    at: datetime
    handled: int


def set_paces(tenant: Tenant, jobs: Iterable[Job]) -> None:
    """Give each job its `pace`, which stays None before its lines were counted."""
    counted = [job for job in jobs if job.total]
    now = timezone.now()
    marks = _marks(tenant, [job.pk for job in counted if job.state == State.RUNNING], now)
    for job in counted:
        job.pace = _running(job, marks, now) if job.state == State.RUNNING else _still(job)


def _marks(tenant: Tenant, running: list[UUID], now: datetime) -> dict[UUID, _Mark]:
    """Where each running job was when the window began; one that began within it is left out."""
    if not running:
        return {}
    of_job = JobEvent.objects.filter(tenant=tenant, job_id=OuterRef("pk"), created_at__lt=now - WINDOW, data__has_key="completed")
    last = of_job.order_by("-id")[:1]
    found = Job.objects.filter(tenant=tenant, pk__in=running).annotate(
        at=Subquery(last.values("created_at")), told=Subquery(last.values("data"))
    )
    with as_tenant(tenant.id):
        rows = list(found.values_list("pk", "at", "told"))
    return {pk: _Mark(at, told["completed"] + told["failed"]) for pk, at, told in rows if at}


def _running(job: Job, marks: dict[UUID, _Mark], now: datetime) -> Pace:
    handled = job.completed + job.failed
    since = marks.get(job.pk) or _Mark(job.started_at or now, 0)
    seconds = (now - since.at).total_seconds()
    rate = (handled - since.handled) / seconds if handled and seconds > 0 else None
    return Pace(100 * handled // job.total, _shown(rate), round((job.total - handled) / rate) if rate else None)


def _still(job: Job) -> Pace:
    """Of a job that has ended, or takes no new lines."""
    handled, end = job.completed + job.failed, job.finished_at
    seconds = (end - job.started_at).total_seconds() if end and job.started_at else 0
    return Pace(100 * handled // job.total, _shown(handled / seconds) if handled and seconds > 0 else None, None)


def _shown(rate: float | None) -> float | None:
    return None if rate is None else float(f"{rate:.3g}")
