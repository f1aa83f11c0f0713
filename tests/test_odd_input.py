"""Values that nobody should send, in every place where something can be sent: an error of the caller's, never a 500."""

import itertools
import json
import random

import pytest

from tests.belongings import belongings
from tests.cast import browser_for, client_for
from tests.walk import fill, owned, plain, to_sign_in

TEXTS = [
    "",
    "\x00",
    "a\x00b",
    "\ud83d",
    "🙂",
    "a" * 5000,
    "-1",
    "1e309",
    "99999999999999999999",
    "null",
    "../..",
    "%",
    "'",
    "<b>",
    "NaN",
    "٣",
]
VALUES = [None, True, -1, 0, 1.5, 10**30, [], {}, [[]], {"a": {"b": []}}, *TEXTS]
FIELDS = [
    "limit",
    "after",
    "order",
    "purpose",
    "start",
    "end",
    "group_by",
    "format",
    "include_revoked",
    "task",
    "period",
    "q",
    "state",
    "month",
]
BODIES = {
    "/v1/predictions": {"model": "minilm-squad", "inputs": {"question": "q", "context": "c"}, "parameters": {"top_k": 1}},
    "/v1/keys": {"name": "n", "scopes": ["predict"], "expires_at": 4102444800},
    "/v1/batches": {"input_file_id": "file-0", "endpoint": "/v1/predictions", "completion_window": "24h", "metadata": {"a": "b"}},
}


def lists() -> list[str]:
    return [f"/{route}" for route in plain()]


def test_odd_query_values_are_never_our_error(cast) -> None:
    callers = client_for(cast.key), browser_for(cast.owner)
    dice, failed = random.Random(1), []
    for path, field in itertools.product(lists(), FIELDS):
        value = dice.choice(TEXTS).replace("\ud83d", "\ufffd")
        for caller in callers:
            status = caller.get(path, {field: value}).status_code
            if status >= 500 and path != "/readyz":  # no online server runs beside this test
                failed.append((path, field, value[:20], status))
    assert failed == []


@pytest.mark.parametrize("path", BODIES)
def test_odd_body_values_are_never_our_error(cast, path, settings_of) -> None:
    caller, failed = client_for(cast.key), []
    for field, value in itertools.product(BODIES[path], VALUES):
        raw = json.dumps({**BODIES[path], field: value})
        answer = caller.post(path, raw, content_type="application/json", HTTP_X_DEADLINE_MS="1")
        if answer.status_code >= 500 and answer.status_code != 504:  # nobody answers calls beside this test
            failed.append((field, str(value)[:20], answer.status_code))
    assert failed == []


def test_odd_ids_are_not_found(cast) -> None:
    names = dict.fromkeys(belongings(cast), "")
    callers, failed = (client_for(cast.key), browser_for(cast.owner)), []
    for route, text in itertools.product(owned(), ["x", "%00", "file-" + "0" * 32, "🙂", "a" * 3000, "batch_" + "g" * 32]):
        for caller in callers:
            answer = caller.get(fill(route, dict.fromkeys(names, text)))
            if answer.status_code not in {404, 405, 403, 401} and not to_sign_in(answer):
                failed.append((route, text[:20], answer.status_code))
    assert failed == []
