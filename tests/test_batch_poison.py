"""Lines that end the process that runs them: found by halves, told in the error file, and nobody else's trouble."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.utils import timezone

from apps.jobs import holders, slices
from apps.jobs import services as jobs
from apps.jobs.models import Job, Slice
from maas import queue
from maas.tenancy import SystemUse, as_system, as_tenant
from tests.conftest import HOME, ROOT
from tests.live import COMMANDS
from tests.poison import POISON, poisoned
from tests.test_batch_worker import PRICE, charged, hold_nothing, request, results, start, started, tiny, work  # noqa: F401
from workers.batch import running, sizing, trials, turns, validation

PATIENCE = 120  # seconds


@pytest.fixture(autouse=True)
def alone(tiny, monkeypatch) -> None:  # noqa: F811
    """No job and no message of other tests is in the way. A worker that is a process of its own makes slices of full size."""
    monkeypatch.setattr(sizing, "SLICE_INPUTS", 4)
    with as_system(SystemUse.SWEEP):
        Job.objects.filter(finished_at=None).update(finished_at=timezone.now(), tidied_at=timezone.now())
    queue.connect().delete("batch")


class Worker:
    """A batch worker as a process of its own, which dies of poison; `revive` is what a supervisor does."""

    def __init__(self, **what) -> None:
        self.env, self.number, self.deaths = poisoned(HOME / "poison", **what), 0, 0
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self.number += 1
        with self.log.open("ab") as log:
            command = [part.replace("batch@%h", "poison@%h") for part in COMMANDS["batch"]]
            return subprocess.Popen(command, cwd=ROOT, env=self.env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    @property
    def log(self):
        return HOME / f"poison-{self.number}.log"

    def revive(self) -> None:
        if self.process.poll() is not None:
            self.deaths += 1
            self.process = self._start()
            queue.nudge("workers.tasks.run_slices", queue="batch")

    def wait(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, self.log.read_text()[-3000:]
            self.revive()
            time.sleep(0.05)

    def is_ready(self) -> bool:
        return " ready." in self.log.read_text(errors="replace")


@contextmanager
def worker(**what) -> Iterator[Worker]:
    running = Worker(**what)
    try:
        running.wait(running.is_ready)
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def ended(*batches: Job) -> bool:
    with as_system(SystemUse.SWEEP):
        return not Job.objects.filter(pk__in=[job.pk for job in batches], finished_at=None).exists()


def death_of(claim: slices.Claim) -> None:
    """The holder of a slice is gone, and its lease has run out."""
    with as_system(SystemUse.SWEEP):
        Slice.objects.filter(pk=claim.id).update(lease_until=timezone.now() - timedelta(seconds=1))


def spread(job: Job) -> list[tuple[int, int, int]]:
    """First line, count and deaths of a job's slices in the order of its file."""
    return [(row.first_line, row.lines, row.deaths) for row in slices.list_slices(job)]


# ---------- with real processes ----------
@pytest.mark.parametrize("how", ["SIGKILL", "SIGSEGV"])
def test_one_line_that_ends_its_worker_is_found_and_the_others_are_answered(cast, how) -> None:
    with worker(signal=how) as one:
        job = start(cast.tenant, [request(number) for number in range(40)] + [request(POISON)] + [request(40)])
        one.wait(lambda: ended(job))
    output, failed = results(job)
    assert [line["custom_id"] for line in output] == [f"line-{number}" for number in range(41)]
    assert [(line["custom_id"], line["error"]["code"], line["response"]) for line in failed] == [(f"line-{POISON}", "worker_crashed", None)]
    assert "ended its worker 2 times" in failed[0]["error"]["message"]
    assert (jobs.get_job(cast.tenant, job.id).state, charged(job)) == ("succeeded", (41, 41 * PRICE))
    assert one.deaths == 1  # then it ends other processes


