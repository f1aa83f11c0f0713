"""Running batches: order, shapes, charges, early ends, lost claims. The worker's functions are called as Celery would."""

import json
import random
from collections import Counter
from datetime import timedelta

import pytest
from django.core.files.storage import default_storage
from django.db import OperationalError, connection
from django.utils import timezone

from apps.accounts.models import Tenant
from apps.catalog.models import Version
from apps.files import services as files
from apps.files.models import File
from apps.jobs import parts, slices, stages, sweeping
from apps.jobs import services as jobs
from apps.jobs.models import Job, Slice
from apps.usage.models import UsageRecord
from maas import ids, queue
from maas.tenancy import SystemUse, as_system, as_tenant
from tests.conftest import HOME
from tests.queueing import replace_nudge
from tests.tiny import NAME, load_tiny, picture
from workers.batch import assembly, running, sizing, validation

ENDPOINT = "/v1/predictions"
PRICE = 3  # units an image, of the tiny model


@pytest.fixture(scope="module")
def tiny() -> Version:
    return load_tiny(HOME / "tiny")


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tiny) -> list:
    """Messages are noted, not sent; jobs and messages that other tests left are out of the way."""
    told: list = []
    queue.connect().delete("batch")
    replace_nudge(monkeypatch, lambda name, **arguments: told.append(name))
    monkeypatch.setattr(sizing, "SLICE_INPUTS", 4)
    with as_system(SystemUse.SWEEP):
        Job.objects.filter(finished_at=None).update(finished_at=timezone.now(), tidied_at=timezone.now())
    return told


def request(number: int, **body) -> dict:
    body = {"model": NAME, "inputs": picture(number), "parameters": {"top_k": 1}} | body
    return {"custom_id": f"line-{number}", "method": "POST", "url": ENDPOINT, "body": body}


def start(tenant, rows: list[dict], key=None, **options) -> Job:
    content = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    file = files.create_file(tenant, filename="lines.jsonl", purpose="batch", chunks=[content])
    return jobs.create_batch(
        tenant, input_file_id=ids.encode(ids.FILE, file.id), endpoint=ENDPOINT, completion_window="24h", key=key, **options
    )


def started(tenant, count: int = 10) -> Job:
    job = start(tenant, [request(number) for number in range(count)])
    validation.validate_batch(tenant.id, job.id)
    return jobs.get_job(tenant, job.id)


def work(limit: int = 10_000) -> None:
    """Run slices until none waits."""
    while limit and (claim := slices.claim_slice()):
        running.run_slice(claim)
        limit -= 1


def read(tenant, file) -> list[dict]:
    return [json.loads(line) for line in files.open_file(tenant, file.id)] if file else []


def results(job: Job) -> tuple[list[dict], list[dict]]:
    tenant = Tenant(id=job.tenant_id)
    job = jobs.get_job(tenant, job.id)
    return read(tenant, job.batch.output_file), read(tenant, job.batch.error_file)


def charged(job: Job) -> tuple[int, int]:
    """Requests and units in the ledger."""
    with as_tenant(job.tenant_id):
        rows = list(UsageRecord.objects.filter(job_id=job.id))
    return sum(row.requests for row in rows), sum(row.units for row in rows)


def hold_nothing(job: Job) -> None:
    """All leases have run out, as after the death of every worker."""
    with as_system(SystemUse.SWEEP):
        Slice.objects.filter(job=job, state="open").update(lease_until=timezone.now() - timedelta(seconds=1))
        Job.objects.filter(pk=job.pk).update(lease_until=None)


def test_a_batch_answers_every_line_in_order_and_charges_exactly(cast) -> None:
    rows = [request(number) for number in range(20)]
    rows[3] = request(3, inputs=[picture(1), picture(2), picture(3)])
    job = start(cast.tenant, rows, key=cast.key.row, metadata={"a": "b"})
    validation.validate_batch(cast.tenant.id, job.id)
    work()
    job = jobs.get_job(cast.tenant, job.id)
    output, failed = results(job)
    assert (job.state, job.total, job.completed, job.failed, failed, job.model_names) == ("succeeded", 20, 20, 0, [], [NAME])
    assert [line["custom_id"] for line in output] == [f"line-{number}" for number in range(20)]
    assert (charged(job), job.units) == ((20, 22 * PRICE), 22 * PRICE)
    with as_tenant(cast.tenant.id):
        assert set(UsageRecord.objects.filter(job_id=job.id).values_list("kind", "key_id")) == {("slice", cast.key.row.id)}
    assert len(output[3]["response"]["body"]["outputs"]) == 3
    assert sum(line["response"]["body"]["usage"]["units"] for line in output) == job.units


