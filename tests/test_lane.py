"""The fast lane: what it answers itself is what Django would have answered, and nothing that changed is acted on."""

import base64
import io
import json
import struct
import time
import zlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.test import Client
from django.utils import timezone
from PIL import Image

from apps.accounts import keys, suspension
from apps.catalog import services as catalog
from apps.catalog.models import Alias, Model
from apps.inference import remembering
from apps.usage import blocks
from maas import pictures, queue, stamps
from maas.limits import MINUTE
from maas.stamps import renew_on_commit
from maas.tenancy import as_tenant
from tests import test_online
from tests.cast import Key
from tests.fire import charged
from tests.lanes import (
    BODY,
    DARK,
    EMBEDDINGS,
    PATIENCE,
    PREDICTIONS,
    House,
    Told,
    bearer,
    counted,
    desk,
    give,
    goes,
    in_line,
    left,
    limited,
    open_house,
    take,
    until,
    voided,
    warm,
)  # fmt: skip
from tests.queueing import empty_queue
from tests.test_direct import make_version, own_model
from tests.tiny import NAME, picture

VARIES = {"content-length", "x-request-id"}
tiny, start = test_online.tiny, test_online.start  # a real online server, for who asks for it


@pytest.fixture
def house(tiny) -> Iterator[House]:
    empty_queue()
    with open_house() as found:
        yield found


@pytest.fixture
def asked(monkeypatch) -> list[Any]:
    """All SQL of this process, whoever asks."""
    found: list[Any] = []
    for kind in (psycopg.Cursor, psycopg.ServerCursor):
        real = kind.execute
        monkeypatch.setattr(
            kind, "execute", lambda self, query, *given, real=real, **more: found.append(query) or real(self, query, *given, **more)
        )
    return found


# ---------- the short way ----------
def test_the_first_calls_go_the_long_way_and_the_next_ask_the_database_nothing(house, cast, asked) -> None:
    assert [goes(house, cast.key.secret)[0] for _ in range(3)] == [False, False, True]
    assert asked
    asked.clear()
    for _ in range(5):
        is_quick, told = goes(house, cast.key.secret)
        assert is_quick and told.status == 200
    assert asked == []


def test_a_call_is_remembered_while_it_waits(house, cast) -> None:
    """When answers take long, not every call until the first of them may hold a thread."""
    asked = []
    for number in range(1, 5):
        asked.append(house.begin(PREDICTIONS, BODY, bearer(cast.key.secret)))
        until(lambda number=number: in_line() == number)
    give(take(4), DARK)
    assert [one.result(PATIENCE).status for one in asked] == [200] * 4 and house.answered == 2


def test_what_the_lane_answers_is_charged_exactly(house, cast, start) -> None:
    start()
    told = [house.ask(PREDICTIONS, BODY, bearer(cast.key.secret)) for _ in range(12)]
    assert house.answered >= 9 and {one.status for one in told} == {200}
    assert sum(charged(cast.tenant).values()) == sum(one.json["usage"]["units"] for one in told) == 36
    blocks.give_back()
    with desk(DARK):
        assert house.ask(PREDICTIONS, BODY, bearer(cast.key.secret)).status == 200


def test_many_calls_at_once_get_each_its_own_answer(house, cast, start) -> None:
    warm(house, cast.key.secret)
    before = len(charged(cast.tenant))
    start()
    told = [one.result(PATIENCE) for one in [house.begin(PREDICTIONS, BODY, bearer(cast.key.secret)) for _ in range(100)]]
    assert {one.status for one in told} == {200}
    assert len({one.json["id"] for one in told}) == 100 == len(charged(cast.tenant)) - before


# ---------- both ways say the same ----------
def shape(value: Any) -> Any:
    """A body without what differs from call to call."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in value.items() if name not in {"id", "created", "request_id", "timing"}}
    return value


def same(quick: Told, path: str, body: Any, secret: str, **headers: str) -> Told:
    """See that Django alone answers as the lane did."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    slow = Client().post(path, raw, "application/json", headers={"Authorization": f"Bearer {secret}", **headers})
    names = {name.lower(): value for name, value in slow.items()}
    assert (quick.status, shape(quick.json)) == (slow.status_code, shape(slow.json()))
    assert set(quick.headers) - VARIES == set(names) - VARIES
    plain = [name for name in names if "ratelimit" not in name and name not in VARIES]
    assert {name: quick.headers[name] for name in plain} == {name: names[name] for name in plain}
    assert quick.headers["x-request-id"].startswith("req_") and int(quick.headers["content-length"]) == len(quick.body)
    return quick


