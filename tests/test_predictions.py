"""Predictions through the whole product: web, Redis, the online server, the ledger."""

import base64
import json
import os
import signal
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from apps.catalog import services as catalog
from apps.inference import services as inference
from apps.inference.predictions import Wanted
from apps.usage import services as usage
from maas import ids
from maas.rest import Client
from tests.conftest import ROOT
from tests.live import Live, wait_until_ready

MODELS = ("cifar10-resnet9", "minilm-squad", "tatoeba-en-de", "minilm-embed")


def post(live: Live, body: dict | bytes, path: str = "/v1/predictions", **headers: str) -> tuple[int, dict]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(
        live.url + path, raw, {"Authorization": f"Bearer {live.key.secret}", "Content-Type": "application/json", **headers}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def samples(name: str) -> list:
    return [json.loads(line)["inputs"] for line in (ROOT / "models" / name / "samples.jsonl").read_text().splitlines()]


def used(live: Live) -> dict[str, int]:
    return usage.totals(live.key.row.tenant, timezone.now() - timedelta(days=1), timezone.now() + timedelta(days=1))


@pytest.mark.parametrize("name", MODELS)
def test_each_model_answers_one_and_many_and_is_charged_exactly(live, name) -> None:
    before, inputs = used(live), samples(name)[:5]
    status, one = post(live, {"model": name, "inputs": inputs[0]})
    assert status == 200, one
    status, many = post(live, {"model": f"{name}@current", "inputs": inputs})
    assert status == 200, many
    assert len(many["outputs"]) == 5
    assert {"id", "object", "created", "model", "version", "outputs", "usage", "timing"} == set(one)
    after = used(live)
    assert after["requests"] - before["requests"] == 2
    assert after["units"] - before["units"] == one["usage"]["units"] + many["usage"]["units"]


def test_the_shapes_are_those_of_the_hugging_face_tasks(live) -> None:
    _, picture = post(live, {"model": "cifar10-resnet9", "inputs": samples("cifar10-resnet9")[0], "parameters": {"top_k": 3}})
    assert [set(row) for row in picture["outputs"]] == [{"label", "score"}] * 3
    inputs = {"question": "Where is the pump?", "context": "The pump sits behind the left panel."}
    _, answer = post(live, {"model": "minilm-squad", "inputs": inputs})
    found = answer["outputs"]
    assert inputs["context"][found["start"] : found["end"]] == found["answer"]
    assert "panel" in found["answer"]
    _, text = post(live, {"model": "tatoeba-en-de", "inputs": "Good morning."})
    assert "Morgen" in text["outputs"]["translation_text"]


def test_concurrent_calls_get_their_own_answers(live) -> None:
    inputs = samples("minilm-squad")[:24]
    alone = {row["question"]: post(live, {"model": "minilm-squad", "inputs": row})[1]["outputs"]["answer"] for row in inputs}
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda row: (row["question"], post(live, {"model": "minilm-squad", "inputs": row})), inputs))
    assert all(status == 200 for _, (status, _) in together)
    assert {question: body["outputs"]["answer"] for question, (_, body) in together} == alone


def test_an_uploaded_picture_can_be_named(live) -> None:
    body = base64.b64decode(samples("cifar10-resnet9")[0].partition(",")[2])
    file = Client(live.url, live.key.secret).upload("a.png", body, purpose="batch")
    status, answer = post(live, {"model": "cifar10-resnet9", "inputs": file["id"]})
    assert status == 200, answer


def test_with_the_server_gone_callers_get_504_at_their_deadline_and_pay_nothing(live) -> None:
    before = used(live)
    live.kill("online")
    try:
        begun = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            answers = list(
                pool.map(
                    lambda text: post(live, {"model": "tatoeba-en-de", "inputs": text}, **{"X-Deadline-Ms": "1500"}),
                    ["a b", "c d", "e f", "g h"],
                )
            )
        assert time.monotonic() - begun < 6
        assert {(status, body["error"]["code"]) for status, body in answers} == {(504, "deadline_exceeded")}
    finally:
        live.start("online")
        wait_until_ready(live)
    status, _ = post(live, {"model": "tatoeba-en-de", "inputs": "Good morning."})
    assert status == 200
    assert used(live)["requests"] - before["requests"] == 1


def test_a_frozen_server_charges_nobody_who_gave_up(live) -> None:
    """The server takes the calls, sleeps past their deadline, then finds that they were given up."""
    before = used(live)
    process = live.processes["online"]
    os.kill(process.pid, signal.SIGSTOP)
    try:
        status, body = post(live, {"model": "tatoeba-en-de", "inputs": "Good evening."}, **{"X-Deadline-Ms": "700"})
        assert (status, body["error"]["code"]) == (504, "deadline_exceeded")
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert post(live, {"model": "tatoeba-en-de", "inputs": "Good evening."})[0] == 200
    assert used(live)["requests"] - before["requests"] == 1


def test_models_are_listed_with_price_card_and_metrics(live) -> None:
    tenant = live.key.row.tenant
    assert {model.name for model in catalog.list_models(tenant)} >= set(MODELS)
    request = urllib.request.Request(f"{live.url}/v1/models/minilm-squad", headers={"Authorization": f"Bearer {live.key.secret}"})
    with urllib.request.urlopen(request) as answer:
        body = json.load(answer)
    assert body["price"] == {"unit": "token", "per": 384, "units": 1}
    assert body["metrics"][0].keys() >= {"metric", "value", "dataset", "split", "n"}
    assert body["card"].startswith("#")


def test_a_repeated_call_gets_the_first_answer_and_is_charged_once(live) -> None:
    before, body, key = used(live), {"model": MODELS[0], "inputs": samples(MODELS[0])[0]}, {"Idempotency-Key": uuid4().hex}
    first, second = post(live, body, **key), post(live, body, **key)
    assert first[0] == 200 and first == second
    assert post(live, {**body, "inputs": samples(MODELS[0])[1]}, **key)[0] == 422
    assert used(live)["requests"] - before["requests"] == 1


def test_a_call_whose_web_process_died_is_charged_once_when_it_is_repeated(live) -> None:
    """The first attempt was answered and charged, but nobody got the answer: the repeat takes the charge back."""
    tenant, inputs, before = live.key.row.tenant, samples(MODELS[0])[0], used(live)
    lost, repeat = ids.uuid7(), ids.uuid7()
    inference.predict(tenant, Wanted(MODELS[0], inputs), call_id=lost)
    answer = inference.predict(tenant, Wanted(MODELS[0], inputs), call_id=repeat, instead_of=lost)
    assert answer["id"] == ids.encode(ids.PREDICTION, repeat)
    assert used(live)["units"] - before["units"] == answer["usage"]["units"]