def test_an_answered_line_is_what_a_call_answers(cast) -> None:
    job = started(cast.tenant, 1)
    work()
    line = results(job)[0][0]
    assert set(line) == {"id", "custom_id", "response", "error"}
    assert line["id"].startswith("batch_req_")
    assert (line["error"], line["response"]["status_code"]) == (None, 200)
    body = line["response"]["body"]
    assert list(body) == ["id", "object", "created", "model", "version", "outputs", "usage", "timing"]
    assert (body["object"], body["model"], body["usage"]) == ("prediction", NAME, {"units": PRICE, "unit": "image"})
    assert set(body["outputs"][0]) == {"label", "score"}


def test_bad_bodies_become_errors_of_their_line_and_cost_nothing(cast) -> None:
    file = ids.encode(ids.FILE, files.create_file(cast.tenant, filename="p.png", purpose="vision", chunks=[_bytes(picture())]).id)
    foreign = ids.encode(ids.FILE, files.create_file(cast.other, filename="p.png", purpose="vision", chunks=[_bytes(picture())]).id)
    bad = [
        ("model_not_found", {"model": "none"}), ("unknown_field", {"surprise": 1}), ("invalid_base64", {"inputs": "no base64!"}),
        ("invalid_image", {"inputs": "aGVsbG8="}), ("invalid_value", {"inputs": None}), ("invalid_value", {"model": 5}),
        ("invalid_length", {"inputs": []}), ("unknown_parameter", {"parameters": {"x": 1}}),
        ("invalid_value", {"parameters": {"top_k": 0}}), ("file_not_found", {"inputs": foreign}),
    ]  # fmt: skip
    rows = [request(0, inputs=file), *[request(number, **body) for number, (_, body) in enumerate(bad, 1)], request(99)]
    job = start(cast.tenant, rows)
    validation.validate_batch(cast.tenant.id, job.id)
    work()
    output, failed = results(job)
    assert [line["custom_id"] for line in output] == ["line-0", "line-99"]
    assert [line["response"]["body"]["error"]["code"] for line in failed] == [code for code, _ in bad]
    assert {(line["response"]["status_code"], line["error"]) for line in failed} == {(400, None)}
    assert (jobs.get_job(cast.tenant, job.id).state, charged(job)) == ("succeeded", (2, 2 * PRICE))


def _bytes(text: str) -> bytes:
    import base64

    return base64.b64decode(text)


def test_a_batch_whose_lines_all_fail_is_completed_without_an_output_file(cast, api) -> None:
    job = start(cast.tenant, [request(number, model="none") for number in range(6)])
    validation.validate_batch(cast.tenant.id, job.id)
    work()
    shown = api(cast.key).get(f"/v1/batches/{ids.encode(ids.BATCH, job.id)}").json()
    assert (shown["status"], shown["output_file_id"], shown["request_counts"]) == (
        "completed",
        None,
        {"total": 6, "completed": 0, "failed": 6},
    )
    assert (len(results(job)[1]), charged(job)) == (6, (0, 0))


def test_output_files_are_batch_output_and_expire_as_asked(cast) -> None:
    job = start(cast.tenant, [request(1)], output_expires_in=3600)
    validation.validate_batch(cast.tenant.id, job.id)
    work()
    file = jobs.get_job(cast.tenant, job.id).batch.output_file
    assert (file.purpose, round((file.expires_at - file.created_at).total_seconds()), file.filename) == (
        "batch_output", 3600, f"{ids.encode(ids.BATCH, job.id)}_output.jsonl",
    )  # fmt: skip


