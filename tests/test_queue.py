"""The online queue: fair, bounded, and never silent for longer than a deadline."""

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
import redis

from maas import errors, ids, queue
from maas.limits import Limit, Verdict
from maas.lines import Lines
from maas.queue import callers, scripts, servers, store
from tests.queueing import RUNNER, call, drain, empty_queue, push, take

ANSWER = queue.Answer([{"label": "ship"}], 1, 0.5, 2.0, batch=3)


@pytest.fixture(autouse=True)
def nothing_waits(monkeypatch) -> Iterator[None]:
    empty_queue()
    monkeypatch.setattr(callers, "_replies", callers.Replies())
    yield
    callers._replies.has_ended = True


def taken_by(batches: list[list[queue.Call]]) -> Counter[UUID]:
    return Counter(one.tenant_id for batch in batches for one in batch)


def kept_in_redis() -> set[bytes]:
    """Keys of the queue, but for what ends by itself."""
    return {key for key in queue.connect().scan_iter("maas:online:*") if queue.connect().ttl(key) == -1}


def test_a_call_comes_out_as_it_went_in() -> None:
    sent = call(uuid4(), uuid4(), n=3, weight=4)
    queue.push(sent)
    batch = queue.take(RUNNER, 32)
    assert (batch.version_id, batch.calls, batch.more) == (sent.version_id, [sent], False)
    assert batch.calls[0].caller == callers._replies.name
    queue.answer(RUNNER, batch, {})
    assert queue.take(RUNNER, 32) == queue.Batch(None, [], False)
    assert kept_in_redis() == set()


def test_a_call_without_a_key_comes_out_without_one() -> None:
    sent = call(uuid4(), uuid4())
    fields = {name: getattr(sent, name) for name in queue.Call.__slots__}
    queue.push(queue.Call(**{**fields, "key_id": None}))
    assert take()[0].key_id is None


# ---------- turns ----------
def test_a_flood_of_one_tenant_delays_another_by_no_batch() -> None:
    version, loud, quiet = uuid4(), uuid4(), uuid4()
    push(version, loud, 100, weight=16)
    push(version, quiet)
    assert quiet in {one.tenant_id for one in take(32)}


def test_tenants_share_a_full_queue_equally() -> None:
    version, tenants = uuid4(), [uuid4() for _ in range(4)]
    for tenant in tenants:
        push(version, tenant, 40)
    assert set(taken_by([take(32), take(32)]).values()) == {16}


def test_tenants_share_by_their_weights() -> None:
    version, weights = uuid4(), {uuid4(): weight for weight in (1, 2, 4)}
    for tenant, weight in weights.items():
        push(version, tenant, 140, weight=weight)
    shares = taken_by([take(32) for _ in range(7)])
    assert {weight: shares[tenant] for tenant, weight in weights.items()} == {1: 32, 2: 64, 4: 128}


def test_a_heavy_tenant_alone_fills_batches() -> None:
    version = uuid4()
    push(version, uuid4(), 70, weight=1)
    assert [len(batch) for batch in drain(32)] == [32, 32, 6]


def test_large_calls_cost_their_inputs() -> None:
    version, large, small = uuid4(), uuid4(), uuid4()
    push(version, large, 8, n=16)
    push(version, small, 128)
    batches = [take(32) for _ in range(6)]
    work = Counter(one.tenant_id for batch in batches for one in batch for _ in one.inputs)
    assert abs(work[large] - work[small]) <= 32


def test_a_call_that_does_not_fit_is_first_in_the_next_batch() -> None:
    """Else a crowd with small calls would keep it waiting for ever."""
    version, large = uuid4(), uuid4()
    push(version, large, n=30, weight=16)
    crowd = [uuid4() for _ in range(40)]
    for tenant in crowd:
        push(version, tenant, 10)
    batches = [take(32) for _ in range(5)]
    position = next(index for index, batch in enumerate(batches) if large in {one.tenant_id for one in batch})
    assert batches[position][0].tenant_id == large
    assert sum(map(len, drain(32))) + sum(map(len, batches)) == 401


