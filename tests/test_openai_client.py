"""The unmodified `openai` client against the running product: models, files, batches."""

import contextlib
import http.client
import json
import time
from urllib.parse import urlsplit
from uuid import uuid4

import openai
import pytest
from django.db.models import Sum
from django.utils import timezone

from apps.jobs.models import Job
from apps.usage.models import UsageRecord
from maas import ids
from maas.tenancy import as_tenant
from tests.conftest import ROOT
from tests.live import Live

MODEL = "cifar10-resnet9"
ENDPOINT = "/v1/predictions"
PATIENCE = 120  # seconds


@pytest.fixture
def client(live: Live) -> openai.OpenAI:
    return openai.OpenAI(api_key=live.key.secret, base_url=f"{live.url}/v1")


def samples() -> list:
    return [json.loads(line)["inputs"] for line in (ROOT / "models" / MODEL / "samples.jsonl").read_text().splitlines()]


def lines(count: int) -> bytes:
    inputs = samples()
    bodies = [{"model": MODEL, "inputs": inputs[number % len(inputs)], "parameters": {"top_k": 2}} for number in range(count)]
    rows = [{"custom_id": f"line-{number}", "method": "POST", "url": ENDPOINT, "body": body} for number, body in enumerate(bodies)]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def upload(client: openai.OpenAI, content: bytes):
    return client.files.create(file=("lines.jsonl", content), purpose="batch")


def start(client: openai.OpenAI, content: bytes, **options):
    file = upload(client, content)
    return client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h", **options)  # type: ignore[arg-type]


def wait(client: openai.OpenAI, batch_id: str):
    end = time.monotonic() + PATIENCE
    while (batch := client.batches.retrieve(batch_id)).status in {"validating", "in_progress", "finalizing", "cancelling"}:
        assert time.monotonic() < end, batch
        time.sleep(0.2)
    return batch


def rows_of(client: openai.OpenAI, file_id: str | None) -> list[dict]:
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()] if file_id else []


def test_models_are_listed_and_shown(client) -> None:
    listed = list(client.models.list())
    assert MODEL in {model.id for model in listed}
    shown = client.models.retrieve(MODEL)
    assert (shown.id, shown.object, type(shown.created), shown.owned_by) == (MODEL, "model", int, "maas")


def test_files_go_round(client) -> None:
    content = lines(3)
    made = client.files.create(file=("lines.jsonl", content), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600})
    assert (made.bytes, made.purpose, made.filename, made.expires_at) == (len(content), "batch", "lines.jsonl", made.created_at + 3600)
    assert client.files.retrieve(made.id) == made
    assert client.files.wait_for_processing(made.id).status == "processed"
    assert client.files.content(made.id).read() == content
    assert made.id in {file.id for file in client.files.list(purpose="batch", limit=1)}  # pages through all
    assert client.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made.id)


def test_a_batch_from_upload_to_download(client) -> None:
    good, bad = lines(60), b'{"custom_id": "bad", "method": "POST", "url": "/v1/predictions", "body": {"model": "none", "inputs": "x"}}\n'
    made = start(client, good + bad, metadata={"team": "blue"})
    batch = wait(client, made.id)
    assert (batch.status, batch.metadata, batch.model, batch.errors) == ("completed", {"team": "blue"}, None, None)
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 61, "completed": 60, "failed": 1}
    output, failed = rows_of(client, batch.output_file_id), rows_of(client, batch.error_file_id)
    assert [row["custom_id"] for row in output] == [f"line-{number}" for number in range(60)]
    assert [(row["custom_id"], row["response"]["status_code"]) for row in failed] == [("bad", 400)]
    assert len(output[0]["response"]["body"]["outputs"]) == 2
    assert batch.id in {one.id for one in client.batches.list(limit=1)}


def test_a_line_of_a_batch_is_what_a_call_answers(client) -> None:
    output = rows_of(client, wait(client, start(client, lines(1)).id).output_file_id)[0]["response"]["body"]
    called = client.post("/predictions", body={"model": MODEL, "inputs": samples()[0], "parameters": {"top_k": 2}}, cast_to=object)
    assert set(output) == set(called)  # type: ignore[call-overload]
    assert [row["label"] for row in output["outputs"]] == [row["label"] for row in called["outputs"]]  # type: ignore[index]
    assert output["usage"] == called["usage"]  # type: ignore[index]


