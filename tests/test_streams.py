"""Watching a batch: everything is told once and in order, a lost connection goes on, and nobody else sees it."""

import json
import urllib.request

import pytest

from apps.jobs import services as jobs
from apps.jobs.streams import Watch
from maas import errors, ids, streams
from maas.rest import Client
from tests.belongings import belongings
from tests.cast import client_for
from tests.walk import left_behind, without_filters, without_policies


def batch(cast):
    return ids.decode(ids.BATCH, belongings(cast)["batch_id"])


def address(job_id) -> str:
    return f"/v1/batches/{ids.encode(ids.BATCH, job_id)}/events?stream=true"


def read(pieces) -> list[dict[str, str]]:
    """The events of a stream as a browser takes them apart."""
    text = b"".join(pieces).decode()
    blocks = [block.splitlines() for block in text.split("\n\n") if block and not block.startswith((":", "retry"))]
    return [dict(line.split(": ", 1) for line in block) for block in blocks]


def test_what_happens_is_told_once_and_the_end_ends_it(cast) -> None:
    job_id = batch(cast)
    watch = Watch(cast.tenant, job_id, None)
    first, is_over = watch.look()
    assert ([event["event"] for event in read(first)], is_over) == (["batch.event", "batch"], False)
    assert watch.look() == ([], False)
    jobs.cancel_batch(cast.tenant, job_id)
    last, is_over = watch.look()
    told = read(last)
    assert is_over and told[-1]["event"] == "batch" and json.loads(told[-1]["data"])["status"] == "cancelled"
    assert watch.look() == ([], True)


def test_a_lost_connection_goes_on_after_the_last_event(cast, monkeypatch) -> None:
    job_id, client = batch(cast), client_for(cast.key)
    jobs.cancel_batch(cast.tenant, job_id)
    whole = read(client.get(address(job_id)).streaming_content)
    told = [event for event in whole if event["event"] == "batch.event"]
    assert len(told) >= 2
    rest = read(client.get(address(job_id), HTTP_LAST_EVENT_ID=told[0]["id"]).streaming_content)
    assert [event.get("id") for event in rest if "id" in event] == [event["id"] for event in told[1:]]
    assert client.get(address(job_id), HTTP_LAST_EVENT_ID=told[-1]["id"]).status_code == 204


def test_more_events_than_one_look_takes_are_all_told(cast, monkeypatch) -> None:
    monkeypatch.setattr("apps.jobs.streams.LIMIT", 1)
    job_id = batch(cast)
    jobs.cancel_batch(cast.tenant, job_id)
    watch, seen = Watch(cast.tenant, job_id, None), []
    for _look in range(5):
        seen += [event["id"] for event in read(watch.look()[0]) if "id" in event]
    assert len(seen) == len(set(seen)) == len(jobs.list_events(cast.tenant, job_id))


@pytest.mark.parametrize("header", ["x", "event_", "batch_" + "0" * 32, "event_" + "g" * 32])
def test_an_odd_last_event_is_refused(cast, header) -> None:
    answer = client_for(cast.key).get(address(batch(cast)), HTTP_LAST_EVENT_ID=header)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Last-Event-ID")


@pytest.mark.parametrize("protection", [without_filters, without_policies])
def test_another_tenant_watches_nothing_with_either_protection_alone(cast, protection) -> None:
    job_id = batch(cast)
    with protection():
        assert client_for(cast.other_key).get(address(job_id)).status_code == 404
        with pytest.raises(errors.NotFound):
            Watch(cast.other, job_id, None).look()


def test_a_stream_leaves_no_tenant_behind_between_its_events(cast, monkeypatch) -> None:
    monkeypatch.setattr(streams, "POLL_SECONDS", 0)
    monkeypatch.setattr(streams, "LONGEST_SECONDS", 0.2)
    answer = client_for(cast.key).get(address(batch(cast)))
    assert answer["Content-Type"] == "text/event-stream" and answer["Cache-Control"] == "no-store"
    for _piece in answer.streaming_content:
        assert left_behind() == ("", "", "maas_app")


def test_streams_leave_most_threads_to_calls_and_give_their_place_back(cast) -> None:
    job_id, client = batch(cast), client_for(cast.key)
    jobs.cancel_batch(cast.tenant, job_id)
    open_streams = [client.get(address(job_id)) for _ in range(streams.SLOTS._initial_value)]
    refused = client.get(address(job_id))
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "too_many_streams") and refused["Retry-After"]
    for answer in open_streams:
        answer.close()
        answer.close()  # twice gives one place back
    again = client.get(address(job_id))
    assert again.status_code == 200
    again.close()


def test_a_running_batch_is_watched_to_its_end(live) -> None:
    client = Client(live.url, live.key.secret)
    body = {"model": "minilm-squad", "inputs": {"question": "Who won?", "context": "Ann won the race."}}
    line = json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/predictions", "body": body}).encode()
    file = client.upload("one.jsonl", line, purpose="batch")
    started = client.post("/v1/batches", {"input_file_id": file["id"], "endpoint": "/v1/predictions", "completion_window": "24h"})
    path, key = f"/v1/batches/{started['id']}/events?stream=true", {"Authorization": f"Bearer {live.key.secret}"}
    with urllib.request.urlopen(urllib.request.Request(live.url + path, headers=key), timeout=60) as answer:
        told = read([answer.read()])
    statuses = [json.loads(event["data"])["status"] for event in told if event["event"] == "batch"]
    assert (statuses[0], statuses[-1]) == ("validating", "completed")
    assert len([event["id"] for event in told if "id" in event]) == len(client.get(f"/v1/batches/{started['id']}/events")["data"])