def test_a_call_larger_than_a_batch_is_taken_alone() -> None:
    version, tenant = uuid4(), uuid4()
    push(version, tenant, n=128)
    push(version, tenant)
    assert [sum(len(one.inputs) for one in batch) for batch in drain(32)] == [128, 1]


def test_versions_take_turns() -> None:
    busy, rare = uuid4(), uuid4()
    push(busy, uuid4(), 200)
    push(rare, uuid4(), 2)
    assert rare in {take(32)[0].version_id for _ in range(2)}


def test_a_version_that_is_left_alone_waits_and_the_others_do_not() -> None:
    loading, loaded = uuid4(), uuid4()
    push(loading, uuid4())
    push(loaded, uuid4())
    assert take(skip=[loading])[0].version_id == loaded
    batch = queue.take(RUNNER, 32, skip=[loading])
    assert (batch.calls, batch.more) == ([], True)
    assert take()[0].version_id == loading


def test_nothing_is_lost_or_doubled_over_many_mixed_calls() -> None:
    versions, tenants = [uuid4(), uuid4()], [uuid4() for _ in range(5)]
    sent = [one for i in range(150) for one in push(versions[i % 2], tenants[i % 5], n=1 + i % 9, weight=1 + i % 3)]
    taken = [one.id for batch in drain(32) for one in batch]
    assert sorted(taken) == sorted(one.id for one in sent)
    assert kept_in_redis() == set() and queue.depths() == {}


# ---------- room ----------
def test_a_full_queue_refuses_and_says_when_to_come_back(settings_of) -> None:
    version = uuid4()
    with settings_of(MAAS_QUEUE_LIMIT=2):
        push(version, uuid4(), n=2)
        with pytest.raises(errors.Overloaded, match=r"^Too many calls wait") as refused:
            push(version, uuid4())
    assert (refused.value.status, refused.value.code, refused.value.retry_after) == (503, "queue_full", 2)


def test_one_tenant_gets_half_of_the_room_and_leaves_some_for_everybody_else(settings_of) -> None:
    version, loud = uuid4(), uuid4()
    with settings_of(MAAS_QUEUE_LIMIT=12):
        push(version, loud, 6)
        with pytest.raises(errors.Overloaded, match="of your organisation"):
            push(version, loud)
        push(version, uuid4(), 3)
        with pytest.raises(errors.Overloaded, match="of your organisation"):
            push(version, loud)


def test_weight_gives_room(settings_of) -> None:
    version, tenant = uuid4(), uuid4()
    with settings_of(MAAS_QUEUE_LIMIT=10):
        push(version, tenant, 8, weight=4)
        with pytest.raises(errors.Overloaded, match="of your organisation"):
            push(version, tenant, weight=4)


def test_who_is_refused_hears_how_long_the_queue_will_take(settings_of) -> None:
    version, tenant = uuid4(), uuid4()
    with settings_of(MAAS_QUEUE_LIMIT=100):
        push(version, tenant, 50)
        take(2)
        push(version, tenant, 2)
        with pytest.raises(errors.Overloaded) as refused:
            push(version, tenant)
    assert refused.value.retry_after == 60  # two in ten to twenty seconds: fifty take minutes, and nobody is told more than one


# ---------- answers ----------
def test_an_answer_reaches_its_caller_and_only_once() -> None:
    (sent,) = push(uuid4(), uuid4())
    batch = queue.take(RUNNER, 32)
    queue.answer(RUNNER, batch, {sent.id: ANSWER})
    assert queue.wait(sent.id, 5) == ANSWER
    assert queue.wait(sent.id, 0.05) is None


def test_a_batch_is_answered_in_one_trip(monkeypatch) -> None:
    sent = push(uuid4(), uuid4(), 32)
    batch, trips, ask = queue.take(RUNNER, 32), [], Lines.ask
    monkeypatch.setattr(Lines, "ask", lambda lines, *commands: trips.append(commands) or ask(lines, *commands))
    queue.answer(RUNNER, batch, {one.id: ANSWER for one in sent})
    assert sum(commands[0][0] == b"RPUSH" for commands in trips) == 1
    assert all(queue.wait(one.id, 5) == ANSWER for one in sent)


