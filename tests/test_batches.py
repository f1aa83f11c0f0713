"""The face of batches: what a call may ask, the shapes of answers, and what a broken file is told."""

import json
from uuid import UUID

import pytest

from apps.files import services as files
from apps.jobs import services as jobs
from apps.usage import services as usage
from maas import errors, ids
from maas.tenancy import as_tenant
from tests.queueing import replace_nudge
from workers.batch import lines, sizing, validation

ENDPOINT = "/v1/predictions"


@pytest.fixture(autouse=True)
def quiet(monkeypatch) -> list:
    """Nobody else is told of the work of these tests: they are the worker."""
    told: list = []
    replace_nudge(monkeypatch, lambda name, **arguments: told.append((name, arguments)))
    return told


def row(number: int = 1, **change) -> dict:
    return {"custom_id": f"line-{number}", "method": "POST", "url": ENDPOINT, "body": {"model": "none", "inputs": "x"}} | change


def jsonl(rows) -> bytes:
    return b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in rows)


def make(cast, content: bytes, **options):
    file = files.create_file(cast.tenant, filename="lines.jsonl", purpose="batch", chunks=[content])
    return jobs.create_batch(
        cast.tenant, input_file_id=ids.encode(ids.FILE, file.id), endpoint=ENDPOINT, completion_window="24h", key=cast.key.row, **options
    )


def checked(cast, content: bytes):
    job = make(cast, content)
    validation.validate_batch(cast.tenant.id, job.id)
    return jobs.get_job(cast.tenant, job.id)


def path(job, end: str = "") -> str:
    return f"/v1/batches/{ids.encode(ids.BATCH, job.id)}{end}"


# ---------- calls ----------
def test_a_new_batch_has_openais_shape(cast, api, quiet) -> None:
    file = files.create_file(cast.tenant, filename="lines.jsonl", purpose="batch", chunks=[jsonl([row()])])
    body = {"input_file_id": ids.encode(ids.FILE, file.id), "endpoint": ENDPOINT, "completion_window": "24h", "metadata": {"a": "b"}}
    made = (
        api(cast.key).post("/v1/batches", {**body, "output_expires_after": {"anchor": "created_at", "seconds": 3600}}, format="json").json()
    )
    assert made | {"id": 0, "created_at": 0, "expires_at": 0} == body | {
        "id": 0, "object": "batch", "created_at": 0, "expires_at": 0, "model": None, "errors": None, "status": "validating",
        "output_file_id": None, "error_file_id": None, "request_counts": {"total": 0, "completed": 0, "failed": 0}, "units": 0,
        **{f"{name}_at": None for name in ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")},
    }  # fmt: skip
    assert made["expires_at"] - made["created_at"] == 24 * 3600
    assert quiet[0][0] == "workers.tasks.validate_batch"
    assert api(cast.key).get(f"/v1/batches/{made['id']}").json() == made


@pytest.mark.parametrize(
    ("change", "status", "param", "code"),
    [
        ({"endpoint": "/v1/chat/completions"}, 400, "endpoint", "invalid_endpoint"),
        ({"endpoint": 5}, 400, "endpoint", "invalid_endpoint"),
        ({"endpoint": None}, 400, "endpoint", "invalid_value"),
        ({"completion_window": "1h"}, 400, "completion_window", "invalid_completion_window"),
        ({"input_file_id": "file-" + "0" * 32}, 404, "input_file_id", "file_not_found"),
        ({"input_file_id": "nonsense"}, 404, "input_file_id", "file_not_found"),
        ({"input_file_id": ["x"]}, 400, "input_file_id", "invalid_value"),
        ({"input_file_id": ...}, 400, "input_file_id", "missing_field"),
        ({"surprise": 1}, 400, "surprise", "unknown_field"),
        ({"metadata": "x"}, 400, "metadata", "invalid_type"),
        ({"metadata": []}, 400, "metadata", "invalid_type"),
        ({"metadata": {"a": 1}}, 400, "metadata.a", "invalid_type"),
        ({"metadata": {"a" * 65: "x"}}, 400, "metadata." + "a" * 64, "too_long"),
        ({"metadata": {"a": "x" * 513}}, 400, "metadata.a", "too_long"),
        ({"metadata": {"a": "\0"}}, 400, "metadata.a", "invalid_value"),
        ({"metadata": {str(n): "x" for n in range(17)}}, 400, "metadata", "too_long"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, 400, "output_expires_after.seconds", "invalid_value"),
        ({"output_expires_after": {"anchor": "x", "seconds": 3600}}, 400, "output_expires_after.anchor", "invalid_value"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 3600, "x": 1}}, 400, "x", "unknown_field"),
    ],
)
def test_a_bad_field_is_named(cast, api, change, status, param, code) -> None:
    file = files.create_file(cast.tenant, filename="a", purpose="batch", chunks=[b"x"])
    body = {"input_file_id": ids.encode(ids.FILE, file.id), "endpoint": ENDPOINT, "completion_window": "24h"} | change
    answer = api(cast.key).post("/v1/batches", {name: value for name, value in body.items() if value is not ...}, format="json")
    assert (answer.status_code, answer.json()["error"]["param"], answer.json()["error"]["code"]) == (status, param, code)
    assert jobs.list_jobs(cast.tenant) == ([], False)
    files.delete_file(cast.tenant, file.id)  # a refused batch does not hold its file


