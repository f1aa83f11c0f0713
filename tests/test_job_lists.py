"""Lists of batches: filters, pages under them; how far and how fast a batch is."""

from datetime import timedelta

import pytest
from django.utils import timezone

from apps.jobs import services as jobs
from apps.jobs import stages
from apps.jobs.models import Batch, Job, JobEvent
from maas import ids
from maas.tenancy import as_tenant
from tests.cast import browser_for
from tests.test_files import make
from tests.walk import without_filters, without_policies


def batch(cast, *, key=None, metadata=None, models=(), tenant=None, **changes) -> str:
    """A batch with these columns; its id."""
    tenant = tenant or cast.tenant
    job = jobs.create_batch(
        tenant, input_file_id=ids.encode(ids.FILE, make(tenant).id), endpoint="/v1/predictions", completion_window="24h",
        key=key.row if key else None, metadata=metadata,
    )  # fmt: skip
    finalizing = changes.pop("finalizing_at", None)
    with as_tenant(tenant.id):
        Job.objects.filter(pk=job.pk).update(model_names=list(models), **changes)
        Batch.objects.filter(job=job).update(finalizing_at=finalizing)
    return ids.encode(ids.BATCH, job.id)


def found(api, cast, query: str) -> list[str]:
    answer = api(cast.key).get(f"/v1/batches?{query}")
    assert answer.status_code == 200, answer.json()
    return [row["id"] for row in answer.json()["data"]]


def test_each_status_finds_what_is_shown_as_it(cast, api) -> None:
    now = timezone.now()
    states = {
        "validating": {}, "in_progress": {"state": "running"}, "finalizing": {"state": "running", "finalizing_at": now},
        "completed": {"state": "succeeded", "finalizing_at": now}, "failed": {"state": "failed"}, "expired": {"state": "expired"},
        "cancelling": {"state": "cancelling"}, "cancelled": {"state": "cancelled", "finalizing_at": now},
    }  # fmt: skip
    made = {status: batch(cast, **changes) for status, changes in states.items()}
    for row in api(cast.key).get("/v1/batches").json()["data"]:
        assert made[row["status"]] == row["id"]
        assert found(api, cast, f"status={row['status']}") == [row["id"]]
    assert (
        found(api, cast, "status=failed,expired") == found(api, cast, "status=failed&status=expired") == [made["expired"], made["failed"]]
    )


def test_model_key_and_metadata_find_their_batches_and_all_have_to_fit(cast, api) -> None:
    other = cast.key_with("jobs")
    one = batch(cast, key=cast.key, models=["tiny", "big@3"], metadata={"run": "7", "team": "a"})
    two = batch(cast, key=other, models=["tiny@2"], metadata={"run": "7"})
    plain = batch(cast, models=["tinyest"])
    asked = {
        "model=tiny": [two, one], "model=tiny@2": [two], "model=big": [one], "model=big@4": [], "model=tinyest": [plain],
        f"key=key_{other.row.id.hex}": [two], "metadata[run]=7": [two, one], "metadata[run]=7&metadata[team]=a": [one],
        "metadata[run]=8": [], "metadata[team]=7": [], f"model=tiny&key=key_{cast.key.row.id.hex}&metadata[run]=7&status=validating": [one],
        "model=tiny&status=failed": [],
    }  # fmt: skip
    assert {query: found(api, cast, query) for query in asked} == asked


