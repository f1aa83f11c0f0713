"""Watching a batch: everything is told once and in order, a lost connection goes on, and nobody else sees it."""

import json
import urllib.request
from datetime import timedelta

import pytest
from django.utils import timezone

from apps.jobs import services as jobs
from apps.jobs.models import Job
from apps.jobs.streams import Watch
from maas import errors, ids, streams
from maas.rest import Client
from maas.tenancy import as_tenant
from tests.belongings import belongings
from tests.cast import client_for
from tests.walk import left_behind, without_filters, without_policies
from tests.web_alone import web_alone


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


def test_a_stream_goes_on_after_a_restart_of_the_web_server(cast) -> None:
    job_id, told = batch(cast), []
    with web_alone() as web:
        with connect(web, cast, job_id) as answer:
            while not told or "data" not in told[-1]:
                told = read_lines(answer, told)
            first = told[-1]["id"]
            web.part.kill()
        web.part.start()
        web.wait_until_alive()
        jobs.cancel_batch(cast.tenant, job_id)
        with connect(web, cast, job_id, first) as answer:
            rest = read([answer.read()])
    assert [event["id"] for event in rest if "id" in event] == [
        ids.encode("event_", event.id)
        for event in reversed(jobs.list_events(cast.tenant, job_id))
        if ids.encode("event_", event.id) != first
    ]
    assert json.loads(rest[-1]["data"])["status"] == "cancelled"


def connect(web, cast, job_id, last_id: str | None = None):
    headers = {"Authorization": f"Bearer {cast.key.secret}"} | ({"Last-Event-ID": last_id} if last_id else {})
    return urllib.request.urlopen(urllib.request.Request(web.url + address(job_id), headers=headers), timeout=30)


def read_lines(answer, told: list[dict[str, str]]) -> list[dict[str, str]]:
    """One more line of a stream, added to the event that it belongs to."""
    name, _, value = answer.readline().decode().strip().partition(": ")
    if name == "id":
        return [*told, {"id": value}]
    if told and name:
        told[-1][name] = value
    return told


def test_the_pace_alone_is_told_every_few_seconds(cast, monkeypatch) -> None:
    job_id = batch(cast)
    watch = Watch(cast.tenant, job_id, None)
    watch.look()
    with as_tenant(cast.tenant.id):
        Job.objects.filter(pk=job_id).update(state="running", total=1000, completed=500, started_at=timezone.now() - timedelta(seconds=50))
    shown = json.loads(read(watch.look()[0])[-1]["data"])["progress"]
    assert (shown["percent"], shown["eta_seconds"]) == (50, pytest.approx(50, abs=20))
    monkeypatch.setattr("apps.jobs.pace._shown", lambda rate: 7.5)
    assert watch.look() == ([], False)
    monkeypatch.setattr("apps.jobs.streams.PACE_SECONDS", 0)
    assert json.loads(read(watch.look()[0])[-1]["data"])["progress"]["lines_per_second"] == 7.5


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