def test_waiting_ends_at_the_deadline_and_may_begin_again() -> None:
    (sent,) = push(uuid4(), uuid4())
    begun = time.monotonic()
    assert queue.wait(sent.id, 0.2) is None
    assert time.monotonic() - begun < 2
    queue.answer(RUNNER, queue.take(RUNNER, 32), {sent.id: ANSWER})
    assert queue.wait(sent.id, 5) == ANSWER


def test_who_has_forgotten_a_call_waits_for_nothing_and_disturbs_nobody() -> None:
    gone, stays = push(uuid4(), uuid4(), 2)[0], push(uuid4(), uuid4())[0]
    queue.forget(gone.id)
    for _ in range(2):
        batch = queue.take(RUNNER, 32)
        queue.answer(RUNNER, batch, {one.id: ANSWER for one in batch.calls})
    assert queue.wait(gone.id, 0.05) is None
    assert queue.wait(stays.id, 5) == ANSWER
    queue.forget(gone.id)


def test_a_spoilt_answer_harms_only_its_caller() -> None:
    spoilt, stays = push(uuid4(), uuid4(), 2)
    queue.connect().rpush(callers._replies.list, b"short", spoilt.id.bytes + b"\xc1")
    with pytest.raises(ValueError):
        queue.wait(spoilt.id, 5)
    batch = queue.take(RUNNER, 32)
    queue.answer(RUNNER, batch, {stays.id: ANSWER})
    assert queue.wait(stays.id, 5) == ANSWER


def test_the_thread_that_reads_answers_outlives_every_error(monkeypatch) -> None:
    failures = iter([redis.ConnectionError("away"), RuntimeError("unforeseen")])
    fetch = callers.Replies._fetch

    def failing(replies: callers.Replies) -> list[bytes]:
        for error in failures:
            raise error
        return fetch(replies)

    monkeypatch.setattr(callers.Replies, "_fetch", failing)
    (sent,) = push(uuid4(), uuid4())
    queue.answer(RUNNER, queue.take(RUNNER, 32), {sent.id: ANSWER})
    assert queue.wait(sent.id, 10) == ANSWER
    assert next(failures, None) is None


def test_many_threads_get_their_own_answers() -> None:
    version, wrong = uuid4(), []

    def ask(n: int) -> None:
        (sent,) = push(version, UUID(int=n), inputs=[n])
        found = queue.wait(sent.id, 20)
        if found is None or found.outputs != [n]:
            wrong.append((n, found))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(40)]
    for thread in threads:
        thread.start()
    answered = 0
    while answered < 40:
        batch = queue.take(RUNNER, 8)
        if not batch.calls:
            queue.listen(1)
            continue
        queue.answer(RUNNER, batch, {one.id: queue.Answer(one.inputs, 1, 0, 0) for one in batch.calls})
        answered += len(batch.calls)
    for thread in threads:
        thread.join(30)
    assert wrong == [] and callers._replies.waiting == {}


def test_a_child_of_a_fork_gets_its_own_answers_and_its_parent_too() -> None:
    version, (mine,) = uuid4(), push(uuid4(), uuid4())
    child = os.fork()
    if child == 0:
        code = 1
        try:
            (sent,) = push(version, uuid4())
            code = 0 if queue.wait(sent.id, 20) == ANSWER else 2
        finally:
            os._exit(code)
    answered = 0
    while answered < 2:
        queue.listen(1)
        batch = queue.take(RUNNER, 32)
        if batch.calls:
            queue.answer(RUNNER, batch, {one.id: ANSWER for one in batch.calls})
        answered += len(batch.calls)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert queue.wait(mine.id, 5) == ANSWER


def test_redis_away_is_a_clear_503(monkeypatch) -> None:
    monkeypatch.setattr(store, "_client", redis.Redis(port=1, socket_connect_timeout=0.2, retry=store.ONCE_MORE))
    monkeypatch.setattr(store, "LINES", Lines(store.connect))
    sent = call(uuid4(), uuid4())
    with pytest.raises(errors.Unavailable, match="try again"):
        queue.push(sent)
    assert queue.wait(sent.id, 0.1) is None and sent.id.bytes not in callers._replies.waiting