def test_a_file_of_another_purpose_or_tenant_is_refused(cast, api) -> None:
    wrong = files.create_file(cast.tenant, filename="a", purpose="fine-tune", chunks=[b"x"])
    foreign = files.create_file(cast.other, filename="a", purpose="batch", chunks=[b"x"])
    body = {"endpoint": ENDPOINT, "completion_window": "24h"}
    named = [{**body, "input_file_id": ids.encode(ids.FILE, file.id)} for file in (wrong, foreign)]
    answers = [api(cast.key).post("/v1/batches", one, format="json") for one in named]
    assert [answer.status_code for answer in answers] == [400, 404]


def test_lists_page_and_strangers_see_nothing(cast, api) -> None:
    made = [ids.encode(ids.BATCH, make(cast, jsonl([row()])).id) for _ in range(3)]
    first = api(cast.key).get("/v1/batches?limit=2").json()
    assert ([one["id"] for one in first["data"]], first["has_more"]) == ([made[2], made[1]], True)
    rest = api(cast.key).get(f"/v1/batches?after={first['last_id']}").json()
    assert ([one["id"] for one in rest["data"]], rest["has_more"]) == ([made[0]], False)
    stranger = api(cast.other_key)
    assert stranger.get("/v1/batches").json()["data"] == []
    one = f"/v1/batches/{made[0]}"
    assert [stranger.get(one).status_code, stranger.post(one + "/cancel").status_code, stranger.get(one + "/events").status_code] == [
        404
    ] * 3


@pytest.mark.parametrize("query", ["limit=101", "limit=0", "after=x", "after=file-" + "0" * 32])
def test_a_bad_query_is_refused(cast, api, query) -> None:
    assert api(cast.key).get(f"/v1/batches?{query}").status_code == 400


def test_search_and_counts(cast) -> None:
    job = checked(cast, jsonl([row(body={"model": "some-model", "inputs": 1})]))
    make(cast, jsonl([row()]), metadata={"team": "blue"})
    found = {text: len(jobs.list_jobs(cast.tenant, search=text)[0]) for text in ("LINES.js", "some-MODEL", "blue", "\0zzz", "%")}
    assert found == {"LINES.js": 2, "some-MODEL": 1, "blue": 1, "\0zzz": 0, "%": 0}
    assert jobs.list_jobs(cast.tenant, search=ids.encode(ids.BATCH, job.id))[0] == [job]
    assert jobs.list_jobs(cast.tenant, state="running")[0] == [job]
    assert (jobs.job_counts(cast.tenant), jobs.count_active(cast.tenant)) == ({"queued": 1, "running": 1}, 2)


