"""/v1/embeddings: bad input by name, then the unmodified `openai` client against the running product."""

import json
import time
from base64 import b64decode
from datetime import timedelta

import numpy as np
import openai
import pytest
from django.utils import timezone

from apps.catalog.shipping import load_folder
from apps.usage import services as usage
from maas.predictions import render_embeddings
from tests.cast import client_for
from tests.conftest import ROOT
from tests.live import Live

MODEL = "minilm-embed"
PATH = "/v1/embeddings"
TEXTS = ["The pump sits behind the left panel.", "Where is the pump?", "word " * 120, "Good morning.", "He painted the fence green."]
PATIENCE = 120  # seconds


@pytest.fixture(scope="module", autouse=True)
def catalogue() -> None:
    list(load_folder(ROOT / "models"))


CASES = [
    # body, param, code
    ({"input": "x"}, "model", "missing_field"),
    ({"model": MODEL}, "input", "missing_field"),
    ({"model": 7, "input": "x"}, "model", "invalid_type"),
    ({"model": MODEL, "input": None}, "input", "missing_field"),
    ({"model": MODEL, "input": 5}, "input", "invalid_type"),
    ({"model": MODEL, "input": ""}, "input", "empty"),
    ({"model": MODEL, "input": ["a", " "]}, "input[1]", "empty"),
    ({"model": MODEL, "input": ["a", {"text": "b"}]}, "input[1]", "invalid_type"),
    ({"model": MODEL, "input": []}, "input", "invalid_length"),
    ({"model": MODEL, "input": ["x"] * 129}, "input", "invalid_length"),
    ({"model": MODEL, "input": [1212, 318, 257]}, "input", "tokens_not_taken"),
    ({"model": MODEL, "input": [[1212, 318], [257]]}, "input", "tokens_not_taken"),
    ({"model": MODEL, "input": "x" * 20_001}, "input", "too_long"),
    ({"model": MODEL, "input": ["x " * 9_999] * 20}, "input", "too_long"),
    ({"model": MODEL, "input": "x", "encoding_format": "int8"}, "encoding_format", "invalid_value"),
    ({"model": MODEL, "input": "x", "encoding_format": ["float"]}, "encoding_format", "invalid_value"),
    ({"model": MODEL, "input": "x", "dimensions": 256}, "dimensions", "invalid_value"),
    ({"model": MODEL, "input": "x", "dimensions": "384"}, "dimensions", "invalid_type"),
    ({"model": MODEL, "input": "x", "dimensions": True}, "dimensions", "invalid_type"),
    ({"model": MODEL, "input": "x", "user": 7}, "user", "invalid_type"),
    ({"model": MODEL, "input": "x", "inputs": "x"}, "inputs", "unknown_field"),
    ({"model": "tatoeba-en-de", "input": "x"}, "model", "wrong_task"),
]


@pytest.mark.parametrize(("body", "param", "code"), CASES, ids=lambda case: str(case)[:40] if isinstance(case, str) else "")
def test_a_bad_body_names_its_field_and_costs_nothing(cast, body, param, code) -> None:
    answer = client_for(cast.key).post(PATH, body, format="json")
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code), error
    assert client_for(cast.key).get("/v1/usage").json()["data"] == []


def test_messages_speak_of_input_as_the_body_does(cast) -> None:
    told = client_for(cast.key).post(PATH, {"model": MODEL, "input": ["a", " "]}, format="json").json()["error"]["message"]
    assert told.startswith("input[1]: ")
    long = client_for(cast.key).post(PATH, {"model": MODEL, "input": ["x"] * 129}, format="json").json()["error"]["message"]
    assert "129 texts" in long and "1 to 128" in long


def test_a_key_needs_the_scope_and_the_model_and_there_is_only_post(cast) -> None:
    body = {"model": MODEL, "input": "x"}
    assert client_for(cast.key_with("files")).post(PATH, body, format="json").json()["error"]["code"] == "missing_scope"
    assert client_for(cast.key).post(PATH, {**body, "model": "none"}, format="json").json()["error"]["code"] == "model_not_found"
    assert client_for("maas_wrong").post(PATH, body, format="json").status_code == 401
    assert client_for(cast.key).get(PATH).status_code == 405