def test_batches_are_listed_page_by_page_newest_first(client) -> None:
    made = [start(client, lines(1), metadata={"number": str(number)}).id for number in range(3)]
    first = client.batches.list(limit=2)
    assert ([one.id for one in first.data], first.has_more) == (made[:0:-1], True)
    second = first.get_next_page()
    assert second.data[0].id == made[0]
    assert client.batches.list(limit=1, after=made[1]).data[0].id == made[0]
    assert [one.metadata for one in first.data] == [{"number": "2"}, {"number": "1"}]
    assert [wait(client, one).status for one in made] == ["completed"] * 3


def run_into(client: openai.OpenAI, content: bytes):
    """A batch of which something is done and something is not."""
    made = start(client, content)
    end = time.monotonic() + PATIENCE
    while not (batch := client.batches.retrieve(made.id)).request_counts.completed:  # type: ignore[union-attr]
        assert time.monotonic() < end and batch.status in {"validating", "in_progress"}, batch
        time.sleep(0.05)
    return batch


def check_partial(client: openai.OpenAI, live: Live, batch, *, code: str, count: int) -> None:
    """What is done is in one file and charged to the unit, the rest in the other."""
    output, failed = rows_of(client, batch.output_file_id), rows_of(client, batch.error_file_id)
    assert output and failed
    assert [row["custom_id"] for row in output + failed] == [f"line-{number}" for number in range(count)]
    assert {(row["error"]["code"], row["response"]) for row in failed} == {(code, None)}
    assert batch.request_counts.to_dict() == {"total": count, "completed": len(output), "failed": 0}
    units = sum(row["response"]["body"]["usage"]["units"] for row in output)
    with as_tenant(live.key.row.tenant_id):
        charged = UsageRecord.objects.filter(job_id=ids.decode(ids.BATCH, batch.id)).aggregate(Sum("units"), Sum("requests"))
    assert (charged["units__sum"], charged["requests__sum"], batch.units) == (units, len(output), units)


def test_cancelling_in_the_middle_keeps_and_charges_what_is_done(client, live) -> None:
    running, begun = run_into(client, lines(6000)), time.monotonic()
    assert client.batches.cancel(running.id).status == "cancelling"
    batch = wait(client, running.id)
    assert (batch.status, time.monotonic() - begun < 10) == ("cancelled", True)
    assert None not in {batch.cancelling_at, batch.cancelled_at, batch.in_progress_at}
    check_partial(client, live, batch, code="batch_cancelled", count=6000)
    assert client.batches.cancel(running.id).status == "cancelled"


def test_a_batch_whose_window_passes_keeps_and_charges_what_is_done(client, live) -> None:
    running = run_into(client, lines(6000))
    with as_tenant(live.key.row.tenant_id):  # as if a day had passed
        Job.objects.filter(pk=ids.decode(ids.BATCH, running.id)).update(expires_at=timezone.now())
    batch = wait(client, running.id)
    assert (batch.status, batch.expired_at is not None) == ("expired", True)
    check_partial(client, live, batch, code="batch_expired", count=6000)
    with pytest.raises(openai.BadRequestError, match="expired"):
        client.batches.cancel(running.id)


def test_lines_with_bad_bodies_are_told_apart_in_the_error_file(client) -> None:
    bodies = [{"model": MODEL}, {"model": MODEL, "inputs": "no base64!"}, {"model": 5, "inputs": "x"}, "text", None]
    rows = [{"custom_id": f"bad-{number}", "method": "POST", "url": ENDPOINT, "body": body} for number, body in enumerate(bodies)]
    batch = wait(client, start(client, lines(2) + b"".join(json.dumps(row).encode() + b"\n" for row in rows)).id)
    failed = rows_of(client, batch.error_file_id)
    assert (batch.status, batch.request_counts.to_dict()) == ("completed", {"total": 7, "completed": 2, "failed": 5})
    assert [(row["custom_id"], row["response"]["status_code"], row["error"]) for row in failed] == [
        (f"bad-{n}", 400, None) for n in range(5)
    ]
    assert failed[1]["response"]["body"]["error"]["code"] == "invalid_base64"