def test_both_ways_tell_the_same(house, cast) -> None:
    key = limited(cast, limits={"requests_per_minute": 1000, "units_per_minute": 100_000})
    warm(house, key.secret)
    for body in (BODY, {**BODY, "inputs": [picture()]}, {**BODY, "parameters": {"top_k": 1}}):
        is_quick, told = goes(house, key.secret, body)
        assert is_quick and "x-ratelimit-limit-units" in told.headers
        with desk(DARK):
            same(told, PREDICTIONS, body, key.secret)


@pytest.mark.parametrize("kind", ["BadRequest", "Unavailable", "NotFound", "what nobody knows"])
def test_both_ways_tell_a_servers_error_and_take_back_what_was_charged(house, cast, kind) -> None:
    failed = queue.Answer([], 0, 0, 0, error={"kind": kind, "message": "inputs: no.", "param": "inputs", "code": "odd"})
    warm(house, cast.key.secret)
    before = house.answered
    with desk(failed):
        told = house.ask(PREDICTIONS, BODY, bearer(cast.key.secret))
        assert house.answered == before + 1
        same(told, PREDICTIONS, BODY, cast.key.secret)
    assert charged(cast.tenant) == {} and voided(cast.tenant) == 2


def test_both_ways_tell_of_a_full_queue_and_count_the_call(house, cast, settings_of) -> None:
    key = limited(cast, limits={"requests_per_minute": 1000})
    warm(house, key.secret)
    before, units = house.answered, left(cast.tenant)
    with settings_of(MAAS_QUEUE_LIMIT=0):
        told = house.ask(PREDICTIONS, BODY, bearer(key.secret))
        assert (told.status, house.answered) == (503, before + 1) and told.headers["retry-after"]
        same(told, PREDICTIONS, BODY, key.secret)
    assert in_line() == 0 and left(cast.tenant) == units
    assert goes(house, key.secret)[0]


def test_both_ways_tell_of_a_deadline_and_charge_nothing(house, cast) -> None:
    warm(house, cast.key.secret)
    before = house.answered
    told = house.ask(PREDICTIONS, BODY, bearer(cast.key.secret, **{"x-deadline-ms": "150"}))
    assert told.status == 504 and house.answered == before + 1
    same(told, PREDICTIONS, BODY, cast.key.secret, **{"X-Deadline-Ms": "150"})
    assert in_line() == 0 and charged(cast.tenant) == {}


LONG = {"model": NAME, "inputs": [picture()] * 17}
ODD = [
    # body, headers, more
    (BODY, {"content-encoding": "gzip"}, {}),
    (BODY, {"host": "elsewhere.example"}, {}),
    (BODY, {"content-type": "text/plain"}, {}),
    (BODY, {"x-deadline-ms": "soon"}, {}),
    (BODY, {"x-deadline-ms": "0"}, {}),
    (b"{", {}, {}),
    (b"[1]", {}, {}),
    (b"", {}, {}),
    (b"null", {}, {}),
    (b"\xff\xfe", {}, {}),
    (b"[" * 3000, {}, {}),
    ({**BODY, "more": 1}, {}, {}),
    ({**BODY, "inputs": None}, {}, {}),
    ({**BODY, "model": 7}, {}, {}),
    ({**BODY, "model": "nothing"}, {}, {}),
    ({**BODY, "model": NAME + "@nothing"}, {}, {}),
    ({**BODY, "inputs": "file-x"}, {}, {}),
    ({**BODY, "inputs": {"a": 1}}, {}, {}),
    ({**BODY, "inputs": []}, {}, {}),
    ({**BODY, "parameters": {"top_k": 0}}, {}, {}),
    ({**BODY, "parameters": [1]}, {}, {}),
    (LONG, {}, {}),
    ({**BODY, "parameters": {"top_k": 1, "x": "y" * 70_000}}, {}, {}),
]


