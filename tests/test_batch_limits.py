"""Batches and limits: refused before the first line, or stopped with all that is done; exact in the end either way."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import time_machine
from django.utils import timezone

from apps.jobs import services as jobs
from apps.jobs import slices
from apps.usage import allowances
from apps.usage.allowances import Cap
from apps.usage.models import Reservation, UsageRecord
from apps.usage.periods import month_after, month_of
from apps.usage.reservations import Work, release_slice, reserve
from maas.tenancy import as_tenant
from tests.books import audit_books
from tests.test_allowances import begin, closing_with
from tests.test_batch_worker import PRICE, charged, quiet, request, results, start, started, tiny, work  # noqa: F401  # fixtures too
from workers.batch import assembly, running, validation

SLICE = 4 * PRICE  # units of a slice of the test


def test_a_batch_that_no_limit_has_room_for_fails_before_its_first_line(cast) -> None:
    begin(cast.tenant, 10 * PRICE - 1)
    job = started(cast.tenant, 10)
    assert (job.state, job.error["code"]) == ("failed", "quota_exceeded")
    assert "up to 30 units" in job.error["message"]
    assert audit_books(cast.tenant) == {"used": 0, "reserved": 0}


def test_a_batch_keeps_what_it_will_likely_cost_and_gives_back_the_rest(cast) -> None:
    begin(cast.tenant, 10 * PRICE)
    job = started(cast.tenant, 10)
    assert audit_books(cast.tenant) == {"used": 0, "reserved": 30}
    running.run_slice(slices.claim_slice())
    assert audit_books(cast.tenant) == {"used": SLICE, "reserved": 30 - SLICE}
    work()
    assert charged(job) == (10, 30)
    assert audit_books(cast.tenant) == {"used": 30, "reserved": 0}


def test_lines_that_are_refused_cost_nothing_and_keep_nothing(cast) -> None:
    begin(cast.tenant, 10 * PRICE)
    bad = [{**request(number), "body": {"model": "no-such-model", "inputs": "x"}} for number in range(10, 20)]
    job = start(cast.tenant, [*map(request, range(10)), *bad])
    validation.validate_batch(cast.tenant.id, job.id)
    work()
    assert charged(job) == (10, 30)
    assert audit_books(cast.tenant) == {"used": 30, "reserved": 0}


def test_a_batch_is_stopped_where_a_limit_ends_and_keeps_what_is_done(cast) -> None:
    period = begin(cast.tenant, 100 * PRICE)
    job = started(cast.tenant, 10)
    running.run_slice(slices.claim_slice())
    with as_tenant(cast.tenant.id):  # an owner lowers the budget below what the rest will cost
        allowances.lock_month(cast.tenant.id, period)
        allowances.set_caps(cast.tenant.id, period, [Cap("tenant", "", SLICE + 5, "budget_exceeded")])
    work()
    assembly.finish_batch(cast.tenant.id, job.id)
    job, (output, errors) = jobs.get_job(cast.tenant, job.id), results(job)
    assert (job.state, job.error["code"]) == ("failed", "budget_exceeded")
    assert [row["custom_id"] for row in output] == [f"line-{n}" for n in range(4)]
    assert {row["error"]["code"] for row in errors} == {"budget_exceeded"}
    assert len(errors) == 6
    assert charged(job) == (4, SLICE)
    assert audit_books(cast.tenant) == {"used": SLICE, "reserved": 0}


def test_a_models_own_limit_stops_a_batch_too(cast) -> None:
    begin(cast.tenant, None, Cap("model", "tiny-shades", SLICE, "budget_exceeded"))
    job = started(cast.tenant, 10)
    work()
    assembly.finish_batch(cast.tenant.id, job.id)
    job = jobs.get_job(cast.tenant, job.id)
    assert (job.state, job.error["code"], job.units) == ("failed", "budget_exceeded", SLICE)
    audit_books(cast.tenant)


def test_cancelling_gives_back_what_was_kept(cast) -> None:
    begin(cast.tenant, 100)
    job = started(cast.tenant, 10)
    jobs.cancel_batch(cast.tenant, job.id)
    work()
    assert audit_books(cast.tenant)["reserved"] in {0, 30}  # until its files are written
    assembly.finish_batch(cast.tenant.id, job.id)
    assert audit_books(cast.tenant) == {"used": 0, "reserved": 0}


def test_a_worker_that_dies_leaves_a_reservation_that_the_next_one_replaces(cast) -> None:
    begin(cast.tenant, SLICE)
    job = started(cast.tenant, 4)
    claim = slices.claim_slice()
    read = running.read_slice(claim, slices.load_job(claim))
    running.reserve_slice(claim, slices.load_job(claim), read)  # and here it dies
    with as_tenant(cast.tenant.id):
        type(slices.list_slices(job)[0]).objects.filter(pk=claim.id).update(lease_until=timezone.now())
    work()
    assert charged(job) == (4, SLICE)
    assert audit_books(cast.tenant) == {"used": SLICE, "reserved": 0}


def test_a_slice_whose_reservation_is_gone_is_not_written_but_run_again(cast, monkeypatch) -> None:
    begin(cast.tenant, 100)
    job, run = started(cast.tenant, 4), running._run

    def lose(read, job):
        with as_tenant(cast.tenant.id):
            for row in slices.list_slices(job):
                release_slice(row.id)
        return run(read, job)

    claim = slices.claim_slice()
    monkeypatch.setattr(running, "_run", lose)
    running.run_slice(claim)
    assert charged(job) == (0, 0)
    monkeypatch.setattr(running, "_run", run)
    with as_tenant(cast.tenant.id):
        type(slices.list_slices(job)[0]).objects.update(lease_until=None)
    work()
    assert charged(job) == (4, SLICE)
    assert audit_books(cast.tenant) == {"used": SLICE, "reserved": 0}


def test_batches_and_calls_race_for_the_last_units(cast) -> None:
    """Four batches of ten pictures and sixty calls want 300 units; there are 100."""
    begin(cast.tenant, 100)

    def batch(_number: int) -> None:
        started(cast.tenant, 10)

    def call(_number: int) -> None:
        try:
            reserve(Work(cast.tenant.id, month_of(timezone.now()), None, "tiny-shades"), PRICE, seconds=60)
        except Exception as error:
            assert type(error).__name__ == "Refused"

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(closing_with(batch), n) for n in range(4)] + [pool.submit(closing_with(call), n) for n in range(60)]
        [each.result() for each in futures]
    work()
    books = audit_books(cast.tenant)
    assert 100 - PRICE < books["used"] + books["reserved"] <= 100


def test_a_batch_that_runs_over_the_end_of_a_month_is_charged_in_both(cast) -> None:
    with time_machine.travel(datetime(2027, 3, 31, 23, 0, tzinfo=UTC), tick=False) as clock:
        march = begin(cast.tenant, 30)
        job = started(cast.tenant, 10)
        running.run_slice(slices.claim_slice())
        clock.move_to(datetime(2027, 4, 1, 0, 30, tzinfo=UTC))
        april = month_after(march)
        begin(cast.tenant, 18, period=april)
        running.run_slice(slices.claim_slice())
        kept = kept_for(job)
        work()
    assert kept == [(april, 30 - 2 * SLICE)]
    rows = {row.period: row.used for row in months(cast.tenant)}
    assert rows == {march: SLICE, april: 30 - SLICE}
    with as_tenant(cast.tenant.id):
        assert sorted(row.created_at.month for row in UsageRecord.objects.filter(job_id=job.id)) == [3, 4, 4]
    assert audit_books(cast.tenant) == {"used": 30, "reserved": 0}


def kept_for(job) -> list[tuple]:
    with as_tenant(job.tenant_id):
        return list(Reservation.objects.filter(job_id=job.id, use="job", closed_at=None).values_list("period", "units"))


def months(tenant) -> list:
    with as_tenant(tenant.id):
        return allowances.begun_months(tenant.id)