def test_an_emptied_redis_loses_what_waited_and_serves_what_comes() -> None:
    (lost,) = push(uuid4(), uuid4())
    empty_queue()
    queue.connect().script_flush()
    (sent,) = push(uuid4(), uuid4())
    queue.answer(RUNNER, queue.take(RUNNER, 32), {sent.id: ANSWER})
    assert queue.wait(sent.id, 5) == ANSWER
    assert queue.wait(lost.id, 0.1) is None


def test_connections_that_broke_are_made_anew() -> None:
    """As after a restart of Redis: those of the reader, of callers and of servers."""
    (first,) = push(uuid4(), uuid4())
    queue.connect().client_kill_filter(_type="normal", skipme=True)
    (second,) = push(uuid4(), uuid4())
    for _ in range(2):
        batch = queue.take(RUNNER, 32)
        queue.answer(RUNNER, batch, {one.id: ANSWER for one in batch.calls})
    assert queue.wait(first.id, 10) == ANSWER and queue.wait(second.id, 10) == ANSWER


def test_a_push_that_is_sent_twice_counts_once() -> None:
    (sent,) = push(uuid4(), uuid4())
    queue.push(sent)
    assert [one.id for one in take()] == [sent.id] and drain() == []


# ---------- callers that went away ----------
def test_a_cancelled_call_is_dropped_and_the_next_one_taken() -> None:
    version, tenant = uuid4(), uuid4()
    gone, stays = push(version, tenant, 2)
    queue.cancel(gone)
    assert take() == [stays] and kept_in_redis() == set()


def test_a_call_past_its_deadline_is_dropped() -> None:
    version, tenant = uuid4(), uuid4()
    push(version, tenant, 40, seconds=-1)
    (stays,) = push(version, tenant)
    assert take() == [stays]
    push(version, tenant, seconds=-1)
    assert take() == [] and kept_in_redis() == set()


def test_calls_of_a_web_process_that_died_are_dropped() -> None:
    push(uuid4(), uuid4(), 3)
    while not callers._replies._told:  # its reader says that it lives when it starts, and then after seconds
        time.sleep(0.01)
    callers._replies._told = time.monotonic()
    queue.connect().delete(b"maas:online:caller:" + callers._replies.name)
    assert take() == [] and kept_in_redis() == set()


# ---------- servers that die ----------
def test_calls_of_a_server_that_fell_silent_stand_in_front_again(monkeypatch) -> None:
    version, tenant = uuid4(), uuid4()
    held = push(version, tenant, 3)
    queue.beat("dead", ["dead/0"], ready=True)
    assert queue.take("dead/0", 32).calls == held
    later = push(version, tenant, 1)
    assert queue.alive()
    silent_for(10)
    assert not queue.alive() and queue.beat("lives", ["lives/0"], ready=True) == 1 and queue.alive()
    found = queue.take("lives/0", 32).calls
    assert [one.id for one in found] == [one.id for one in held + later]
    assert [one.again for one in found] == [True, True, True, False]


def silent_for(seconds: int) -> None:
    """As if no server had been heard from for so long."""
    for key in ("maas:online:servers", "maas:online:ready"):
        for name, _ in queue.connect().zrange(key, 0, -1, withscores=True):
            queue.connect().zincrby(key, -seconds, name)


def test_a_call_that_two_servers_died_of_is_answered_and_not_tried_again() -> None:
    (sent,) = push(uuid4(), uuid4())
    for name in ("first/0", "second/0"):
        queue.beat(name, [name], ready=True)
        assert len(queue.take(name, 32).calls) == 1
        silent_for(10)
        queue.beat("lives", ["lives/0"], ready=True)
    assert queue.take("lives/0", 32).calls == []
    found = queue.wait(sent.id, 5)
    assert found and found.error and found.error["kind"] == "Unavailable" and "Nothing was charged" in found.error["message"]


def test_what_a_runner_never_answered_is_taken_again_by_itself() -> None:
    """Its trip to Redis broke: it does not know what it holds."""
    (sent,) = push(uuid4(), uuid4())
    queue.take(RUNNER, 32)
    assert [(one.id, one.again) for one in queue.take(RUNNER, 32).calls] == [(sent.id, True)]