@pytest.mark.parametrize(("body", "headers", "more"), ODD, ids=[f"{n}" for n in range(len(ODD))])
def test_what_is_not_plain_gets_djangos_answer(house, cast, body, headers, more) -> None:
    warm(house, cast.key.secret)
    before = house.answered
    some = queue.Answer([[{"label": "dark", "score": 1.0}]] * (17 if body is LONG else 1), 3, 1.0, 2.0)
    with desk(some):
        told = house.ask(PREDICTIONS, body, bearer(cast.key.secret, **headers), **more)
        if told.headers["content-type"] == "application/json":
            same(told, PREDICTIONS, body, cast.key.secret, **headers)
    is_fine = headers.get("content-type") == "text/plain"  # nobody asks what a key's body is called
    assert house.answered == before + is_fine
    assert not [one for one in blocks._blocks.values() if one.running and one.tenant_id == cast.tenant.id]


def test_a_call_that_says_when_it_is_repeated_is_answered_once(house, cast) -> None:
    warm(house, cast.key.secret)
    before = house.answered
    with desk(DARK) as seen:
        told = [house.ask(PREDICTIONS, BODY, bearer(cast.key.secret, **{"idempotency-key": "once"})) for _ in range(2)]
    assert told[0].json == told[1].json and len(seen) == 1 and house.answered == before


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize("kind", pictures.PACKED)
def test_a_picture_that_unpacks_to_much_does_not_keep_the_loop_busy(house, cast, kind) -> None:
    warm(house, cast.key.secret)
    plain = base64.b64decode(picture())
    large = plain[:33] + chunk(kind, b"x\0\0" + zlib.compress(bytes(900_000))) + plain[33:]
    is_quick, told = goes(house, cast.key.secret, {**BODY, "inputs": base64.b64encode(large).decode()})
    assert not is_quick and told.status == 200


def test_a_picture_of_many_passes_is_not_quick() -> None:
    body = io.BytesIO()
    Image.new("RGB", (64, 64)).save(body, "JPEG", progressive=True)
    texts = [base64.b64encode(body.getvalue() + b"\xff\xda" * times).decode() for times in (0, 20)]
    assert [pictures.is_small(text) for text in texts] == [True, False]


def test_a_query_and_another_method_go_the_long_way(house, cast) -> None:
    warm(house, cast.key.secret)
    before = house.answered
    with desk(DARK):
        assert house.ask(PREDICTIONS, BODY, bearer(cast.key.secret), query=b"a=1").status == 200
        assert house.ask(PREDICTIONS, b"", bearer(cast.key.secret), method="GET").status == 405
    assert house.answered == before


@pytest.mark.parametrize("name", ["authorization", "x-deadline-ms", "host"])
def test_a_header_that_comes_twice_goes_the_long_way(house, cast, name) -> None:
    warm(house, cast.key.secret)
    before, value = house.answered, {"authorization": f"Bearer {cast.key.secret}", "x-deadline-ms": "30000", "host": "testserver"}[name]
    with desk(DARK):
        told = house.ask(PREDICTIONS, BODY, bearer(cast.key.secret, **{name: value}), more=[(name.encode(), value.encode())])
    assert house.answered == before and told.status in {400, 401}


def test_a_header_with_an_underscore_is_none(house, cast) -> None:
    """To WSGI it would be the one with a hyphen, which a proxy in front may have checked or set."""
    warm(house, cast.key.secret)
    with desk(DARK):
        told = house.ask(PREDICTIONS, BODY, bearer(cast.key.secret), more=[(b"x_deadline_ms", b"soon")], query=b"a=1")
        assert told.status == 200


def test_a_body_in_pieces_without_a_length_goes_the_long_way(house, cast) -> None:
    warm(house, cast.key.secret)
    before = house.answered
    told = house.ask(PREDICTIONS, BODY, bearer(cast.key.secret, **{"content-length": "", "transfer-encoding": "chunked"}))
    assert told.status == 400 and house.answered == before


