"""Batches and models whose files lie in a bucket: everything from the upload to the download, and memory that stays flat."""

import json
import shutil

import pytest
from django.utils import timezone

from apps.catalog import services as catalog
from apps.files import services as files
from apps.jobs import parts, slices
from apps.jobs import services as jobs
from apps.jobs.models import Batch, Job
from maas import ids, s3
from maas.storage import StorageAway
from maas.tenancy import SystemUse, as_system, as_tenant
from tests.bucket import BucketServer, peak, stored_in
from tests.conftest import HOME
from tests.queueing import replace_nudge
from tests.test_files import upload
from tests.tiny import NAME, load_tiny, picture
from workers import fetching
from workers.batch import assembly, running, sizing, validation
from workers.batch.assembly import finish_batch

MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def server():
    running = BucketServer()
    running.start()
    yield running
    running.stop()


@pytest.fixture
def bucket(server, monkeypatch):
    """The storage, the tiny model within it, no messages, and no jobs of other tests."""
    replace_nudge(monkeypatch, lambda name, **arguments: None)
    monkeypatch.setattr(sizing, "SLICE_INPUTS", 4)
    with as_system(SystemUse.SWEEP):
        Job.objects.filter(finished_at=None).update(finished_at=timezone.now(), tidied_at=timezone.now())
    with stored_in(server):
        load_tiny(HOME / "tiny")
        yield server


def lines(count: int) -> bytes:
    bodies = [{"model": NAME, "inputs": picture(number)} for number in range(count)]
    rows = [{"custom_id": f"line-{n}", "method": "POST", "url": "/v1/predictions", "body": body} for n, body in enumerate(bodies)]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def begin(cast, client, count: int) -> str:
    """A batch over an uploaded file, checked; its id."""
    file = upload(client, lines(count)).json()
    body = {"input_file_id": file["id"], "endpoint": "/v1/predictions", "completion_window": "24h"}
    batch_id = client.post("/v1/batches", body, format="json").json()["id"]
    validation.validate_batch(cast.tenant.id, ids.decode(ids.BATCH, batch_id))
    return batch_id


def work(limit: int = 1000) -> None:
    while limit and (claim := slices.claim_slice()):
        running.run_slice(claim)
        limit -= 1


def download(client, file_id: str) -> list[dict]:
    return [json.loads(line) for line in b"".join(client.get(f"/v1/files/{file_id}/content").streaming_content).splitlines()]


def test_a_batch_runs_from_upload_to_download(bucket, cast, api) -> None:
    client = api(cast.key)
    version = catalog.resolve(cast.tenant, NAME)
    shutil.rmtree(fetching._fetched(version), ignore_errors=True)  # so that it is fetched from the bucket
    assert (fetching.fetch_folder(version) / "model.safetensors").read_bytes() == (HOME / "tiny" / "model.safetensors").read_bytes()
    batch_id = begin(cast, client, 30)
    work()
    shown = client.get(f"/v1/batches/{batch_id}").json()
    assert (shown["status"], shown["request_counts"]["completed"], shown["error_file_id"]) == ("completed", 30, None)
    assert [line["custom_id"] for line in download(client, shown["output_file_id"])] == [f"line-{number}" for number in range(30)]
    assert any(name.startswith(f"here/jobs/{ids.decode(ids.BATCH, batch_id).hex}/") for name in bucket.names())


def test_a_cancelled_batch_lists_what_was_not_run(bucket, cast, api) -> None:
    """Its error file is made from the input in the bucket and rows of the database, while it is uploaded."""
    client = api(cast.key)
    batch_id = begin(cast, client, 20)
    work(2)
    client.post(f"/v1/batches/{batch_id}/cancel")
    assembly.finish_batch(cast.tenant.id, ids.decode(ids.BATCH, batch_id))
    shown = client.get(f"/v1/batches/{batch_id}").json()
    assert shown["status"] == "cancelled"
    done = [line["custom_id"] for name in ("output_file_id", "error_file_id") for line in download(client, shown[name])]
    assert done == [f"line-{number}" for number in range(20)]


def test_a_slice_waits_while_the_bucket_is_away_and_its_lines_are_not_failed(bucket, server, cast, api, monkeypatch) -> None:
    monkeypatch.setattr(s3, "TIMES", s3.TIMES | {"connect_timeout": 1, "retries": {"total_max_attempts": 1}})
    client = api(cast.key)
    batch_id = begin(cast, client, 8)
    with stored_in(server, port=1):
        for _attempt in range(slices.ATTEMPTS + 1):
            claim = slices.claim_slice()
            running.run_slice(claim)
            with as_system(SystemUse.SWEEP):
                slices.Slice.objects.filter(pk=claim.id).update(lease_until=None)
    work()
    shown = client.get(f"/v1/batches/{batch_id}").json()
    assert (shown["status"], shown["request_counts"]) == ("completed", {"total": 8, "completed": 8, "failed": 0})


def test_large_outputs_are_put_together_in_little_memory(bucket, cast, api) -> None:
    client = api(cast.key)
    batch_id = begin(cast, client, 40)  # ten slices
    job_id = ids.decode(ids.BATCH, batch_id)
    size = 15 * MEBIBYTE
    with as_tenant(cast.tenant.id):
        for row in slices.Slice.objects.filter(job_id=job_id):
            parts.write_part(job_id, row.number, 1, b"%d" % row.number * size, b"")
        slices.Slice.objects.filter(job_id=job_id).update(state="done", part=1, output_bytes=size, completed=4)
        Batch.objects.filter(job_id=job_id).update(finalizing_at=timezone.now())
    grown = peak(lambda: finish_batch(cast.tenant.id, job_id))
    file = jobs.get_job(cast.tenant, job_id).batch.output_file
    assert file.bytes == 10 * size
    with files.open_file(cast.tenant, file.id) as body:
        for number in range(10):
            body.seek(number * size)
            assert body.read(1) == b"%d" % number
    assert grown < 64 * MEBIBYTE, grown / MEBIBYTE


def test_an_assembly_that_lost_the_bucket_is_done_again_and_leaves_nothing_half(bucket, server, cast, api, monkeypatch) -> None:
    client = api(cast.key)
    batch_id = begin(cast, client, 8)
    job_id = ids.decode(ids.BATCH, batch_id)
    with monkeypatch.context() as patch:
        patch.setattr(running, "finish_batch", lambda *_: None)
        work()
    with monkeypatch.context() as patch:
        patch.setattr(parts, "read_part", lambda *_: _broken())
        with pytest.raises(StorageAway):
            finish_batch(cast.tenant.id, job_id)
    assert client.get(f"/v1/batches/{batch_id}").json()["status"] == "finalizing" and not bucket.uploads()
    with as_tenant(cast.tenant.id):
        Job.objects.filter(pk=job_id).update(lease_until=None)
    finish_batch(cast.tenant.id, job_id)
    shown = client.get(f"/v1/batches/{batch_id}").json()
    assert shown["status"] == "completed" and len(download(client, shown["output_file_id"])) == 8


def _broken():
    yield b"x" * (20 * MEBIBYTE)
    raise StorageAway("gone in the middle")