def test_what_was_put_back_counts_as_never_taken() -> None:
    held = push(uuid4(), uuid4(), 3)
    queue.take(RUNNER, 32)
    assert sum(queue.depths().values()) == 0
    queue.put_back(RUNNER)
    assert sum(queue.depths().values()) == 3
    found = take()
    assert found == held and not any(one.again for one in found)


def test_a_held_call_whose_caller_left_does_not_come_back() -> None:
    gone, late = push(uuid4(), uuid4())[0], push(uuid4(), uuid4(), seconds=0.3)[0]
    for n in range(2):
        queue.take(f"{RUNNER}{n}", 32)
    queue.cancel(gone)
    time.sleep(max(0.0, late.deadline - time.time()))
    for n in range(2):
        queue.put_back(f"{RUNNER}{n}")
    assert take() == [] and kept_in_redis() == set()


def test_a_server_that_leaves_is_not_counted_as_dead() -> None:
    queue.beat("leaves", ["leaves/0", "leaves/1"], ready=True)
    queue.leave("leaves", ["leaves/0", "leaves/1"])
    silent_for(10)
    assert queue.beat("stays", ["stays/0"], ready=False) == 0 and not queue.alive()


# ---------- the bell ----------
def test_servers_are_woken_once_for_what_waits_and_again_for_what_is_left() -> None:
    version = uuid4()
    push(version, uuid4(), 40)
    assert queue.connect().llen(servers.BELL) == 1
    queue.listen(1)
    take(32)
    assert queue.connect().llen(servers.BELL) == 1  # eight are left: another runner may take them
    take(32)
    assert queue.connect().exists(servers.BELL) == 0


def test_a_lost_bell_is_rung_again_by_the_next_beat() -> None:
    push(uuid4(), uuid4())
    queue.listen(1)  # by a server that dies now
    queue.beat("lives", ["lives/0"], ready=True)
    assert queue.connect().llen(servers.BELL) == 1


def test_a_script_that_redis_has_forgotten_is_sent_again() -> None:
    queue.connect().script_flush()
    assert store.LINES.run(scripts.READY, 5) == 0


def test_an_error_in_one_answer_of_a_trip_does_not_shift_the_others() -> None:
    lines = Lines(store.connect)
    key = f"test:{ids.uuid7().hex}"
    with pytest.raises(redis.ResponseError):
        lines.ask(("SET", key, "text", "EX", 5), ("LPUSH", key, "x"), ("GET", key))
    assert lines.ask(("GET", key)) == [b"text"]


# ---------- rate limits on the way in ----------
def test_a_call_over_its_limit_is_counted_in_none_and_not_in_line() -> None:
    version, tenant, stands = uuid4(), uuid4(), []
    own, all_of_it = (Limit(scope, "requests", f"maas:rate:{uuid4().hex}", most, 1) for scope, most in (("key", 1), ("tenant", 60)))
    first, second = call(version, tenant), call(version, tenant)
    queue.push(first, counted=[own, all_of_it], note=stands.append)
    queue.push(second, counted=[own, all_of_it], note=stands.append)
    assert [stand.passed for stand in stands] == [True, False]
    assert [stand.standings[1].remaining for stand in stands] == [59, 59]
    assert [one.id for one in take()] == [first.id] and queue.wait(second.id, 0.01) is None


def test_a_call_that_finds_the_queue_full_was_counted(settings_of) -> None:
    stands: list = []
    limit = Limit("tenant", "requests", f"maas:rate:{uuid4().hex}", 60, 1)
    with settings_of(MAAS_QUEUE_LIMIT=1), pytest.raises(errors.Overloaded):
        queue.push(call(uuid4(), uuid4(), 2), counted=[limit], note=stands.append)
    assert [stand.standings[0].remaining for stand in stands] == [59]


def test_what_refuses_a_call_goes_to_its_caller() -> None:
    def refuse(verdict: Verdict) -> None:
        raise errors.RateLimited("enough")

    with pytest.raises(errors.RateLimited):
        queue.push(call(uuid4(), uuid4()), counted=[Limit("key", "requests", f"maas:rate:{uuid4().hex}", 1, 1)], note=refuse)