def test_batches_of_others_go_on_while_a_model_ends_every_process(cast) -> None:
    with worker(shades=tuple(range(1000, 1016))) as one:
        bad = start(cast.tenant, [request(1000 + number) for number in range(16)])
        validation.validate_batch(cast.tenant.id, bad.id)
        good = start(cast.other, [request(number) for number in range(16)])
        validation.validate_batch(cast.other.id, good.id)
        queue.nudge("workers.tasks.run_slices", queue="batch")
        one.wait(lambda: ended(good))
        assert not ended(bad)
        with as_tenant(cast.tenant.id):  # as after an hour: what it has not come to is its own delay
            Job.objects.filter(pk=bad.pk).update(deaths=turns.HOPELESS)
        one.wait(lambda: ended(bad))
        assert one.deaths <= turns.WARY
    assert (len(results(good)[0]), charged(good)) == (16, (16, 16 * PRICE))
    assert {line["error"]["code"] for line in results(bad)[1]} == {"worker_crashed"}
    assert charged(bad) == (0, 0)


def test_a_worker_that_is_asked_to_stop_finishes_its_slice_and_begins_no_other(cast, monkeypatch) -> None:
    monkeypatch.setattr(sizing, "SLICE_INPUTS", 16)
    with worker() as one:
        job = start(cast.tenant, [request(number) for number in range(1600)])
        validation.validate_batch(cast.tenant.id, job.id)
        queue.nudge("workers.tasks.run_slices", queue="batch")
        one.wait(lambda: jobs.get_job(cast.tenant, job.id).completed > 0)
        one.process.terminate()
        assert one.process.wait(30) == 0
    done = jobs.get_job(cast.tenant, job.id).completed
    assert 0 < done < 1600
    with as_tenant(cast.tenant.id):
        assert not Slice.objects.filter(job=job, state="open").exclude(holder="", attempts=0, lease_until=None).exists()
    assert charged(job) == (done, done * PRICE)


def test_a_second_signal_gives_the_slice_back_and_blames_nobody(cast) -> None:
    job = start(cast.tenant, [request(number) for number in range(500)])
    validation.validate_batch(cast.tenant.id, job.id)
    claim = slices.claim_slice()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(running, "read_slice", lambda *_: (_ for _ in ()).throw(SystemExit))
        running.run_slice(claim)
    again = slices.claim_slice()
    assert (again.id, again.attempts, again.deaths) == (claim.id, 1, 0)


# ---------- who held it, and how it ended ----------
def test_what_a_killed_worker_held_is_free_when_the_next_one_of_its_name_starts(cast) -> None:
    job = started(cast.tenant, 4)
    claim = slices.claim_slice()
    assert slices.release_losses() == 0  # we live
    for_dead = holders.my_name().rpartition(" ")[0] + " 1:1"
    with as_tenant(cast.tenant.id):
        Slice.objects.filter(pk=claim.id).update(holder=for_dead)
    assert slices.claim_slice() is None
    assert slices.release_losses() == 1
    again = slices.claim_slice()
    assert (again.id, again.attempts, again.deaths, spread(job)) == (claim.id, 1, 1, [(1, 4, 1)])


def test_a_machine_that_was_started_again_blames_nobody(cast) -> None:
    started(cast.tenant, 4)
    claim = slices.claim_slice()
    with as_tenant(cast.tenant.id):
        Slice.objects.filter(pk=claim.id).update(holder=f"{holders.my_node()} another-boot 1:1")
    assert slices.release_losses() == 1
    assert (slices.claim_slice().deaths, slices.release_losses()) == (0, 0)


def test_a_worker_that_is_killed_after_it_was_asked_to_stop_blames_nobody(cast, monkeypatch) -> None:
    started(cast.tenant, 4)
    claim = slices.claim_slice()
    with monkeypatch.context() as patch:
        patch.setattr(holders, "_leaving", [True])
        assert slices.renew_slice(claim)
    death_of(claim)
    assert slices.claim_slice().deaths == 0


