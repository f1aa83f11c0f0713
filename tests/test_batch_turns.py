"""Turns of tenants by their plans' weights, sizes of slices, and what is done before slices."""

import io
import json
from collections import Counter

import pytest

from apps.accounts.models import Tenant
from apps.billing import plans
from apps.jobs import services as jobs
from apps.jobs import slices, stages
from apps.jobs.models import Job, Slice, Turn
from maas.tenancy import SystemUse, as_system, as_tenant
from tests.cast import make_tenant
from tests.test_batch_worker import quiet, request, results, start, started, tiny, work  # noqa: F401  # fixtures too
from workers.batch import lines, running, sizing, turns, validation


def on_plan(cast, name: str) -> Tenant:
    """Another organisation of the same owner, on a plan."""
    tenant = make_tenant(cast.owner, name)
    tenant.plan = name
    with as_system(SystemUse.OPERATE):
        tenant.save()
    return tenant


def take(count: int, *, run: bool = False) -> Counter:
    """How many of the next slices are whose."""
    taken: Counter = Counter()
    for _ in range(count):
        claim = slices.claim_slice()
        taken[claim.tenant_id] += 1
        if run:
            running.run_slice(claim)
    return taken


# ---------- shares ----------
def test_shares_follow_the_weights_of_plans(cast) -> None:
    tenants = [on_plan(cast, name) for name in ("free", "team", "scale", "unlimited")]
    for tenant in tenants:
        started(tenant, 4 * 60)
    taken = take(110)
    assert [taken[tenant.id] for tenant in tenants] == [pytest.approx(share, abs=1) for share in (10, 20, 40, 40)]


def test_many_jobs_of_a_tenant_have_no_more_than_one(cast) -> None:
    many, one = cast.tenant, cast.other
    for _ in range(5):
        started(many, 4 * 8)
    started(one, 4 * 40)
    taken = take(40)
    assert abs(taken[many.id] - taken[one.id]) <= 1


def test_a_tenant_that_was_idle_is_next_and_gets_no_credit_for_it(cast) -> None:
    started(cast.other, 4)
    take(1)
    started(cast.tenant, 4 * 40)
    take(20)
    started(cast.other, 4 * 40)
    order = [slices.claim_slice().tenant_id for _ in range(12)]
    assert cast.other.id in order[:2]
    assert abs(2 * Counter(order)[cast.other.id] - 12) <= 2


def test_a_large_slice_counts_more_than_a_small_one(cast) -> None:
    large, small = started(cast.tenant, 4 * 40), started(cast.other, 4 * 40)
    with as_system(SystemUse.SWEEP):
        Slice.objects.filter(job=large).update(work=300)
        Slice.objects.filter(job=small).update(work=100)
    taken = take(40)
    assert (taken[cast.tenant.id], taken[cast.other.id]) == (pytest.approx(10, abs=1), pytest.approx(30, abs=1))


def test_a_plan_that_is_not_known_any_more_weighs_as_the_free_one(cast) -> None:
    gone, free = on_plan(cast, "gone"), on_plan(cast, "free")
    for tenant in (gone, free):
        started(tenant, 4 * 10)
    taken = take(10)
    assert taken[gone.id] == taken[free.id] == 5
    assert plans.plan_of("gone").weight == plans.plan_of("free").weight


def test_every_claim_moves_the_turn_by_work_over_weight(cast) -> None:
    tenant = on_plan(cast, "scale")
    job = started(tenant, 4)
    claim = slices.claim_slice()
    with as_tenant(tenant.id):
        turn, row = Turn.objects.get(tenant=tenant), Slice.objects.get(pk=claim.id)
    assert turn.due - turn.begun == pytest.approx(row.work / 4)
    assert claim.job_id == job.id


# ---------- sizes ----------
def plan_for(task: str, inputs: list) -> list[stages.Run]:
    plan = sizing.Plan()
    for number, value in enumerate(inputs, 1):
        plan.add(lines.Line(number, number * 100, b"x" * 100), inputs=1, work=sizing.work_of(task, value))
    return plan.runs


