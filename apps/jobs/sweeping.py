"""What makes lost messages and dead workers harmless: every few seconds, whatever is not moving is nudged."""

from datetime import timedelta
from uuid import UUID

from django.db import connection
from django.db.models import Q
from django.utils import timezone

from apps.jobs import parts, stages
from apps.jobs.models import Job, State
from maas import queue
from maas.tenancy import SystemUse, as_system, as_tenant

LIMIT = 100  # jobs of each kind that one sweep looks at
PATIENCE = timedelta(seconds=5)  # that a message may take before it is sent again
KEEP_PARTS = timedelta(minutes=10)  # after the end, for a worker that lost its claim and still writes

WAITING = """
SELECT count(*) FROM (
    SELECT 1 FROM jobs_slice slice JOIN jobs_job job ON job.id = slice.job_id
    WHERE job.finished_at IS NULL AND job.state = 'running' AND job.ending = '' AND slice.state = 'open'
          AND (slice.lease_until IS NULL OR slice.lease_until < now())
    LIMIT %s
) waiting
"""


def sweep_jobs() -> None:
    """Nudge what waits, end what is due, remove what is no longer needed. Running it twice does no harm."""
    unfinished = Q(finished_at=None)
    for ids in _find(unfinished & Q(expires_at__lte=timezone.now(), ending="")):
        stages.expire(*ids)
    for ids in _find(unfinished & ~Q(ending="") & Q(batch__finalizing_at=None)):
        stages.close_slices(*ids)
    _nudge_each("workers.tasks.validate_batch", unfinished & stages.FREE & Q(state=State.QUEUED, created_at__lt=timezone.now() - PATIENCE))
    _nudge_each("workers.tasks.finish_batch", stages.FREE & stages.TO_FINISH & Q(batch__finalizing_at__lt=timezone.now() - PATIENCE))
    _nudge_workers()
    _tidy()


def _find(what: Q) -> list[tuple[UUID, UUID]]:
    """Jobs of all tenants as (tenant, job), oldest first."""
    with as_system(SystemUse.SWEEP):
        return list(Job.objects.filter(what).order_by("created_at").values_list("tenant_id", "id")[:LIMIT])


def _nudge_each(entry_point: str, what: Q) -> None:
    for tenant_id, job_id in _find(what):
        queue.nudge(entry_point, queue="batch", tenant_id=str(tenant_id), job_id=str(job_id))


def _nudge_workers() -> None:
    """Tell workers of waiting slices, unless messages wait already: busy workers do not need a pile of them."""
    if queue.depth("batch"):
        return
    with as_system(SystemUse.SWEEP), connection.cursor() as cursor:
        cursor.execute(WAITING, [stages.FIRST_NUDGES])
        waiting = cursor.fetchone()[0]
    for _nudge in range(waiting):
        queue.nudge("workers.tasks.run_slices", queue="batch")


def _tidy() -> None:
    for tenant_id, job_id in _find(Q(finished_at__lt=timezone.now() - KEEP_PARTS, tidied_at=None)):
        parts.delete_parts(job_id)
        with as_tenant(tenant_id):
            Job.objects.filter(pk=job_id).update(tidied_at=timezone.now())