def test_a_file_that_a_batch_reads_cannot_be_deleted_until_it_ends(cast, api) -> None:
    job = make(cast, jsonl([row()]))
    file = f"/v1/files/{ids.encode(ids.FILE, job.batch.input_file.id)}"
    assert api(cast.key).delete(file).json()["error"]["code"] == "file_in_use"
    jobs.cancel_batch(cast.tenant, job.id)
    assert api(cast.key).delete(file).status_code == 200
    assert api(cast.key).get(path(job)).json()["input_file_id"] == file[10:]


def test_cancelling_before_the_check_ends_at_once_and_twice_changes_nothing(cast, api) -> None:
    job = make(cast, jsonl([row()]))
    first = api(cast.key).post(path(job, "/cancel"))
    assert (first.status_code, first.json()["status"], first.json()["cancelled_at"] is None) == (200, "cancelled", False)
    assert api(cast.key).post(path(job, "/cancel")).json() == first.json()
    validation.validate_batch(cast.tenant.id, job.id)
    assert jobs.get_job(cast.tenant, job.id).state == "cancelled"


def test_a_failed_batch_cannot_be_cancelled(cast, api) -> None:
    answer = api(cast.key).post(path(checked(cast, b"nonsense\n"), "/cancel"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_state")
    assert "failed" in answer.json()["error"]["message"]


def test_events_tell_the_story_newest_first(cast, api) -> None:
    job = checked(cast, jsonl([row()]))
    events = api(cast.key).get(path(job, "/events")).json()
    assert [event["message"] for event in events["data"]] == ["The file is fine: 1 lines.", "Created. The file is checked next."]
    page = api(cast.key).get(path(job, "/events?limit=1")).json()
    assert page["has_more"]
    assert api(cast.key).get(path(job, f"/events?after={page['last_id']}")).json()["data"] == events["data"][1:]


# ---------- broken files ----------
BROKEN = {
    "invalid_json_line": (b'{"custom_id": "x", ', None),
    "not_an_object": (b"[1]", None),
    "missing_custom_id": ({"method": "POST", "url": ENDPOINT, "body": {}}, "custom_id"),
    "empty_custom_id": (row(custom_id=""), "custom_id"),
    "long_custom_id": (row(custom_id="x" * 513), "custom_id"),
    "number_custom_id": (row(custom_id=7), "custom_id"),
    "duplicate_custom_id": (row(3), "custom_id"),
    "missing_method": ({"custom_id": "x", "url": ENDPOINT, "body": {}}, "method"),
    "invalid_method": (row(17, method="GET"), "method"),
    "invalid_url": (row(17, url="/v1/chat/completions"), "url"),
    "unknown_parameter": (row(17, surprise="\0"), "surprise"),
    "line_too_long": (row(17, body={"model": "m", "inputs": "x" * 2**20}), None),
    "invalid_encoding": (b'{"custom_id": "\xff"}', None),
    "half_a_surrogate": (b'{"custom_id": "\\ud800", "method": "POST"}', None),
}
CODES = {
    "not_an_object": "invalid_json_line", "half_a_surrogate": "invalid_json_line", "missing_custom_id": "missing_required_parameter",
    "missing_method": "missing_required_parameter", "empty_custom_id": "invalid_custom_id", "long_custom_id": "invalid_custom_id",
    "number_custom_id": "invalid_custom_id",
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_line_17_fails_the_batch_and_names_line_17(cast, api, kind) -> None:
    bad, param = BROKEN[kind]
    job = checked(cast, jsonl([row(number) for number in range(1, 17)] + [bad] + [row(number) for number in range(18, 30)]))
    answer = api(cast.key).get(path(job)).json()
    assert (answer["status"], answer["failed_at"] is None, answer["output_file_id"], answer["error_file_id"]) == (
        "failed",
        False,
        None,
        None,
    )
    assert [(one["line"], one["code"], one["param"]) for one in answer["errors"]["data"]] == [(17, CODES.get(kind, kind), param)]
    assert "Line 17" in job.error["message"]
    with as_tenant(cast.tenant.id):
        assert usage.UsageRecord.objects.count() == 0
    files.delete_file(cast.tenant, job.batch.input_file_id)


@pytest.mark.parametrize(
    ("content", "code"), [(b"\n \r\n", "empty_file"), (b"\xef\xbb\xbf", "empty_file"), (b"PK\x03\x04\0\0", "invalid_json_line")]
)
def test_a_file_without_lines_fails(cast, content, code) -> None:
    assert checked(cast, content).error["code"] == code


def test_every_bad_line_is_told_up_to_a_hundred(cast) -> None:
    job = checked(cast, jsonl([row(number, method="PUT" if number % 2 else "POST") for number in range(1, 301)]))
    assert [one["line"] for one in job.error["data"][:100]] == list(range(1, 201, 2))
    assert job.error["data"][100] == {"code": "more_errors", "line": None, "message": "50 more lines have errors.", "param": None}


def test_more_lines_than_allowed_fail(cast, monkeypatch) -> None:
    monkeypatch.setattr(lines, "LINE_COUNT", 10)
    assert checked(cast, jsonl([row(number) for number in range(10)])).state == "running"
    job = checked(cast, jsonl([row(number) for number in range(11)]))
    assert (job.state, job.error["code"], job.error["data"][0]["line"]) == ("failed", "too_many_lines", 11)


def test_blank_lines_a_bom_and_windows_line_ends_are_fine(cast) -> None:
    content = b"\xef\xbb\xbf" + b"\r\n\r\n".join(json.dumps(row(number)).encode() for number in range(3))
    job = checked(cast, content)
    assert (job.state, job.total) == ("running", 3)


def test_a_bad_body_does_not_fail_the_batch(cast) -> None:
    bodies = [None, 7, {}, {"model": "\0"}, {"model": 5, "inputs": []}, {"model": "none", "inputs": ["x"] * 1000}]
    job = checked(
        cast, jsonl([row(number, body=body) for number, body in enumerate(bodies)] + [{k: v for k, v in row(9).items() if k != "body"}])
    )
    assert (job.state, job.total, job.model_names) == ("running", 7, ["none"])


def test_slices_hold_a_bounded_number_of_inputs_and_cover_every_line(cast) -> None:
    rows = [row(number, body={"model": "none", "inputs": ["x"] * (number % 50)}) for number in range(1, 400)]
    plan = validation.Check(ENDPOINT, lambda reference: None)
    content = jsonl(rows)
    import io

    class Held:
        lost = False

    plan.read(io.BytesIO(content), Held())  # type: ignore[arg-type]
    runs = plan.plan.runs
    assert sum(run.lines for run in runs) == 399
    for run in runs:
        mine = list(lines.read_lines(io.BytesIO(content), number=run.first_line, start=run.start, count=run.lines))
        assert [json.loads(line.raw)["custom_id"] for line in mine] == [f"line-{run.first_line + n}" for n in range(run.lines)]
        assert sum(max(len(json.loads(line.raw)["body"]["inputs"]), 1) for line in mine) <= sizing.SLICE_INPUTS


def test_two_workers_check_a_file_once(cast, quiet) -> None:
    job = make(cast, jsonl([row()]))
    for _ in range(2):
        validation.validate_batch(cast.tenant.id, job.id)
    assert [event.message for event in jobs.list_events(cast.tenant, job.id)].count("The file is fine: 1 lines.") == 1
    assert isinstance(job.id, UUID)
    with pytest.raises(errors.NotFound):
        jobs.get_job(cast.other, job.id)