@pytest.mark.parametrize(
    ("task", "value", "least", "most"),
    [
        ("image-classification", "x" * 3000, 300, 512),
        ("feature-extraction", "short text", 512, 512),
        ("feature-extraction", "x" * 20_000, 1, 3),
        ("translation", "x" * 40, 100, 300),
        ("translation", "x" * 4000, 1, 4),
        ("question-answering", {"question": "q", "context": "x" * 500}, 60, 150),
        ("question-answering", {"question": "q", "context": "x" * 20_000}, 1, 4),
    ],
)
def test_slices_are_cut_by_work_so_that_none_takes_long(monkeypatch, task, value, least, most) -> None:
    monkeypatch.setattr(sizing, "SLICE_INPUTS", 512)
    runs = plan_for(task, [value] * 2000)
    assert least <= runs[0].lines <= most
    assert sum(run.lines for run in runs) == 2000
    assert all(run.work <= sizing.SLICE_WORK for run in runs if run.lines > 1)


@pytest.mark.parametrize("value", [None, 5, [], {"question": 7}, [None, 5], True])
def test_the_work_of_inputs_that_make_no_sense_is_estimated_all_the_same(value) -> None:
    assert all(sizing.work_of(task, value) > 0 for task in (*sizing.PACES, "new-task", None))