# ---------- early ends ----------
def test_cancelling_keeps_and_charges_what_is_done_and_lists_the_rest(cast, api) -> None:
    job = started(cast.tenant, 20)
    work(2)
    held = slices.claim_slice()
    assert held is not None
    path = f"/v1/batches/{ids.encode(ids.BATCH, job.id)}"
    assert api(cast.key).post(path + "/cancel").json()["status"] == "cancelling"
    assert api(cast.key).post(path + "/cancel").status_code == 200
    assert slices.claim_slice() is None
    running.run_slice(held)  # a slice in work is finished, and it was the last
    shown = api(cast.key).get(path).json()
    assert (shown["status"], shown["request_counts"]) == ("cancelled", {"total": 20, "completed": 12, "failed": 0})
    assert None not in {shown["cancelling_at"], shown["cancelled_at"], shown["finalizing_at"]}
    output, failed = results(job)
    assert [line["custom_id"] for line in output] == [f"line-{number}" for number in range(12)]
    assert [line["custom_id"] for line in failed] == [f"line-{number}" for number in range(12, 20)]
    assert {(line["error"]["code"], line["response"]) for line in failed} == {("batch_cancelled", None)}
    assert charged(job) == (12, 12 * PRICE)


def test_cancelling_when_the_worker_is_dead_ends_with_the_sweep(cast) -> None:
    job = started(cast.tenant, 8)
    assert slices.claim_slice()
    jobs.cancel_batch(cast.tenant, job.id)
    assert jobs.get_job(cast.tenant, job.id).state == "cancelling"
    hold_nothing(job)
    sweeping.sweep_jobs()
    assembly.finish_batch(cast.tenant.id, job.id)
    assert (jobs.get_job(cast.tenant, job.id).state, len(results(job)[1])) == ("cancelled", 8)


def test_a_batch_that_is_being_assembled_cannot_be_cancelled(cast, api, monkeypatch) -> None:
    job = started(cast.tenant, 4)
    monkeypatch.setattr(running, "finish_batch", lambda *_: None)
    work()
    answer = api(cast.key).post(f"/v1/batches/{ids.encode(ids.BATCH, job.id)}/cancel")
    assert (answer.status_code, "finalizing" in answer.json()["error"]["message"]) == (400, True)


