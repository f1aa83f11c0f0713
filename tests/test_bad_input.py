"""Bad input gets a clear error that names the field, costs nothing, and never a 500."""

import base64
import io
import json
import struct
import zlib

import pytest
from PIL import Image

from apps.catalog.shipping import load_folder
from tests.cast import client_for
from tests.conftest import ROOT

QUESTION = {"question": "Who?", "context": "Anna was here."}


@pytest.fixture(scope="module", autouse=True)
def catalogue() -> None:
    list(load_folder(ROOT / "models"))


def b64(body: bytes) -> str:
    return base64.b64encode(body).decode()


def png(width: int = 8, height: int = 8) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height)).save(out, "PNG")
    return out.getvalue()


def bomb() -> bytes:
    """A PNG of 200 bytes that says it is 60,000 x 60,000."""
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))  # noqa: E731
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


CASES = [
    # body, param, code
    ({}, "model", "missing_field"),
    ({"model": "minilm-squad"}, "inputs", "missing_field"),
    ({"model": None, "inputs": QUESTION}, "model", "invalid_value"),
    ({"model": 5.5, "inputs": [], "x": 1}, "x", "unknown_field"),
    ({"model": ["a"], "inputs": QUESTION}, "model", "invalid_value"),
    ({"model": "m" * 201, "inputs": QUESTION}, "model", "invalid_value"),
    ({"model": "minilm-squad", "inputs": None}, "inputs", "invalid_value"),
    ({"model": "minilm-squad", "inputs": QUESTION, "temperature": 1}, "temperature", "unknown_field"),
    ({"model": "minilm-squad", "inputs": "text"}, "inputs", "invalid_type"),
    ({"model": "minilm-squad", "inputs": []}, "inputs", "invalid_length"),
    ({"model": "minilm-squad", "inputs": [QUESTION] * 129}, "inputs", "invalid_length"),
    ({"model": "minilm-squad", "inputs": {"question": "q"}}, "inputs.context", "missing_field"),
    ({"model": "minilm-squad", "inputs": [QUESTION, {"context": "c"}]}, "inputs[1].question", "missing_field"),
    ({"model": "minilm-squad", "inputs": {**QUESTION, "top": 1}}, "inputs.top", "unknown_field"),
    ({"model": "minilm-squad", "inputs": {**QUESTION, "question": " "}}, "inputs.question", "empty"),
    ({"model": "minilm-squad", "inputs": {**QUESTION, "question": 7}}, "inputs.question", "invalid_type"),
    ({"model": "minilm-squad", "inputs": {**QUESTION, "context": "x" * 20_001}}, "inputs.context", "too_long"),
    ({"model": "minilm-squad", "inputs": [{**QUESTION, "context": "x " * 9_999}] * 20}, "inputs", "too_long"),
    ({"model": "minilm-squad", "inputs": [[QUESTION]]}, "inputs[0]", "invalid_type"),
    ({"model": "minilm-squad", "inputs": QUESTION, "parameters": []}, "parameters", "invalid_type"),
    ({"model": "minilm-squad", "inputs": QUESTION, "parameters": {"top_k": 0}}, "parameters.top_k", "invalid_value"),
    ({"model": "minilm-squad", "inputs": QUESTION, "parameters": {"top_k": True}}, "parameters.top_k", "invalid_value"),
    ({"model": "minilm-squad", "inputs": QUESTION, "parameters": {"beam": 2}}, "parameters.beam", "unknown_parameter"),
    ({"model": "tatoeba-en-de", "inputs": 5}, "inputs", "invalid_type"),
    ({"model": "tatoeba-en-de", "inputs": ""}, "inputs", "empty"),
    ({"model": "tatoeba-en-de", "inputs": "x" * 4001}, "inputs", "too_long"),
    ({"model": "tatoeba-en-de", "inputs": ["ok", None]}, "inputs[1]", "invalid_type"),
    ({"model": "cifar10-resnet9", "inputs": 1}, "inputs", "invalid_type"),
    ({"model": "cifar10-resnet9", "inputs": "no picture!"}, "inputs", "invalid_base64"),
    ({"model": "cifar10-resnet9", "inputs": ""}, "inputs", "empty"),
    ({"model": "cifar10-resnet9", "inputs": b64(b"GIF89a not really")}, "inputs", "invalid_image"),
    ({"model": "cifar10-resnet9", "inputs": b64(png(64, 64)[:50])}, "inputs", "invalid_image"),
    ({"model": "cifar10-resnet9", "inputs": b64(bomb())}, "inputs", "too_large"),
    ({"model": "cifar10-resnet9", "inputs": ["data:image/png;base64," + b64(png()), "data:image/png;base64,"]}, "inputs[1]", "empty"),
]


