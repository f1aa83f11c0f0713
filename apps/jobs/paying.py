"""What a batch reserves: what it will likely cost when it begins, and for each slice all that it can cost before it runs.

What is kept for the job shrinks as its slices reserve for themselves, so that other work cannot take what the rest will
need. It is a promise; what makes the charge exact is the reservation of the slice.
"""

from contextlib import suppress
from uuid import UUID

from django.utils import timezone

from apps.billing import allowances
from apps.jobs.models import Job, Slice, SliceState
from apps.jobs.slices import Claim
from apps.usage import reservations
from apps.usage.models import Use
from apps.usage.periods import month_of
from maas import errors
from maas.tenancy import as_tenant


def reserve_job(job: Job, units: int) -> None:
    """Keep what a job will likely cost, in place of what was kept before.

    Raises PaymentRequired when a limit has no room for it; then the job should not begin.
    """
    with as_tenant(job.tenant_id):
        reservations.release_job(job.pk)
        if units:
            allowances.reserve_work(job.tenant, key_id=job.key_id, model=None, units=units, use=Use.JOB, job_id=job.pk)


def reserve_slice(claim: Claim, job: Job, *, most: dict[str, int], likely: int) -> dict[str, UUID] | None:
    """Reserve the `most` units that each model's lines of a slice can cost; a reservation for each model.

    None when another worker has the slice by now. Raises PaymentRequired when a limit has no room; then nothing is reserved.
    """
    with as_tenant(claim.tenant_id):
        if not Slice.objects.select_for_update().filter(pk=claim.id, fence=claim.fence, state=SliceState.OPEN).exists():
            return None
        reservations.hold_for_slice(job.pk, claim.id)
        reservations.release_slice(claim.id)  # of a worker that is gone
        _hand_over(job, likely)
        return {
            model: allowances.reserve_work(
                job.tenant, key_id=claim.key_id, model=model, units=units, use=Use.SLICE, job_id=claim.job_id, slice_id=claim.id
            )
            for model, units in sorted(most.items())
        }  # fmt: skip


def _hand_over(job: Job, likely: int) -> None:
    """Take a slice's part out of what is kept for the job. When the month has turned, what is left is kept in the new one."""
    kept = reservations.kept_for(job.pk)
    if kept is None:
        return
    reservations.shrink(job.tenant_id, kept.pk, likely)
    if kept.period < month_of(timezone.now()):
        reservations.release(job.tenant_id, kept.pk)
        with suppress(errors.PaymentRequired):
            if kept.units > likely:
                allowances.reserve_work(
                    job.tenant, key_id=job.key_id, model=None, units=kept.units - likely, use=Use.JOB, job_id=job.pk
                )  # fmt: skip