@pytest.mark.parametrize("done", [0, 1])
def test_an_expired_batch_keeps_what_is_done(cast, done) -> None:
    job = started(cast.tenant, 8)
    work(done)
    with as_tenant(cast.tenant.id):
        Job.objects.filter(pk=job.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    sweeping.sweep_jobs()
    assembly.finish_batch(cast.tenant.id, job.id)
    output, failed = results(job)
    assert jobs.get_job(cast.tenant, job.id).state == "expired"
    assert (len(output), {line["error"]["code"] for line in failed}, len(failed)) == (4 * done, {"batch_expired"}, 8 - 4 * done)


def test_a_batch_that_expires_before_its_check_ends_without_files(cast) -> None:
    job = start(cast.tenant, [request(1)])
    with as_tenant(cast.tenant.id):
        Job.objects.filter(pk=job.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    sweeping.sweep_jobs()
    job = jobs.get_job(cast.tenant, job.id)
    assert (job.state, job.batch.output_file, job.batch.error_file) == ("expired", None, None)
    files.delete_file(cast.tenant, job.batch.input_file_id)


# ---------- claims ----------
def test_a_worker_that_lost_its_claim_writes_nothing(cast) -> None:
    job = started(cast.tenant, 4)
    slow = slices.claim_slice()
    hold_nothing(job)
    fast = slices.claim_slice()
    assert slow and fast and (fast.id, fast.fence) == (slow.id, slow.fence + 1)
    running.run_slice(slow)
    assert (jobs.get_job(cast.tenant, job.id).completed, charged(job)) == (0, (0, 0))
    assert not default_storage.exists(parts.part_path(job.id, slow.number, slow.fence))
    assert not slices.renew_slice(slow)
    assert slices.renew_slice(fast)
    running.run_slice(fast)
    running.run_slice(slow)
    assert (len(results(job)[0]), charged(job)) == (4, (4, 4 * PRICE))


def test_tenants_take_turns(cast) -> None:
    started(cast.tenant, 80)
    small = started(cast.other, 12)
    taken = [slices.claim_slice().tenant_id for _ in range(8)]
    assert taken[:6] == [cast.tenant.id, cast.other.id] * 3
    assert taken[6:] == [cast.tenant.id] * 2
    assert small.total == 12


def test_two_jobs_of_a_tenant_take_turns_but_count_as_one(cast) -> None:
    both = [started(cast.tenant, 40), started(cast.tenant, 40)]
    started(cast.other, 40)
    taken = Counter(slices.claim_slice().job_id for _ in range(8))
    assert [taken[job.id] for job in both] == [2, 2]


def test_a_store_that_is_away_costs_no_attempt_and_another_failure_does(cast, monkeypatch) -> None:
    started(cast.tenant, 4)
    for error, attempts in ((OperationalError("away"), 0), (OSError("full"), 0), (RuntimeError("broken"), 1)):
        claim = slices.claim_slice()
        with monkeypatch.context() as patch:
            patch.setattr(parts, "write_part", _raiser(error))
            running.run_slice(claim)
        with as_system(SystemUse.SWEEP):
            assert Slice.objects.get(pk=claim.id).attempts == attempts
            assert slices.claim_slice() is None  # for a moment
            Slice.objects.filter(pk=claim.id).update(lease_until=None)


def test_a_slice_is_given_back_when_a_database_that_was_away_is_there_again(cast, monkeypatch) -> None:
    """Left without a word, it would count as a slice that ended its worker."""
    started(cast.tenant, 4)
    claim, give_back, tries = slices.claim_slice(), slices.give_back, []

    def away(*args, **kwargs) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise OperationalError("still away")
        give_back(*args, **kwargs)

    monkeypatch.setattr(running, "AWAY_SECONDS", 0)
    monkeypatch.setattr(slices, "give_back", away)
    monkeypatch.setattr(parts, "write_part", _raiser(OperationalError("away")))
    running.run_slice(claim)
    with as_system(SystemUse.SWEEP):
        row = Slice.objects.get(pk=claim.id)
    assert (len(tries), row.holder, row.attempts, row.deaths) == (3, "", 0, 0)


def _raiser(error: BaseException):
    def fail(*args, **kwargs):
        raise error

    return fail


def test_one_line_that_the_model_cannot_take_does_not_harm_the_others(cast, monkeypatch) -> None:
    from workers.versions import LOADED

    job = started(cast.tenant, 8)
    with as_tenant(cast.tenant.id):
        version_id = Version.objects.get(model__name=NAME).id
    predictor = LOADED.get(version_id)[1]
    whole = type(predictor).predict

    def moody(self, inputs, parameters):
        if _bytes(picture(5)) in inputs:
            raise RuntimeError("out of luck")
        return whole(self, inputs, parameters)

    monkeypatch.setattr(type(predictor), "predict", moody)
    work()
    output, failed = results(job)
    assert [line["custom_id"] for line in failed] == ["line-5"]
    assert (failed[0]["response"]["status_code"], len(output), charged(job)) == (500, 7, (7, 7 * PRICE))


# ---------- sweeps ----------
def test_the_sweep_nudges_what_nobody_works_on(cast, quiet) -> None:
    job = start(cast.tenant, [request(number) for number in range(8)])
    with as_tenant(cast.tenant.id):
        Job.objects.filter(pk=job.pk).update(created_at=timezone.now() - timedelta(seconds=10))
    quiet.clear()
    sweeping.sweep_jobs()
    assert quiet == ["workers.tasks.validate_batch"]
    validation.validate_batch(cast.tenant.id, job.id)
    quiet.clear()
    sweeping.sweep_jobs()
    assert quiet == ["workers.tasks.run_slices"] * 2


def test_assembly_that_died_is_done_again_and_leaves_one_file(cast, monkeypatch, quiet) -> None:
    job = started(cast.tenant, 8)
    with monkeypatch.context() as patch:
        patch.setattr(stages, "finish_job", _raiser(SystemExit()))
        with pytest.raises(SystemExit):
            work()
    assert jobs.get_job(cast.tenant, job.id).state == "running"
    assert [file.purpose for file in files.list_files(cast.tenant)[0]] == ["batch"]
    hold_nothing(job)
    with as_tenant(cast.tenant.id):
        job.batch.__class__.objects.filter(job=job).update(finalizing_at=timezone.now() - timedelta(seconds=10))
    quiet.clear()
    sweeping.sweep_jobs()
    assert quiet == ["workers.tasks.finish_batch"]
    assembly.finish_batch(cast.tenant.id, job.id)
    assembly.finish_batch(cast.tenant.id, job.id)
    assert len(results(job)[0]) == 8
    assert sorted(file.purpose for file in files.list_files(cast.tenant)[0]) == ["batch", "batch_output"]


def test_two_assemblies_at_once_leave_one_file(cast, monkeypatch) -> None:
    job = started(cast.tenant, 4)
    monkeypatch.setattr(running, "finish_batch", lambda *_: None)
    work()
    first = stages.claim_job(cast.tenant.id, job.id, stages.TO_FINISH)
    assert first is not None
    hold_nothing(job)
    assembly.finish_batch(cast.tenant.id, job.id)
    assert not stages.finish_job(first, output=None, error=None)
    assert len(results(job)[0]) == 4


def test_parts_are_removed_some_time_after_the_end(cast) -> None:
    job = started(cast.tenant, 8)
    work()
    sweeping.sweep_jobs()
    assert default_storage.exists(parts.part_path(job.id, 0, 1))
    with as_tenant(cast.tenant.id):
        Job.objects.filter(pk=job.pk).update(finished_at=timezone.now() - timedelta(minutes=11))
    sweeping.sweep_jobs()
    assert not default_storage.exists(parts.folder(job.id))
    assert len(results(job)[0]) == 8
    with as_tenant(cast.tenant.id):
        assert Job.objects.get(pk=job.pk).tidied_at


@pytest.mark.parametrize("seed", range(5))
def test_workers_that_die_anywhere_lose_and_double_nothing(cast, monkeypatch, seed) -> None:
    """Each of these functions may end the worker before or after it did its work."""
    dice = random.Random(seed)
    count = dice.randint(5, 40)
    rows = [request(number, **({"model": "none"} if dice.random() < 0.2 else {})) for number in range(count)]
    job = start(cast.tenant, rows)
    places = [
        (parts, "write_part"),
        (slices, "write_slice"),
        (stages, "start_job"),
        (stages, "finish_job"),
        (files, "write_file"),
        (running, "finish_batch"),
    ]
    with monkeypatch.context() as patch:
        for module, name in places:
            patch.setattr(module, name, _deadly(getattr(module, name), dice))
        for _ in range(400):
            _live_until_death(cast, job, dice)
            if jobs.get_job(cast.tenant, job.id).finished_at:
                break
            with as_system(SystemUse.SWEEP):
                Slice.objects.filter(job=job).update(attempts=0)
            hold_nothing(job)
    _check_whole(job, rows)


class Death(BaseException):
    """A worker ends here."""


def _deadly(function, dice):
    def maybe(*args, **kwargs):
        if dice.random() < 0.1:
            raise Death
        result = function(*args, **kwargs)
        if dice.random() < 0.1:
            raise Death
        return result

    return maybe


def _live_until_death(cast, job, dice) -> None:
    try:
        validation.validate_batch(cast.tenant.id, job.id)
        work(dice.randint(1, 5))
        assembly.finish_batch(cast.tenant.id, job.id)
    except Death:
        assert not connection.in_atomic_block


def _check_whole(job: Job, rows: list[dict]) -> None:
    """Every line answered exactly once, in order, and charged to the unit."""
    job = jobs.get_job(Tenant(id=job.tenant_id), job.id)
    output, failed = results(job)
    good = [row["custom_id"] for row in rows if row["body"]["model"] == NAME]
    assert job.state == "succeeded"
    assert [line["custom_id"] for line in output] == good
    assert [line["custom_id"] for line in failed] == [row["custom_id"] for row in rows if row["body"]["model"] != NAME]
    assert (job.total, job.completed, job.failed) == (len(rows), len(good), len(rows) - len(good))
    assert (charged(job), job.units) == ((len(good), len(good) * PRICE), len(good) * PRICE)
    with as_tenant(job.tenant_id):
        assert File.objects.exclude(stored_at=None).count() == 1 + bool(output) + bool(failed)