def test_a_slice_that_ended_two_processes_is_split_and_keeps_the_order_of_its_file(cast) -> None:
    job = started(cast.tenant, 12)
    first, second = slices.claim_slice(), slices.claim_slice()
    death_of(second)
    again = slices.claim_slice()
    assert (again.id, again.deaths, again.attempts) == (second.id, 1, 1)
    death_of(again)
    turns.run_claim(slices.claim_slice())
    assert spread(job) == [(1, 4, 0), (5, 2, 1), (7, 2, 1), (9, 4, 0)]
    running.run_slice(again)  # it was only slow: its fence is old
    running.run_slice(first)
    work()
    assert [line["custom_id"] for line in results(job)[0]] == [f"line-{number}" for number in range(12)]
    assert charged(job) == (12, 12 * PRICE)


def test_a_claim_that_was_lost_splits_nothing(cast) -> None:
    job = started(cast.tenant, 4)
    claim = slices.claim_slice()
    hold_nothing(job)
    assert slices.claim_slice()
    assert not slices.split_slice(claim, first_line=3, start=100)
    assert len(slices.list_slices(job)) == 1


def test_a_slice_that_is_split_while_its_batch_is_cancelled_ends(cast) -> None:
    job = started(cast.tenant, 4)
    claim = slices.claim_slice()
    jobs.cancel_batch(cast.tenant, job.id)
    rows = running.read_rows(claim, slices.load_job(claim))
    assert slices.split_slice(claim, first_line=rows[2].number, start=rows[2].start)
    turns.run_errands()
    assert jobs.get_job(cast.tenant, job.id).state == "cancelled"
    assert [line["custom_id"] for line in results(job)[1]] == [f"line-{number}" for number in range(4)]


def test_a_single_line_that_ended_two_processes_is_given_up_without_a_third(cast, monkeypatch) -> None:
    job = started(cast.tenant, 1)
    for _ in range(slices.DEATHS):
        death_of(slices.claim_slice())
    monkeypatch.setattr(trials, "run_apart", None)
    monkeypatch.setattr(running, "_run_group", None)
    turns.run_claim(slices.claim_slice())
    assert [line["error"]["code"] for line in results(job)[1]] == ["worker_crashed"]
    assert charged(job) == (0, 0)


def test_a_slice_that_ended_a_process_is_run_apart_and_so_are_all_of_a_job_that_ended_several(cast, monkeypatch) -> None:
    job = started(cast.tenant, 8)
    apart: list[int] = []
    monkeypatch.setattr(trials, "run_apart", lambda claim: apart.append(claim.first_line))
    death_of(slices.claim_slice())
    turns.run_claim(slices.claim_slice())
    assert apart == [1]
    with as_tenant(cast.tenant.id):
        Job.objects.filter(pk=job.pk).update(deaths=turns.WARY)
    turns.run_claim(slices.claim_slice())
    assert apart == [1, 5]


def test_a_process_apart_does_the_whole_work_and_its_death_is_noted(cast, monkeypatch) -> None:
    job = started(cast.tenant, 8)
    trials.run_apart(slices.claim_slice())
    assert jobs.get_job(cast.tenant, job.id).completed == 4
    claim = slices.claim_slice()
    with monkeypatch.context() as patch:
        patch.setattr(trials.subprocess, "run", lambda *_, **__: ending(-signal.SIGSEGV))
        trials.run_apart(claim)
    assert (spread(job)[1], jobs.get_job(cast.tenant, job.id).deaths) == ((5, 4, 1), 1)
    assert slices.claim_slice().deaths == 1


def ending(code: int, said: bytes = trials.BEGUN) -> subprocess.CompletedProcess:
    return subprocess.CompletedProcess([], code, said)


@pytest.mark.parametrize("how", [ending(1, b""), ending(-signal.SIGKILL, b""), ending(-signal.SIGTERM)])
def test_a_process_apart_that_did_not_begin_or_was_stopped_blames_nobody(cast, monkeypatch, how) -> None:
    job = started(cast.tenant, 4)
    monkeypatch.setattr(trials.subprocess, "run", lambda *_, **__: how)
    trials.run_apart(slices.claim_slice())
    assert spread(job) == [(1, 4, 0)]
    with as_tenant(cast.tenant.id):
        assert Slice.objects.get(job=job).attempts == 0
