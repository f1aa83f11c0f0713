"""The fast lane when something goes wrong: callers that leave, Redis and the database away, the last moment, our own flaws."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from apps.inference import lane as lanes
from apps.usage import blocks
from maas import queue
from tests import test_online
from tests.fire import charged
from tests.lanes import (
    BODY,
    DARK,
    PATIENCE,
    PREDICTIONS,
    House,
    bearer,
    desk,
    give,
    goes,
    in_line,
    left,
    open_house,
    take,
    until,
    voided,
    warm,
)  # fmt: skip
from tests.queueing import empty_queue
from tests.redis_away import Proxy

tiny, start = test_online.tiny, test_online.start  # a real online server, for who asks for it


@pytest.fixture
def house(tiny) -> Iterator[House]:
    empty_queue()
    with open_house() as found:
        yield found


# ---------- callers that leave ----------
def test_a_caller_that_hangs_up_takes_its_call_out_of_the_line(house, cast) -> None:
    warm(house, cast.key.secret)
    leave, units = house.event(), left(cast.tenant)[0]
    asked = house.begin(PREDICTIONS, BODY, bearer(cast.key.secret), gone=leave.event)
    until(lambda: in_line() == 1)
    leave()
    assert asked.result(PATIENCE).status == 0
    assert in_line() == 0 and queue.take("desk/0", 32).calls == [] and charged(cast.tenant) == {}
    assert left(cast.tenant) == [units - 3]  # a server may have begun with it: nobody says that it did not
    assert goes(house, cast.key.secret)[0]


def test_a_caller_that_hangs_up_while_it_sends_leaves_nothing(house, cast) -> None:
    warm(house, cast.key.secret)
    before, leave, raw = house.answered, house.event(), json.dumps(BODY).encode()
    for secret in (cast.key.secret, "maas_unknown"):
        asked = house.begin(PREDICTIONS, raw, bearer(secret), gone=leave.event, pieces=[raw[:20]])
        leave()
        assert asked.result(PATIENCE).status == 0
    assert in_line() == 0 and house.answered == before


def test_a_body_that_does_not_come_is_not_waited_for(house, cast, monkeypatch) -> None:
    monkeypatch.setattr("maas.asgi.BODY_SECONDS", 0.1)
    warm(house, cast.key.secret)
    assert house.ask(PREDICTIONS, BODY, bearer(cast.key.secret), pieces=[b"{"]).status == 0
    told = house.ask("/v1/files", BODY, bearer(cast.key.secret, **{"content-type": "multipart/form-data; boundary=x"}), pieces=[b"--x"])
    assert told.status in {0, 400}


def test_an_upload_that_breaks_off_is_the_callers_error(house, cast) -> None:
    leave, kind = house.event(), "multipart/form-data; boundary=x"
    asked = house.begin("/v1/files", BODY, bearer(cast.key.secret, **{"content-type": kind}), gone=leave.event, pieces=[b"--x"])
    leave()
    told = asked.result(PATIENCE)
    assert (told.status, told.code) == (400, "broken_body")


def test_a_caller_that_does_not_read_its_answer_holds_no_thread(tiny, cast, monkeypatch) -> None:
    monkeypatch.setattr("maas.asgi.SEND_SECONDS", 0.1)
    with open_house(threads=1) as house:
        assert house.ask("/healthz", b"", {}, method="GET", reads=False).status == 0
        assert house.ask("/healthz", b"", {}, method="GET").status == 200


def test_a_request_that_is_cancelled_takes_its_call_out_of_the_line(house, cast) -> None:
    warm(house, cast.key.secret)
    asked = house.begin(PREDICTIONS, BODY, bearer(cast.key.secret))
    until(lambda: in_line() == 1)
    asked.cancel()
    until(lambda: in_line() == 0)
    assert goes(house, cast.key.secret)[0]


# ---------- the last moment ----------
def test_an_answer_that_was_charged_at_the_last_moment_is_delivered(house, cast, monkeypatch) -> None:
    warm(house, cast.key.secret)
    monkeypatch.setattr(lanes.endings, "void", lambda *_: False)  # a server has charged it
    asked = house.begin(PREDICTIONS, BODY, bearer(cast.key.secret, **{"x-deadline-ms": "200"}))
    batch = take()
    until(lambda: in_line() == 0)  # the deadline has passed
    give(batch, DARK)
    assert asked.result(PATIENCE).status == 200


def test_an_answer_that_is_there_before_its_caller_waits_is_delivered(house, cast, monkeypatch) -> None:
    warm(house, cast.key.secret)
    callers = house.lane._callers
    push = callers.push

    async def push_slowly(call: queue.Call, **how: Any) -> Any:
        told = await push(call, **how)
        callers._wake(call.id.bytes + queue.calls.pack_answer(DARK))
        return told

    monkeypatch.setattr(callers, "push", push_slowly)
    assert house.ask(PREDICTIONS, BODY, bearer(cast.key.secret)).status == 200
    take()


def test_an_answer_that_comes_while_the_queue_is_told_of_the_end_is_not_lost(house, cast, monkeypatch) -> None:
    warm(house, cast.key.secret)
    callers, batches = house.lane._callers, []
    monkeypatch.setattr(lanes.endings, "void", lambda *_: False)

    async def cancel(call: queue.Call) -> None:
        callers._wake(call.id.bytes + queue.calls.pack_answer(DARK))

    monkeypatch.setattr(callers, "cancel", cancel)
    asked = house.begin(PREDICTIONS, BODY, bearer(cast.key.secret, **{"x-deadline-ms": "100"}))
    batches.append(take())
    assert asked.result(PATIENCE).status == 200


# ---------- Redis, and what nobody foresaw ----------
@pytest.fixture
def proxy(tiny, settings_of) -> Iterator[tuple[House, Proxy]]:
    """A house whose lane reaches Redis by a way that can be cut."""
    empty_queue()
    with open_house() as house:
        way = Proxy(house)
        with settings_of(REDIS_URL=way.url):
            yield house, way
        way.cut()


def test_without_redis_a_call_is_refused_and_not_charged_and_the_next_is_fine(proxy, cast) -> None:
    house, way = proxy
    warm(house, cast.key.secret)
    units = left(cast.tenant)
    way.cut()
    for _ in range(2):
        told = house.ask(PREDICTIONS, BODY, bearer(cast.key.secret))
        assert told.status == 503 and "Nothing was charged" in told.json["error"]["message"]
    assert left(cast.tenant) == units and voided(cast.tenant) == 2
    way.open()
    is_quick, told = goes(house, cast.key.secret)
    assert is_quick and told.status == 200


def test_a_redis_that_goes_while_a_call_waits_and_comes_back_delivers(proxy, cast) -> None:
    house, way = proxy
    warm(house, cast.key.secret)
    asked = house.begin(PREDICTIONS, BODY, bearer(cast.key.secret))
    batch = take()
    way.cut()
    time.sleep(0.3)
    way.open()
    give(batch, DARK)
    assert asked.result(PATIENCE).status == 200


def test_a_redis_that_goes_while_a_call_waits_and_stays_away_ends_at_the_deadline(proxy, cast) -> None:
    house, way = proxy
    warm(house, cast.key.secret)
    asked = house.begin(PREDICTIONS, BODY, bearer(cast.key.secret, **{"x-deadline-ms": "700"}))
    take()
    way.cut()
    told = asked.result(PATIENCE)
    assert told.status == 504 and charged(cast.tenant) == {}
    way.open()
    assert goes(house, cast.key.secret)[0]


@pytest.mark.parametrize("place", ["headers_of", "_render"])
def test_what_nobody_foresaw_is_told_as_ours_and_not_charged(house, cast, start, monkeypatch, place) -> None:
    start()
    for _ in range(4):
        assert house.ask(PREDICTIONS, BODY, bearer(cast.key.secret)).status == 200
    before, paid = house.answered, charged(cast.tenant)
    monkeypatch.setattr(lanes, place, lambda *_: 1 / 0)
    told = house.ask(PREDICTIONS, BODY, bearer(cast.key.secret))
    assert house.answered == before + 1 and told.status == 500 and told.json["error"]["request_id"] == told.headers["x-request-id"]
    time.sleep(0.3)
    assert charged(cast.tenant) == paid


def test_a_database_that_is_away_does_not_break_the_answer(house, cast, monkeypatch) -> None:
    warm(house, cast.key.secret)
    monkeypatch.setattr(lanes.endings, "void", lambda *_: 1 / 0)
    with desk(queue.Answer([], 0, 0, 0, error={"kind": "Unavailable", "message": "-", "param": None, "code": None})):
        told = house.ask(PREDICTIONS, BODY, bearer(cast.key.secret))
    assert told.status == 500 and told.json["error"]["request_id"]


def test_what_fails_before_a_call_is_in_line_is_left_to_the_long_way(house, cast, monkeypatch) -> None:
    warm(house, cast.key.secret)
    monkeypatch.setattr(lanes.allowances, "grant_at_hand", lambda *_, **__: 1 / 0)
    is_quick, told = goes(house, cast.key.secret)
    assert told.status == 200 and not is_quick


def test_an_answer_that_cannot_be_read_does_not_stop_the_others(house, cast) -> None:
    warm(house, cast.key.secret)
    asked = [house.begin(PREDICTIONS, BODY, bearer(cast.key.secret, **{"x-deadline-ms": ms})) for ms in ("900", "20000")]
    until(lambda: in_line() == 2)
    batch = take(2)
    soon = next(call for call in batch.calls if call.deadline - call.pushed < 5)
    queue.connect().rpush(house.lane._callers._list, soon.id.bytes + b"\xc1")
    time.sleep(0.1)
    give(batch, DARK)
    assert sorted(one.result(PATIENCE).status for one in asked) in ([200, 200], [200, 504])


def test_the_last_call_of_a_block_that_was_replaced_gives_it_back_in_a_thread(house, cast, monkeypatch) -> None:
    warm(house, cast.key.secret)
    asked = house.begin(PREDICTIONS, BODY, bearer(cast.key.secret))
    batch = take()
    blocks.give_back()
    closed: list[Any] = []
    monkeypatch.setattr(blocks, "close", lambda block: closed.append(block.running))
    give(batch, DARK)
    assert asked.result(PATIENCE).status == 200 and closed == [0]
