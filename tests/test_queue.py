"""The online queue: fair, bounded, and never silent for longer than a deadline."""

import time
from uuid import UUID, uuid4

import pytest

from maas import errors, ids, queue


def call(version: UUID, tenant: UUID, n: int = 1, seconds: float = 30) -> queue.Call:
    now = time.time()
    return queue.Call(ids.uuid7(), tenant, None, version, [b"\x00\xff"] * n, {"top_k": 1}, now, now + seconds, n, ids.uuid7(), n)


def drain(version: UUID, limit: int = 8) -> list[list[queue.Call]]:
    taken = []
    while batch := queue.take(version, limit):
        taken.append(batch)
    return taken


def test_a_call_comes_out_as_it_went_in() -> None:
    version, sent = uuid4(), call(uuid4(), uuid4())
    sent = call(version, uuid4(), n=3)
    queue.push(sent)
    assert version in queue.waiting_versions()
    assert queue.take(version, 32) == [sent]
    assert queue.take(version, 32) == []
    assert version not in queue.waiting_versions()


def test_a_flood_of_one_tenant_delays_another_by_a_round() -> None:
    version, loud, quiet = uuid4(), uuid4(), uuid4()
    for _ in range(100):
        queue.push(call(version, loud))
    queue.push(call(version, quiet))
    first_two = [taken.tenant_id for batch in drain(version, 16)[:1] for taken in batch]
    assert quiet in first_two


def test_tenants_share_a_full_queue_equally() -> None:
    version, tenants = uuid4(), [uuid4() for _ in range(4)]
    for tenant in tenants:
        for _ in range(40):
            queue.push(call(version, tenant))
    taken = [c.tenant_id for batch in drain(version, 32)[:2] for c in batch]
    assert {taken.count(tenant) for tenant in tenants} == {16}


def test_large_calls_cost_their_inputs() -> None:
    version, large, small = uuid4(), uuid4(), uuid4()
    for _ in range(4):
        queue.push(call(version, large, n=16))
        for _ in range(16):
            queue.push(call(version, small))
    taken = [c for batch in drain(version, 16) for c in batch][:20]
    inputs = {tenant: sum(len(c.inputs) for c in taken if c.tenant_id == tenant) for tenant in (large, small)}
    assert inputs[large] <= 2 * inputs[small] + 16


def test_a_call_larger_than_a_batch_is_taken_alone() -> None:
    version, tenant = uuid4(), uuid4()
    queue.push(call(version, tenant, n=128))
    queue.push(call(version, tenant))
    assert [sum(len(c.inputs) for c in batch) for batch in drain(version, 32)] == [128, 1]


def test_nothing_is_lost_or_doubled_over_many_mixed_calls() -> None:
    version, tenants = uuid4(), [uuid4() for _ in range(5)]
    sent = [call(version, tenants[i % 5], n=1 + i % 9) for i in range(150)]
    for one in sent:
        queue.push(one)
    taken = [c.id for batch in drain(version, 32) for c in batch]
    assert sorted(taken) == sorted(c.id for c in sent)
    assert int(queue.connect().get(queue._length(version.hex))) == 0


def test_a_full_queue_refuses_and_says_when_to_come_back(settings_of) -> None:
    version = uuid4()
    with settings_of(MAAS_QUEUE_LIMIT=2):
        queue.push(call(version, uuid4(), n=2))
        with pytest.raises(errors.Overloaded) as refused:
            queue.push(call(version, uuid4()))
    assert (refused.value.status, refused.value.retry_after) == (503, 2)
    drain(version)


def test_an_answer_reaches_its_caller_and_only_once() -> None:
    call_id = ids.uuid7()
    answer = queue.Answer([{"label": "ship"}], 1, 0.5, 2.0)
    queue.reply({call_id: answer})
    assert queue.wait(call_id, 1) == answer
    assert queue.wait(call_id, 0.05) is None


def test_waiting_ends_at_the_deadline() -> None:
    begun = time.monotonic()
    assert queue.wait(ids.uuid7(), 0.2) is None
    assert time.monotonic() - begun < 2


def test_redis_away_is_a_clear_503(monkeypatch) -> None:
    import redis

    monkeypatch.setattr(queue, "_connection", redis.Redis(port=1, socket_connect_timeout=0.2, retry=queue.ONCE_MORE))
    with pytest.raises(errors.Unavailable, match="Nothing was charged"):
        queue.push(call(uuid4(), uuid4()))
    assert queue.wait(ids.uuid7(), 0.1) is None