# ---------- embeddings ----------
@pytest.fixture
def vectors(cast) -> Model:
    """A model of the first tenant that makes vectors."""
    with as_tenant(cast.tenant.id):
        model = Model.objects.create(tenant=cast.tenant, name=f"{cast.tenant.slug}/vectors", task="feature-extraction", description="-")
        version = make_version(model, 1)
        version.rate = {"unit": "token", "per": 1000, "units": 1}
        version.save()
        Alias.objects.create(tenant=cast.tenant, model=model, name="current", version=version)
    renew_on_commit(cast.tenant.id)
    return model


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings_are_told_the_same_by_both_ways(house, cast, vectors, encoding) -> None:
    body = {"model": vectors.name, "input": ["a", "b"], "encoding_format": encoding}
    with desk(queue.Answer([[0.5, 0.25], [1.0, 0.0]], 1, 0, 0, quantity=4)):
        told = [house.ask(EMBEDDINGS, body, bearer(cast.key.secret)) for _ in range(4)][-1]
        assert house.answered >= 1 and told.status == 200 and told.json["usage"]["total_tokens"] == 4
        same(told, EMBEDDINGS, body, cast.key.secret)
    failed = {"kind": "BadRequest", "message": "inputs[1]: no.", "param": "inputs[1]", "code": "odd"}
    with desk(queue.Answer([], 0, 0, 0, error=failed)):
        error = house.ask(EMBEDDINGS, body, bearer(cast.key.secret))
        assert error.json["error"]["param"] == "input[1]"
        same(error, EMBEDDINGS, body, cast.key.secret)


# ---------- what changed holds with the next call ----------
def revoke(cast: Any, key: Key) -> tuple[int, str]:
    keys.revoke_key(cast.tenant, key.row.id)
    return 401, "key_revoked"


def take_scope(cast: Any, key: Key) -> tuple[int, str]:
    keys.change_key(cast.tenant, key.row.id, scopes=["files"])
    return 403, "missing_scope"


def forbid_model(cast: Any, key: Key) -> tuple[int, str]:
    keys.change_key(cast.tenant, key.row.id, allowed_models=["another"])
    return 403, "model_not_allowed"


def bind(cast: Any, key: Key) -> tuple[int, str]:
    keys.change_key(cast.tenant, key.row.id, allowed_addresses=["203.0.113.9"])
    return 403, "address_not_allowed"


def suspend(cast: Any, key: Key) -> tuple[int, str]:
    suspension.suspend_tenant(cast.tenant, reason="not paid")
    return 403, "organisation_suspended"


@pytest.mark.parametrize("deed", [revoke, take_scope, forbid_model, bind, suspend], ids=lambda deed: deed.__name__)
def test_what_changed_holds_with_the_next_call_and_that_leaves_nothing(house, cast, deed) -> None:
    key = limited(cast, limits={"requests_per_minute": 100})
    warm(house, key.secret)
    units, counts, before = left(cast.tenant), counted(cast.tenant), house.answered
    told = deed(cast, key)
    refused = house.ask(PREDICTIONS, BODY, bearer(key.secret))
    assert (refused.status, refused.code, house.answered) == (*told, before)
    once = MINUTE // 100 if deed is forbid_model else 0  # Django knows who calls, counts, and only then looks for the model
    assert in_line() == 0 and left(cast.tenant) == units
    assert {name: int(value) + once for name, value in counts.items()} == {k: int(v) for k, v in counted(cast.tenant).items()} != {}


def test_a_stale_call_is_counted_once(house, cast) -> None:
    key = limited(cast, limits={"requests_per_minute": 100})
    warm(house, key.secret)
    first = int(goes(house, key.secret)[1].headers["x-ratelimit-remaining-requests"])
    stamps.renew(cast.tenant.id)
    is_quick, told = goes(house, key.secret)
    assert not is_quick and int(told.headers["x-ratelimit-remaining-requests"]) >= first - 1
    assert goes(house, key.secret)[0]  # that one was remembered at once