def test_every_line_that_is_no_request_is_told_with_its_number(client) -> None:
    row = json.loads(lines(1))
    wrong = [b"{nonsense", json.dumps({**row, "custom_id": ""}).encode(), json.dumps({**row, "custom_id": "a", "method": "GET"}).encode(),
             json.dumps({**row, "custom_id": "b", "url": "/v1/models"}).encode(), lines(1).strip()]  # fmt: skip
    batch = wait(client, start(client, lines(1) + b"\n".join(wrong)).id)
    assert (batch.status, batch.output_file_id, batch.error_file_id) == ("failed", None, None)
    told = [(error.code, error.line) for error in batch.errors.data]
    assert told == [
        ("invalid_json_line", 2),
        ("invalid_custom_id", 3),
        ("invalid_method", 4),
        ("invalid_url", 5),
        ("duplicate_custom_id", 6),
    ]


def test_lines_that_are_no_requests_are_skipped_when_the_metadata_says_so(client) -> None:
    batch = wait(client, start(client, lines(2) + b"{nonsense\n", metadata={"on_invalid": "skip"}).id)
    failed = rows_of(client, batch.error_file_id)
    assert (batch.status, batch.request_counts.to_dict()) == ("completed", {"total": 3, "completed": 2, "failed": 1})
    assert [(row["custom_id"], row["error"]["code"], row["error"]["line"]) for row in failed] == [(None, "invalid_json_line", 3)]


def test_a_batch_that_is_created_twice_with_one_idempotency_key_is_one(client) -> None:
    file, again = upload(client, lines(1)), {"Idempotency-Key": f"batch-{uuid4().hex}"}
    wanted = {"input_file_id": file.id, "endpoint": ENDPOINT, "completion_window": "24h", "extra_headers": again}
    one, two = client.batches.create(**wanted), client.batches.create(**wanted)
    assert one.id == two.id
    with pytest.raises(openai.APIStatusError) as caught:
        client.batches.create(**{**wanted, "metadata": {"another": "request"}})
    assert caught.value.status_code in {400, 409, 422}
    assert [batch.id for batch in client.batches.list(limit=100) if batch.input_file_id == file.id] == [one.id]
    assert wait(client, one.id).request_counts.completed == 1


def test_a_broken_file_fails_with_its_line(client) -> None:
    batch = wait(client, start(client, lines(2) + b"{nonsense\n").id)
    assert (batch.status, batch.output_file_id) == ("failed", None)
    assert batch.errors is not None and batch.errors.data is not None
    assert [(error.code, error.line) for error in batch.errors.data] == [("invalid_json_line", 3)]
    with pytest.raises(openai.BadRequestError, match="failed"):
        client.batches.cancel(batch.id)


def test_errors_are_the_clients_own(client, live) -> None:
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(api_key="maas_wrong", base_url=f"{live.url}/v1").files.list()
    with pytest.raises(openai.NotFoundError) as caught:
        client.batches.retrieve("batch_" + "0" * 32)
    assert caught.value.request_id and caught.value.request_id.startswith("req_")
    with pytest.raises(openai.BadRequestError, match="endpoint"):
        client.batches.create(input_file_id=upload(client, b"x").id, endpoint="/v1/chat/completions", completion_window="24h")


class Endless:
    """201 MB, of which only what is asked for is made."""

    made = 0

    def __iter__(self):
        for _ in range(201):
            self.made += 2**20
            yield b"x" * 2**20


def test_a_file_past_the_limit_is_refused_before_it_is_read(live) -> None:
    body, address = Endless(), urlsplit(live.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    headers = {
        "Authorization": f"Bearer {live.key.secret}",
        "Content-Type": "multipart/form-data; boundary=x",
        "Content-Length": str(201 * 2**20),
    }
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the server has answered and hung up
        connection.request("POST", "/v1/files", body=body, headers=headers)
    answer = connection.getresponse()
    assert (answer.status, json.load(answer)["error"]["code"]) == (413, "file_too_large")
    assert body.made < 201 * 2**20
