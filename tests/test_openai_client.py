"""The unmodified `openai` client against the running product: models, files, batches."""

import contextlib
import http.client
import json
import time
from urllib.parse import urlsplit

import openai
import pytest

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


def test_cancelling_ends_within_seconds_and_every_line_is_in_one_of_the_files(client) -> None:
    made = start(client, lines(4000))
    while client.batches.retrieve(made.id).status == "validating":
        time.sleep(0.05)
    client.batches.cancel(made.id)
    begun = time.monotonic()
    batch = wait(client, made.id)
    assert (batch.status, time.monotonic() - begun < 10) == ("cancelled", True)
    output, failed = rows_of(client, batch.output_file_id), rows_of(client, batch.error_file_id)
    assert [row["custom_id"] for row in output + failed] == [f"line-{number}" for number in range(4000)]
    assert {row["error"]["code"] for row in failed} <= {"batch_cancelled"}
    assert client.batches.cancel(made.id).status == "cancelled"


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