def test_an_alias_of_ones_own_that_moves_holds_with_the_next_call(house, cast) -> None:
    model = own_model(cast.tenant)
    with as_tenant(cast.tenant.id):
        second = make_version(model, 2)
        catalog.Version.objects.filter(model=model).update(rate={"unit": "image", "per": 1, "units": 3})
    renew_on_commit(cast.tenant.id)
    body = {**BODY, "model": model.name}
    warm(house, cast.key.secret, body)
    assert goes(house, cast.key.secret, body)[1].json["version"] == 1
    with as_tenant(cast.tenant.id):
        Alias.objects.filter(model=model).update(version=second)
        renew_on_commit(cast.tenant.id)
    is_quick, told = goes(house, cast.key.secret, body)
    assert told.json["version"] == 2 and not is_quick


def test_what_everybody_sees_holds_with_the_next_call_when_it_moves(house, cast) -> None:
    warm(house, cast.key.secret)
    stamps.renew(stamps.EVERYBODY)
    assert [goes(house, cast.key.secret)[0] for _ in range(2)] == [False, True]


def test_a_key_that_ends_by_itself_is_refused_then(house, cast, monkeypatch) -> None:
    key = limited(cast, expires_at=timezone.now() + timedelta(hours=1))
    warm(house, key.secret)
    later = timezone.now() + timedelta(hours=1, seconds=1)
    opening = next(one for one in remembering._openings.values() if one.caller.key.id == key.row.id)
    monkeypatch.setattr(opening.caller.key, "expires_at", timezone.now() - timedelta(seconds=1))
    assert remembering.find(key.secret, NAME) is None and later
    assert not goes(house, key.secret)[0]


def test_what_is_remembered_ends_by_itself(house, cast, monkeypatch) -> None:
    warm(house, cast.key.secret)
    now = time.monotonic()
    monkeypatch.setattr(remembering.time, "monotonic", lambda: now + stamps.LIFE + 1)
    assert remembering.find(cast.key.secret, NAME) is None


def test_a_bound_key_and_a_secret_that_was_rotated_are_never_remembered(house, cast) -> None:
    bound = limited(cast, allowed_addresses=["127.0.0.1"])
    keys.rotate_key(cast.tenant, cast.key.row.id)
    for secret in (bound.secret, cast.key.secret):
        assert [goes(house, secret)[0] for _ in range(4)] == [False] * 4
    assert goes(house, cast.key.secret)[1].status == 200


def test_another_tenants_model_is_not_found_whoever_remembers_one_of_that_name(house, cast) -> None:
    model = own_model(cast.tenant)
    with as_tenant(cast.tenant.id):
        catalog.Version.objects.filter(model=model).update(rate={"unit": "image", "per": 1, "units": 3})
    body = {**BODY, "model": model.name}
    warm(house, cast.key.secret, body)
    warm(house, cast.other_key.secret)
    told = house.ask(PREDICTIONS, body, bearer(cast.other_key.secret))
    assert (told.status, told.code) == (404, "model_not_found")


def test_a_flood_of_unknown_keys_and_models_is_not_remembered(house, cast) -> None:
    openings, owners = len(remembering._openings), len(remembering._owners)
    for number in range(30):
        assert house.ask(PREDICTIONS, BODY, bearer(f"maas_{number:046d}")).status == 401
        assert house.ask(PREDICTIONS, {**BODY, "model": f"no-{number}"}, bearer(cast.key.secret)).status == 404
    assert (len(remembering._openings), len(remembering._owners)) == (openings, owners)


def test_what_is_remembered_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(remembering, "MOST", 3)
    where: dict[int, int] = {}
    for number in (1, 2, 3, 1, 4):
        remembering._put(where, number, number)
    assert list(where) == [3, 1, 4]


# ---------- limits ----------
def test_a_call_too_many_is_refused_and_counted_once(house, cast) -> None:
    key = limited(cast, limits={"requests_per_minute": 6})
    warm(house, key.secret)
    told = [goes(house, key.secret)[1] for _ in range(4)]
    refused = [one for one in told if one.status == 429]
    assert len(refused) >= 1 and refused[0].headers["retry-after"] and refused[0].code == "rate_limited"
    assert refused[0].headers["x-ratelimit-remaining-requests"] == "0" and in_line() == 0
    assert sum(one.status == 200 for one in told) == 3  # three were answered to warm it