@pytest.mark.parametrize(("body", "param", "code"), CASES, ids=lambda case: str(case)[:60] if isinstance(case, str) else "")
def test_a_bad_prediction_names_its_field(cast, body, param, code) -> None:
    answer = client_for(cast.key).post("/v1/predictions", body, format="json")
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code), error
    assert error["request_id"] == answer["x-request-id"]
    assert client_for(cast.key).get("/v1/usage").json()["data"] == []


@pytest.mark.parametrize(
    "name", ["nothing", "nothing@1", "minilm-squad@99", "minilm-squad@candidate", "../etc", "a b", "acme/secret", "minilm-squad@"]
)
def test_an_unknown_model_is_404(cast, name) -> None:
    answer = client_for(cast.key).post("/v1/predictions", {"model": name, "inputs": QUESTION}, format="json")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"[1]", b'"text"', b"null", b"\xff\xfe{}", b'{"model": "a", "inputs": "\xff"}', b'{"a": 1} {"b": 2}',
        b'{"model": NaN}', b"[" * 5000, b'{"model": "minilm-squad", "inputs": {"question": "\\ud800", "context": "c"}}',
    ],
)  # fmt: skip
def test_a_body_that_is_no_json_object_is_400(cast, body) -> None:
    answer = client_for(cast.key).post("/v1/predictions", body, content_type="application/json")
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize("text", ["0", "-1", "soon", "999999999", "1e3", "", "١"])
def test_a_bad_deadline_is_400(cast, text) -> None:
    answer = client_for(cast.key).post(
        "/v1/predictions", {"model": "minilm-squad", "inputs": QUESTION}, format="json", HTTP_X_DEADLINE_MS=text
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "X-Deadline-Ms")


def test_another_tenants_file_is_no_picture(cast) -> None:
    from apps.files import services as files
    from maas import ids

    file = files.create_file(cast.other, filename="a.png", purpose="batch", chunks=iter([png()]))
    answer = client_for(cast.key).post(
        "/v1/predictions", {"model": "cifar10-resnet9", "inputs": ids.encode(ids.FILE, file.id)}, format="json"
    )
    assert answer.status_code == 404
    assert "inputs" in json.dumps(answer.json())


@pytest.mark.parametrize(
    "path", ["/v1/nothing", "/v1/models/nothing", "/v1/keys/x", "/v1/files/file-0", "/v1/batches/batch_zz", "/v1/models/a%00b"]
)
def test_wrong_addresses_are_404_in_the_one_error_shape(cast, path) -> None:
    answer = client_for(cast.key).get(path)
    assert answer.status_code == 404
    assert set(answer.json()["error"]) == {"message", "type", "param", "code", "request_id"}


@pytest.mark.parametrize("path", ["/v1/models", "/v1/usage", "/v1/keys/key_" + "0" * 32])
def test_wrong_methods_are_405(cast, path) -> None:
    answer = client_for(cast.key).put(path, {}, format="json")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/files?limit=0",
        "/v1/files?limit=x",
        "/v1/batches?limit=101",
        "/v1/files?after=1",
        "/v1/files?order=up",
        "/v1/batches?after=batch_1",
    ],
)
def test_bad_paging_is_400(cast, path) -> None:
    answer = client_for(cast.key).get(path)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    ("scope", "method", "path"),
    [
        ("usage", "post", "/v1/predictions"),
        ("predict", "get", "/v1/usage"),
        ("predict", "get", "/v1/files"),
        ("files", "get", "/v1/batches"),
        ("files", "get", "/v1/keys"),
        ("files", "get", "/v1/models"),
    ],
)
def test_a_missing_scope_is_403(cast, scope, method, path) -> None:
    answer = getattr(client_for(cast.key_with(scope)), method)(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "missing_scope")