def test_pages_stay_right_under_filters(cast, api) -> None:
    made = [batch(cast, metadata={"run": str(number % 2)}) for number in range(10)]
    seen, query = [], "metadata[run]=1&limit=2"
    while True:
        page = api(cast.key).get(f"/v1/batches?{query}").json()
        seen += [row["id"] for row in page["data"]]
        if not page["has_more"]:
            break
        query = f"metadata[run]=1&limit=2&after={page['last_id']}"
    assert seen == made[9::-2]
    assert found(api, cast, f"metadata[run]=1&after={made[4]}") == made[3::-2]  # a row that does not fit is a place all the same


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("status=done", "status"), ("status=completed,x", "status"), ("key=7", "key"), ("key=batch_" + "0" * 32, "key"),
        ("model=%00", "model"), ("model=" + "x" * 201, "model"), ("metadata[a]=%00", "metadata.a"), ("metadata[]=x", "metadata."),
        ("metadata[a]=" + "x" * 513, "metadata.a"),
    ],
)  # fmt: skip
def test_a_filter_that_does_not_fit_is_named(cast, api, query, param) -> None:
    answer = api(cast.key).get(f"/v1/batches?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("protection", [without_filters, without_policies])
def test_filters_find_nothing_of_another_tenant_with_either_protection_alone(cast, api, protection) -> None:
    batch(cast, key=cast.key, models=["tiny"], metadata={"run": "7"})
    with protection():
        for query in ("status=validating", "model=tiny", f"key=key_{cast.key.row.id.hex}", "metadata[run]=7"):
            assert api(cast.other_key).get(f"/v1/batches?{query}").json()["data"] == []


# ---------- pace ----------
def running(cast, *, total: int, done: int, seconds: float, told: dict[float, int]) -> dict:
    """A batch that has run for some seconds, with events that were so many seconds ago: how many lines were done then."""
    now = timezone.now()
    batch_id = batch(cast, state="running", total=total, completed=done, started_at=now - timedelta(seconds=seconds))
    job_id = ids.decode(ids.BATCH, batch_id)
    with as_tenant(cast.tenant.id):
        job = Job.objects.get(pk=job_id)
        for ago, count in sorted(told.items(), reverse=True):
            stages.add_event(job, "Lines are done.", total=total, completed=count, failed=0)
            JobEvent.objects.filter(pk=JobEvent.objects.filter(job=job).latest("id").pk).update(created_at=now - timedelta(seconds=ago))
    return {"id": batch_id, "job": jobs.get_job(cast.tenant, job_id)}


def test_nothing_is_told_before_the_lines_are_counted(cast, api) -> None:
    batch_id = batch(cast)
    assert api(cast.key).get(f"/v1/batches/{batch_id}").json()["progress"] is None


def test_a_young_batch_is_measured_since_it_began(cast, api) -> None:
    made = running(cast, total=1000, done=200, seconds=20, told={10: 100, 1: 200})
    shown = api(cast.key).get(f"/v1/batches/{made['id']}").json()["progress"]
    assert shown["percent"] == 20 and shown["lines_per_second"] == pytest.approx(10, rel=0.1)
    assert shown["eta_seconds"] == pytest.approx(80, rel=0.1)


def test_an_older_batch_is_measured_over_the_last_minute(cast) -> None:
    pace = running(cast, total=10_000, done=4000, seconds=1000, told={500: 10, 61: 1000, 30: 2000, 1: 4000})["job"].pace
    assert (pace.percent, pace.lines_per_second) == (40, pytest.approx(3000 / 61, rel=0.05))
    assert pace.eta_seconds == pytest.approx(6000 / (3000 / 61), rel=0.05)


def test_a_batch_that_stands_still_says_so_and_names_no_end(cast) -> None:
    pace = running(cast, total=1000, done=200, seconds=900, told={800: 200})["job"].pace
    assert (pace.percent, pace.lines_per_second, pace.eta_seconds) == (20, 0.0, None)
    pace = running(cast, total=1000, done=0, seconds=900, told={})["job"].pace
    assert (pace.percent, pace.lines_per_second, pace.eta_seconds) == (0, None, None)


def test_an_ended_batch_tells_its_whole_run(cast, api) -> None:
    now = timezone.now()
    batch_id = batch(cast, state="succeeded", total=300, completed=290, failed=10, started_at=now - timedelta(seconds=30), finished_at=now)
    assert api(cast.key).get(f"/v1/batches/{batch_id}").json()["progress"] == {
        "percent": 100,
        "lines_per_second": 10.0,
        "eta_seconds": None,
    }


def test_a_page_of_running_batches_asks_once_for_all_their_paces(cast, django_queries) -> None:
    for _ in range(3):
        running(cast, total=1000, done=200, seconds=900, told={100: 100})
    with django_queries() as one:
        jobs.list_jobs(cast.tenant, limit=1)
    with django_queries() as three:
        found, _ = jobs.list_jobs(cast.tenant, limit=3)
    assert len(one) == len(three) and all(job.pace for job in found)


@pytest.fixture
def django_queries():
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    return lambda: CaptureQueriesContext(connection)


# ---------- the dashboard ----------
def test_the_page_filters_by_model_key_and_metadata_without_javascript(cast) -> None:
    one = batch(cast, key=cast.key, models=["tiny"], metadata={"run": "7"})
    two = batch(cast, models=["big"])
    browser, key = browser_for(cast.owner), f"key_{cast.key.row.id.hex}"
    for query in ("model=tiny", f"key={key}", "metadata=run%3D7", f"model=tiny&key={key}&metadata=run%3D7&state=active"):
        text = browser.get(f"/jobs?{query}").content.decode()
        assert one in text and two not in text, query
    text = browser.get("/jobs?model=none&metadata=run%3D9&state=failed").content.decode()
    assert one not in text and "No job" in text
    for words in ('Model: <b class="long">none', 'Metadata: <b class="long">run=9', 'State: <b class="long">Failed'):
        assert words in text, words


def test_pages_of_a_filtered_list_keep_its_filters(cast, monkeypatch) -> None:
    monkeypatch.setattr("apps.dashboard.views.jobs.PAGE", 1)
    made = [batch(cast, models=["tiny"]) for _ in range(2)]
    batch(cast, models=["big"])
    text = browser_for(cast.owner).get("/jobs?model=tiny").content.decode()
    assert f"model=tiny&amp;after={made[1]}" in text
    assert made[0] in browser_for(cast.owner).get(f"/jobs?model=tiny&after={made[1]}").content.decode()


@pytest.mark.parametrize("query", ["key=x", "metadata=x", "metadata=%00=1", "model=%00", "metadata=" + "x" * 700])
def test_odd_filters_find_nothing_and_break_nothing(cast, query) -> None:
    made = batch(cast, models=["tiny"])
    answer = browser_for(cast.owner).get(f"/jobs?{query}")
    assert answer.status_code == 200 and made not in answer.content.decode()


def test_the_job_page_tells_the_pace_of_the_last_minute(cast) -> None:
    made = running(cast, total=10_000, done=4000, seconds=1000, told={61: 940, 1: 4000})
    text = browser_for(cast.owner).get(f"/jobs/{made['id']}").content.decode()
    assert "lines/s" in text and "over the last minute" in text and "40%" in text