def test_base64_is_float32_with_the_low_byte_first() -> None:
    body = render_embeddings([[1.0, -2.5]], model="m", tokens=3, encoding="base64")
    assert body["data"][0]["embedding"] == "AACAPwAAIMA="
    assert body["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


# ---------- the real client ----------
@pytest.fixture
def client(live: Live) -> openai.OpenAI:
    return openai.OpenAI(api_key=live.key.secret, base_url=f"{live.url}/v1", max_retries=0)


def used(live: Live) -> dict[str, int]:
    return usage.totals(live.key.row.tenant, timezone.now() - timedelta(days=1), timezone.now() + timedelta(days=1))


def vectors(answer) -> np.ndarray:
    assert [one.index for one in answer.data] == list(range(len(answer.data)))
    return np.array([one.embedding for one in answer.data], np.float32)


def test_float_and_base64_are_the_same_vectors_in_the_order_of_the_texts(client) -> None:
    packed = client.embeddings.create(model=MODEL, input=TEXTS)  # base64 unless one says otherwise
    plain = client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float", dimensions=384, user="someone")
    assert np.array_equal(vectors(packed), vectors(plain))
    assert vectors(plain).shape == (5, 384)
    assert np.linalg.norm(vectors(plain), axis=1) == pytest.approx(1, abs=1e-5)
    alone = [vectors(client.embeddings.create(model=MODEL, input=text))[0] for text in TEXTS]
    assert np.abs(vectors(packed) - np.array(alone)).max() < 1e-6
    assert (packed.object, packed.model, packed.data[0].object) == ("list", MODEL, "embedding")


def test_tokens_are_told_and_units_charged(client, live) -> None:
    before = used(live)
    answer = client.embeddings.create(model=MODEL, input=["Good morning.", "word " * 120])
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (5 + 122, 5 + 122)
    after = used(live)
    assert (after["requests"] - before["requests"], after["units"] - before["units"]) == (1, 2)


def test_a_prediction_gives_the_same_vector(client) -> None:
    called = client.post("/predictions", body={"model": MODEL, "inputs": TEXTS[0]}, cast_to=object)
    assert called["outputs"] == client.embeddings.create(model=MODEL, input=TEXTS[0], encoding_format="float").data[0].embedding


def test_a_text_past_the_window_is_told_both_numbers_and_costs_nothing(client, live) -> None:
    before = used(live)
    with pytest.raises(openai.BadRequestError, match="has 302 tokens; this model reads at most 256") as caught:
        client.embeddings.create(model=MODEL, input=["a", "word " * 300])
    assert caught.value.param == "input[1]"
    assert used(live) == before


def test_a_repeated_call_with_a_key_is_charged_once(client, live) -> None:
    before, header = used(live), {"Idempotency-Key": f"embed-{time.time_ns()}"}
    first, second = (client.embeddings.create(model=MODEL, input="Good night.", extra_headers=header) for _ in range(2))
    assert np.array_equal(vectors(first), vectors(second))
    assert used(live)["requests"] - before["requests"] == 1


def test_a_batch_of_embeddings_answers_as_calls_do(client) -> None:
    bodies = [{"model": MODEL, "input": text} for text in TEXTS]
    bodies += [{"model": MODEL, "input": TEXTS, "encoding_format": "base64"}, {"model": MODEL, "input": ["a", "word " * 300]}]
    bodies += [{"model": "tatoeba-en-de", "input": "a"}, {"model": MODEL, "inputs": "a"}, {"model": MODEL, "input": [1, 2]}]
    rows = [{"custom_id": str(n), "method": "POST", "url": PATH, "body": body} for n, body in enumerate(bodies)]
    content = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    file = client.files.create(file=("lines.jsonl", content), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
    end = time.monotonic() + PATIENCE
    while (batch := client.batches.retrieve(batch.id)).status in {"validating", "in_progress", "finalizing"}:
        assert time.monotonic() < end, batch
        time.sleep(0.2)
    output = [json.loads(line)["response"]["body"] for line in client.files.content(batch.output_file_id).text.splitlines()]
    failed = [json.loads(line)["response"]["body"]["error"] for line in client.files.content(batch.error_file_id).text.splitlines()]
    called = client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
    alone = np.array([body["data"][0]["embedding"] for body in output[:5]], np.float32)
    assert np.abs(alone - vectors(called)).max() < 1e-6
    assert set(output[0]) == {"object", "data", "model", "usage"} and output[5]["usage"]["total_tokens"] == called.usage.total_tokens
    packed = [np.frombuffer(b64decode(one["embedding"]), "<f4") for one in output[5]["data"]]
    assert np.abs(np.array(packed) - alone).max() < 1e-6
    assert [(one["param"], one["code"]) for one in failed] == [
        ("input[1]", "invalid_value"), ("model", "wrong_task"), ("inputs", "unknown_field"), ("input", "tokens_not_taken"),
    ]  # fmt: skip
