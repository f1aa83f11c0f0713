"""What a batch worker does when it is told that something waits: first what is short and holds up others, then slices."""

import time
from collections.abc import Callable
from uuid import UUID

import structlog

from apps.jobs import holders, slices, stages
from maas import queue
from workers.batch import running, trials
from workers.batch.assembly import finish_batch
from workers.batch.validation import validate_batch

log = structlog.get_logger(__name__)
TURN_SECONDS = 2.0  # then other messages get their turn; a message a slice would cost more than short slices
WARY = 2  # processes that a job may end lately before all of its slices are run apart from the worker


def run_slices() -> None:
    """Take slices until nothing waits or the turn is over; then ask for another turn. A worker that is to stop takes no more."""
    end = time.monotonic() + TURN_SECONDS
    while not holders.is_leaving():
        run_errands()
        claim = slices.claim_slice()
        if claim is None:
            return
        run_claim(claim)
        if time.monotonic() > end:
            break
    queue.nudge("workers.tasks.run_slices", queue="batch")


def run_errands() -> None:
    """Check what is new and finish what is done: their own messages may stand behind those of busy tenants."""
    for tenant_id, job_id in stages.find_errands(stages.TO_FINISH):
        _attempt(finish_batch, tenant_id, job_id)
    for tenant_id, job_id in stages.find_errands(stages.TO_CHECK):
        _attempt(validate_batch, tenant_id, job_id)


def _attempt(errand: Callable[[UUID, UUID], None], tenant_id: UUID, job_id: UUID) -> None:
    try:
        errand(tenant_id, job_id)
    except Exception:
        log.exception("an errand failed; the sweep asks again", errand=errand.__name__, job_id=str(job_id))


def run_claim(claim: slices.Claim) -> None:
    """Run a slice where it can do no harm: one that ended a process, or whose job ended several, in a process of its own."""
    if not claim.deaths and claim.deaths_of_job < WARY:
        running.run_slice(claim)
        return
    try:
        _narrow_down(claim) if claim.is_given_up else trials.run_apart(claim)
    except BaseException as error:
        log.exception("a slice will be tried again", job_id=str(claim.job_id), slice=claim.number)
        slices.give_back(claim, counts=False)
        if not isinstance(error, Exception):  # the process is told to end at once
            raise


def _narrow_down(claim: slices.Claim) -> None:
    """Split a slice that ended two processes. A single line of that kind is given up, and so is every slice that ended one
    when its job ended so many that its model must be broken; neither is run for that."""
    rows = running.read_rows(claim, slices.load_job(claim))
    if len(rows) <= 1 or claim.deaths_of_job >= slices.HOPELESS:
        running.run_slice(claim)
        return
    second = rows[len(rows) // 2]
    log.warning("a slice ended its worker and is split", job_id=str(claim.job_id), slice=claim.number, lines=len(rows))
    slices.split_slice(claim, first_line=second.number, start=second.start)