# ---------- before slices ----------
def test_a_turn_first_checks_what_is_new_and_finishes_what_is_done(cast, quiet) -> None:  # noqa: F811
    done, new = started(cast.tenant, 4), start(cast.other, [request(number) for number in range(4)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "finish_batch", lambda *_: None)
        work()
    turns.run_slices()
    assert [jobs.get_job(tenant, job.id).state for tenant, job in ((cast.tenant, done), (cast.other, new))] == ["succeeded"] * 2


def test_an_errand_that_fails_holds_up_nothing(cast, monkeypatch) -> None:
    broken, good = start(cast.tenant, [request(1)]), started(cast.other, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "validate_batch", lambda *_: 1 / 0)
        patch.setattr(turns.log, "exception", lambda *_, **__: None)
        turns.validate_batch.__name__ = "validate_batch"
        turns.run_slices()
    assert (jobs.get_job(cast.other, good.id).state, jobs.get_job(cast.tenant, broken.id).state) == ("succeeded", "queued")


def test_a_worker_that_is_to_stop_takes_no_slice_and_tells_the_others(cast, quiet, monkeypatch) -> None:  # noqa: F811
    job = started(cast.tenant, 4)
    quiet.clear()
    monkeypatch.setattr(turns.holders, "_leaving", [True])
    turns.run_slices()
    assert (jobs.get_job(cast.tenant, job.id).completed, quiet) == (0, ["workers.tasks.run_slices"])


# ---------- lines that are no requests ----------
BAD = [
    (b"{not json", "invalid_json_line", None), (b'["a list"]', "invalid_json_line", None), (b'\xff{"a": 1}', "invalid_encoding", None),
    (b'{"method": "POST", "url": "/v1/predictions"}', "missing_required_parameter", None),
    (b'{"custom_id": 5, "method": "POST", "url": "/v1/predictions"}', "invalid_custom_id", None),
    (b'{"custom_id": "get", "method": "GET", "url": "/v1/predictions"}', "invalid_method", "get"),
    (b'{"custom_id": "url", "method": "POST", "url": "/v1/other"}', "invalid_url", "url"),
    (b'{"custom_id": "more", "method": "POST", "url": "/v1/predictions", "x": 1}', "unknown_parameter", "more"),
    (json.dumps(request(0)).encode(), "duplicate_custom_id", "line-0"),
    (b'{"custom_id": "' + b"x" * lines.LINE_BYTES + b'"}', "line_too_long", None),
]  # fmt: skip


def mixed() -> bytes:
    """A good line before every bad one and after the last, and a blank one."""
    good = [json.dumps(request(number)).encode() for number in range(len(BAD) + 1)]
    pairs = [line for number, (bad, _, _) in enumerate(BAD) for line in (good[number], bad)]
    return b"\n".join([*pairs, b"", good[-1]]) + b"\n"


def begin(tenant: Tenant, content: bytes, **metadata: str) -> Job:
    from apps.files import services as files
    from maas import ids

    file = files.create_file(tenant, filename="mixed.jsonl", purpose="batch", chunks=[content])
    name = ids.encode(ids.FILE, file.id)
    job = jobs.create_batch(tenant, input_file_id=name, endpoint="/v1/predictions", completion_window="24h", metadata=metadata)
    validation.validate_batch(tenant.id, job.id)
    return jobs.get_job(tenant, job.id)


def test_bad_lines_are_skipped_told_in_the_error_file_and_cost_nothing(cast) -> None:
    job = begin(cast.tenant, mixed(), on_invalid="skip")
    work()
    output, failed = results(job)
    job = jobs.get_job(cast.tenant, job.id)
    assert [line["custom_id"] for line in output] == [f"line-{number}" for number in range(len(BAD) + 1)]
    assert [(line["error"]["code"], line["custom_id"]) for line in failed] == [(code, name) for _, code, name in BAD]
    assert [line["error"]["line"] for line in failed] == [2 * number + 2 for number in range(len(BAD))]
    assert {line["response"] for line in failed} == {None}
    assert (job.state, job.total, job.completed, job.failed) == ("succeeded", 2 * len(BAD) + 1, len(BAD) + 1, len(BAD))
    assert job.units == 3 * (len(BAD) + 1)
    assert any("10 of 21 lines" in event.message for event in jobs.list_events(cast.tenant, job.id))


@pytest.mark.parametrize("metadata", [{}, {"on_invalid": "fail"}])
def test_without_skip_every_bad_line_is_told_and_the_batch_fails(cast, metadata) -> None:
    job = begin(cast.tenant, mixed(), **metadata)
    assert job.state == "failed"
    assert [(told["line"], told["code"]) for told in job.error["data"]] == [(2 * n + 2, code) for n, (_, code, _) in enumerate(BAD)]


def test_bad_lines_of_a_cancelled_batch_are_listed_with_the_others(cast) -> None:
    job = begin(cast.tenant, mixed(), on_invalid="skip")
    jobs.cancel_batch(cast.tenant, job.id)
    turns.run_errands()
    failed = results(job)[1]
    assert len(failed) == 2 * len(BAD) + 1
    assert {line["error"]["code"] for line in failed} == {"batch_cancelled"}
    assert [line["custom_id"] for line in failed][:4] == ["line-0", None, "line-1", None]


def test_a_repeat_is_told_wherever_its_slice_is_split(cast) -> None:
    rows = [request(0), request(0), request(1), request(0)]
    job = begin(cast.tenant, b"".join(json.dumps(row).encode() + b"\n" for row in rows), on_invalid="skip")
    claim = slices.claim_slice()
    found = running.read_rows(claim, slices.load_job(claim))
    assert slices.split_slice(claim, first_line=3, start=found[2].start)
    with as_tenant(cast.tenant.id):
        Slice.objects.filter(job=job).update(deaths=0)
    work()
    output, failed = results(job)
    assert [line["custom_id"] for line in output] == ["line-0", "line-1"]
    assert [(line["error"]["line"], line["error"]["code"]) for line in failed] == [(2, "duplicate_custom_id"), (4, "duplicate_custom_id")]


@pytest.mark.parametrize("value", ["", "SKIP", "stop", "skip "])
def test_another_value_of_on_invalid_is_refused(cast, api, value) -> None:
    from apps.files import services as files
    from maas import ids

    file = files.create_file(cast.tenant, filename="a", purpose="batch", chunks=[b"x"])
    body = {"endpoint": "/v1/predictions", "completion_window": "24h", "input_file_id": ids.encode(ids.FILE, file.id)}
    answer = api(cast.key).post("/v1/batches", {**body, "metadata": {"on_invalid": value}}, format="json")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "metadata.on_invalid")


def test_a_file_of_only_bad_lines_is_told_whole(cast) -> None:
    job = begin(cast.tenant, b"{\n" * 120, on_invalid="skip")
    work()
    failed = results(job)[1]
    assert [line["error"]["line"] for line in failed] == list(range(1, 121))
    assert jobs.get_job(cast.tenant, job.id).failed == 120


def test_skipping_does_not_save_an_empty_file_or_one_with_too_many_lines(cast, monkeypatch) -> None:
    monkeypatch.setattr(lines, "LINE_COUNT", 3)
    assert begin(cast.tenant, b"\n", on_invalid="skip").error["code"] == "empty_file"
    assert begin(cast.other, b"{\n" * 4, on_invalid="skip").error["code"] == "too_many_lines"


def test_a_check_reads_a_line_at_a_time() -> None:
    class Source(io.BytesIO):
        largest = 0

        def readline(self, size: int | None = -1) -> bytes:
            found = super().readline(size)
            self.largest = max(self.largest, len(found))
            return found

    source = Source(b"{" + b"x" * (4 * lines.LINE_BYTES) + b"\n" + b"{}\n")
    assert [line.number for line in lines.read_lines(source)] == [1, 2]
    assert source.largest <= lines.LINE_BYTES + 2
