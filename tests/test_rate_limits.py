"""Limits a minute: counted in one script, exact under concurrency, told in headers, and served without Redis too."""

import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from redis.backoff import NoBackoff
from redis.retry import Retry

from apps.accounts import keys
from apps.audit import retention
from apps.billing import plans
from apps.files import services as files
from apps.jobs import services as jobs
from apps.jobs.models import Job
from apps.usage import blocks
from apps.usage.models import Reservation
from maas import errors, ids, limits, queue
from maas.limits import Limit
from maas.tenancy import as_tenant
from tests.cast import Key, browser_for, client_for
from tests.queueing import answer_at_once, replace_nudge

MINUTE = 60_000_000  # microseconds


class Clock:
    """A time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_800_000_000_000_000

    def __call__(self) -> int:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += round(seconds * 1e6)


@pytest.fixture(autouse=True)
def clock(monkeypatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(limits, "clock", found)
    monkeypatch.setattr(limits, "_away_until", 0.0)
    return found


@pytest.fixture
def on_plan(cast, tmp_path, settings_of):
    """Put the cast's tenants on a free plan with these figures."""
    opened = []

    def put(**figures) -> None:
        file = tmp_path / f"plans-{len(opened)}.toml"
        loose = dict.fromkeys(("requests_per_minute", "units_per_minute", "model_requests_per_minute", "model_units_per_minute"), "none")
        file.write_text("[free]\n" + "\n".join(f"{name} = {value!r}".replace("'", '"') for name, value in (loose | figures).items()))
        opened.append(settings_of(MAAS_PLANS=str(file)))
        opened[-1].enable()
        for tenant in (cast.tenant, cast.other):
            with as_tenant(tenant.id):
                assert type(tenant).objects.filter(pk=tenant.pk).update(plan="free")
            tenant.plan = "free"

    yield put
    for one in reversed(opened):
        one.disable()


@pytest.fixture
def answering(monkeypatch, catalogue) -> list:
    """An online server that answers at once."""
    return answer_at_once(monkeypatch, queue.Answer([{"translation_text": "x"}], 1, 0, 0))


@pytest.fixture
def catalogue() -> None:
    from apps.catalog.shipping import load_folder
    from tests.conftest import ROOT

    list(load_folder(ROOT / "models"))


@pytest.fixture
def no_redis(monkeypatch) -> redis.Redis:
    """A port where nobody listens."""
    dead = redis.Redis(port=1, socket_connect_timeout=0.2, retry=Retry(NoBackoff(), 0))
    monkeypatch.setattr(limits, "connect", lambda: dead)
    monkeypatch.setattr(limits, "_lines", None)
    monkeypatch.setattr(limits, "_away_until", 0.0)
    monkeypatch.setattr(limits, "_local", {})
    return dead


def look(key, **query):
    return client_for(key).get("/v1/models", query)


def translate(key, text: str = "Good morning.", **headers):
    return client_for(key).post("/v1/predictions", {"model": "tatoeba-en-de", "inputs": text}, format="json", **headers)


def refused(answer) -> str:
    found = answer.json()["error"]
    assert (answer.status_code, found["code"], found["type"]) == (429, "rate_limited", "rate_limit_error"), found
    return found["message"]


def limited(cast, **figures) -> Key:
    return Key(*keys.create_key(cast.tenant, name="edge", scopes=["models", "predict", "usage"], limits=figures))


# ---------- exact ----------
def test_of_200_concurrent_calls_exactly_50_pass(cast, on_plan) -> None:
    on_plan(requests_per_minute=50)

    def send(_number) -> int:
        try:
            return look(cast.key).status_code
        finally:
            connections.close_all()

    with ThreadPoolExecutor(40) as threads:
        assert Counter(threads.map(send, range(200))) == {200: 50, 429: 150}


def test_of_200_threads_at_once_exactly_50_are_counted() -> None:
    start, limit = threading.Barrier(200), Limit("tenant", "requests", f"maas:rate:{ids.uuid7().hex}", 50, 1)

    def send(_number) -> bool:
        start.wait()
        return limits.take([limit]).passed

    with ThreadPoolExecutor(200) as threads:
        assert sum(threads.map(send, range(200))) == 50


@pytest.mark.parametrize("most", [1, 7, 50, 999_983, limits.MINUTE // 6])
def test_a_whole_limit_is_whole_to_the_last(most) -> None:
    bucket = f"maas:rate:{ids.uuid7().hex}"
    verdict = limits.take([Limit("tenant", "units", bucket, most, most)])
    assert verdict.passed and verdict.standings[0].remaining == 0
    assert not limits.take([Limit("tenant", "units", bucket, most, 1)]).passed


def test_a_limit_fills_up_again_bit_by_bit(cast, on_plan, clock) -> None:
    on_plan(requests_per_minute=30)
    assert [look(cast.key).status_code for _ in range(31)] == [200] * 30 + [429]
    clock.move(1.9)
    assert look(cast.key).status_code == 429
    clock.move(0.1)
    assert [look(cast.key).status_code for _ in range(2)] == [200, 429]
    clock.move(60)
    assert look(cast.key)["x-ratelimit-remaining-requests"] == "29"


def test_by_redis_own_clock_a_limit_holds_and_fills_up(monkeypatch) -> None:
    monkeypatch.setattr(limits, "clock", lambda: 0)
    limit = Limit("tenant", "requests", f"maas:rate:{ids.uuid7().hex}", 2, 1)
    assert [limits.take([limit]).passed for _ in range(3)] == [True, True, False]
    assert 28 < limits.take([limit]).standings[0].wait <= 30
    assert 59_000 < limits.connect().pttl(limit.bucket) <= 61_000


# ---------- what the answer says ----------
def test_headers_on_success_and_on_refusal(cast, on_plan) -> None:
    on_plan(requests_per_minute=2, units_per_minute=100)
    answer = look(cast.key)
    assert {name: answer[name] for name in answer.headers if "ratelimit" in name.lower()} == {
        "x-ratelimit-limit-requests": "2", "x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "30.000s",
        "x-ratelimit-limit-units": "100", "x-ratelimit-remaining-units": "100", "x-ratelimit-reset-units": "0.000s",
        "RateLimit-Policy": '"requests";q=2;w=60, "units";q=100;w=60', "RateLimit": '"requests";r=1;t=30, "units";r=100;t=0',
    }  # fmt: skip
    look(cast.key)
    answer = look(cast.key)
    assert refused(answer) == "Your organisation has used its 2 requests a minute. Try again in 30 s."
    assert answer["Retry-After"] == "30" and answer["x-ratelimit-remaining-requests"] == "0"
    assert answer["RateLimit"] == '"requests";r=0;t=60, "units";r=100;t=0'
    assert answer.json()["error"]["request_id"] == answer["x-request-id"]


def test_an_error_tells_the_limits_too_and_a_stranger_gets_none(cast, on_plan) -> None:
    on_plan(requests_per_minute=5)
    assert client_for(cast.key).get("/v1/models/nothing")["x-ratelimit-remaining-requests"] == "4"
    assert client_for(cast.key).put("/v1/models")["x-ratelimit-remaining-requests"] == "3"
    answer = client_for("x").get("/v1/models")
    assert answer.status_code == 401 and "RateLimit" not in answer


def test_the_unlimited_plan_asks_nobody_and_says_nothing(cast, no_redis) -> None:
    answer = look(cast.key)
    assert answer.status_code == 200 and "RateLimit" not in answer and limits._away_until == 0


# ---------- whose limit ----------
def test_a_keys_own_limit_is_below_its_tenants(cast, on_plan) -> None:
    on_plan(requests_per_minute=10)
    own = limited(cast, requests_per_minute=1)
    assert look(own)["x-ratelimit-limit-requests"] == "1"
    assert "The key 'edge' has used its 1 requests a minute" in refused(look(own))
    assert look(cast.key)["x-ratelimit-remaining-requests"] == "8"  # the refused call was not counted for the tenant


def test_a_key_is_limited_on_the_unlimited_plan_too(cast) -> None:
    own = limited(cast, requests_per_minute=1)
    assert [look(own).status_code for _ in range(2)] == [200, 429]
    assert look(cast.key).status_code == 200


def test_another_tenant_is_not_affected(cast, on_plan) -> None:
    on_plan(requests_per_minute=1)
    assert [look(cast.key).status_code for _ in range(2)] == [200, 429]
    assert look(cast.other_key).status_code == 200


def test_a_session_counts_for_its_tenant(cast, on_plan) -> None:
    on_plan(requests_per_minute=1)
    assert browser_for(cast.owner).get("/v1/models").status_code == 200
    refused(look(cast.key))


def test_one_model_cannot_take_it_all(cast, on_plan, answering) -> None:
    on_plan(requests_per_minute=10, model_requests_per_minute=1)
    assert translate(cast.key).status_code == 200
    assert "1 requests a minute to the model 'tatoeba-en-de'" in refused(translate(cast.key))
    assert look(cast.key)["x-ratelimit-remaining-requests"] == "8"


def test_who_calls_too_often_keeps_the_database_out_of_it(cast, on_plan, answering) -> None:
    on_plan(requests_per_minute=1)
    assert translate(cast.key).status_code == 200
    blocks.give_back()
    with as_tenant(cast.tenant.id):
        before = Reservation.objects.filter(tenant=cast.tenant).count()
        refused(translate(cast.key))
        assert Reservation.objects.filter(tenant=cast.tenant).count() == before


# ---------- units ----------
def test_predictions_count_units_that_are_known_before_the_call(cast, on_plan, answering) -> None:
    on_plan(requests_per_minute=10, units_per_minute=5)
    assert translate(cast.key, "x" * 300)["x-ratelimit-remaining-units"] == "2"  # 160 tokens at 64 a unit
    assert "used its 5 units a minute" in refused(answer := translate(cast.key, "x" * 300))
    assert answer["Retry-After"] == "12" and len(answering) == 1
    assert look(cast.key)["x-ratelimit-remaining-requests"] == "8"
    assert translate(cast.key)["x-ratelimit-remaining-units"] == "1"


def test_a_call_of_more_than_a_whole_limit_passes_when_the_limit_is_whole(cast, on_plan, answering) -> None:
    on_plan(units_per_minute=2)
    assert translate(cast.key, "x" * 3000).status_code == 200
    refused(translate(cast.key))


def test_a_model_and_a_key_have_limits_of_units(cast, on_plan, answering) -> None:
    on_plan(model_units_per_minute=1)
    translate(cast.key)
    assert "units a minute of the model" in refused(translate(cast.key))
    assert translate(limited(cast, units_per_minute=1)).status_code == 429  # the model is used up for the whole organisation
    on_plan()
    own = limited(cast, units_per_minute=1)
    translate(own)
    assert "The key 'edge' has used its 1 units" in refused(translate(own))


def test_a_replayed_answer_costs_a_request_but_no_units(cast, on_plan, answering) -> None:
    on_plan(requests_per_minute=3, units_per_minute=1)
    answers = [translate(cast.key, HTTP_IDEMPOTENCY_KEY="a") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer["x-ratelimit-remaining-requests"] for answer in answers] == ["2", "1", "0", "0"]
    assert len(answering) == 1


def test_a_refused_call_frees_its_idempotency_key(cast, on_plan, answering, clock) -> None:
    on_plan(units_per_minute=1)
    translate(cast.key)
    refused(translate(cast.key, HTTP_IDEMPOTENCY_KEY="b"))
    clock.move(60)
    assert translate(cast.key, HTTP_IDEMPOTENCY_KEY="b").status_code == 200


def test_a_malformed_call_is_one_request(cast, on_plan, answering) -> None:
    on_plan(requests_per_minute=2)
    assert [translate(cast.key, "").status_code for _ in range(3)] == [400, 400, 429]


# ---------- Redis ----------
def test_without_redis_a_quarter_is_served_and_said(cast, on_plan, no_redis, answering) -> None:
    on_plan(requests_per_minute=400, units_per_minute=100_000)
    answers = [look(cast.key) for _ in range(101)]
    assert Counter(answer.status_code for answer in answers) == {200: 100, 429: 1}
    assert {answer["x-ratelimit-degraded"] for answer in answers} == {"true"}
    assert answers[0]["x-ratelimit-limit-requests"] == "100"
    refused(translate(cast.key))


def test_without_redis_no_limit_grows(cast, on_plan, no_redis) -> None:
    on_plan(requests_per_minute=100)
    assert look(cast.key)["x-ratelimit-limit-requests"] == "60"
    on_plan(requests_per_minute=3)
    assert look(cast.key)["x-ratelimit-limit-requests"] == "3"


def test_a_redis_that_is_away_is_asked_once_in_a_while(cast, on_plan, no_redis, monkeypatch) -> None:
    on_plan(requests_per_minute=100)
    look(cast.key)
    monkeypatch.setattr(limits, "_asked", lambda: pytest.fail("asked again"))
    assert look(cast.key)["x-ratelimit-degraded"] == "true"
    monkeypatch.undo()


@pytest.mark.parametrize("answers", ["nobody", "never"])
def test_a_redis_that_is_gone_or_hangs_costs_one_call_a_second_at_most(cast, on_plan, settings_of, monkeypatch, answers) -> None:
    on_plan(requests_per_minute=100)
    monkeypatch.setattr(limits, "_lines", None)
    monkeypatch.setattr(limits, "_local", {})
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if answers == "nobody":
            server.close()
        with settings_of(REDIS_URL=f"redis://127.0.0.1:{port}/0"):
            began = time.monotonic()
            assert look(cast.key)["x-ratelimit-degraded"] == "true"
            assert time.monotonic() - began < 1.5
            monkeypatch.setattr(limits, "_asked", lambda: pytest.fail("asked again"))
            assert [look(cast.key).status_code for _ in range(5)] == [200] * 5


def test_a_process_forgets_limits_that_are_whole(no_redis, clock, monkeypatch) -> None:
    monkeypatch.setattr(limits, "LOCAL_ENTRIES", 2)
    for number in range(5):
        limits.take([Limit("tenant", "requests", f"one-{number}", 60, 1)])
        clock.move(2)
    assert len(limits._local) <= 3


def test_a_flushed_redis_starts_again_and_gets_the_script_again(cast, on_plan) -> None:
    on_plan(requests_per_minute=1)
    assert [look(cast.key).status_code for _ in range(2)] == [200, 429]
    server = limits.connect()
    server.delete(*server.scan_iter(f"maas:rate:{{{cast.tenant.id.hex}}}*"))
    server.script_flush()
    answer = look(cast.key)
    assert answer.status_code == 200 and "x-ratelimit-degraded" not in answer


# ---------- jobs ----------
def test_of_20_batches_at_once_as_many_start_as_the_plan_runs(cast, on_plan, monkeypatch) -> None:
    replace_nudge(monkeypatch, lambda *args, **kwargs: None)
    on_plan(concurrent_jobs=3)
    file = files.create_file(cast.tenant, filename="a.jsonl", purpose="batch", chunks=[b"{}\n"])
    body = {"input_file_id": ids.encode(ids.FILE, file.id), "endpoint": "/v1/predictions", "completion_window": "24h"}
    start = threading.Barrier(20)

    def send(_number):
        try:
            start.wait()
            return client_for(cast.key).post("/v1/batches", body, format="json")
        finally:
            connections.close_all()

    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(send, range(20)))
    assert Counter(answer.status_code for answer in answers) == {200: 3, 429: 17}
    told = next(answer for answer in answers if answer.status_code == 429)
    assert told.json()["error"]["code"] == "too_many_jobs" and told["Retry-After"] == "10"
    started, _more = jobs.list_batches(cast.tenant)
    with as_tenant(cast.tenant.id):
        Job.objects.filter(pk=started[0].pk).update(state="succeeded")
    assert [client_for(cast.key).post("/v1/batches", body, format="json").status_code for _ in range(2)] == [200, 429]


# ---------- keys ----------
def test_limits_of_a_key_are_set_and_changed_over_rest(cast) -> None:
    client = client_for(cast.key)
    made = client.post("/v1/keys", {"name": "a", "scopes": ["models"], "limits": {"requests_per_minute": 5}}, format="json").json()
    assert made["limits"] == {"requests_per_minute": 5}
    path = f"/v1/keys/{made['id']}"
    assert client.patch(path, {"limits": {"units_per_minute": 9, "requests_per_minute": None}}, format="json").json()["limits"] == {
        "units_per_minute": 9
    }
    assert client.patch(path, {"name": "b"}, format="json").json()["limits"] == {"units_per_minute": 9}
    for wrong in ({"requests_per_minute": 0}, {"requests_per_minute": 10**9}, {"colour": 1}, 5):
        answer = client.patch(path, {"limits": wrong}, format="json")
        assert answer.status_code == 400 and answer.json()["error"]["message"], wrong


def test_a_key_gives_no_more_than_its_own_limits(cast) -> None:
    own = Key(*keys.create_key(cast.tenant, name="own", scopes=["keys"], limits={"requests_per_minute": 10}))
    for given, status in (({}, 403), ({"requests_per_minute": 11}, 403), ({"requests_per_minute": 10}, 201)):
        answer = client_for(own).post("/v1/keys", {"name": "a", "scopes": ["keys"], "limits": given}, format="json")
        assert answer.status_code == status, answer.json()


def test_limits_of_a_key_are_set_on_its_page(cast) -> None:
    browser, path = browser_for(cast.owner), f"/keys/{ids.encode(ids.KEY, cast.key.row.id)}/edit"
    form = {"name": "test", "scopes": ["models"], "expires": "keep"}
    assert browser.post(path, {**form, "requests_per_minute": "7"}).status_code == 302
    assert keys.get_key(cast.tenant, cast.key.row.id).limits == {"requests_per_minute": 7}
    assert 'value="7"' in browser.get(path).content.decode()
    assert "7 requests a minute" in browser.get("/keys").content.decode()
    assert browser.post(path, {**form, "requests_per_minute": "0"}).status_code == 422


@pytest.mark.parametrize("wrong", [{"requests_per_minute": 0}, {"requests_per_minute": True}, {"requests_per_minute": "5"}, {"x": 1}])
def test_a_service_refuses_what_is_no_limit(cast, wrong) -> None:
    with pytest.raises(errors.BadRequest) as caught:
        keys.create_key(cast.tenant, name="a", scopes=["models"], limits=wrong)
    assert caught.value.param in {"limits", "limits.requests_per_minute"}


# ---------- plans ----------
@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[gold]\nmembers = 1", "no plan 'gold'"),
        ("free = 1", "no plan 'free'"),
        ("[free]\ncolour = 1", "no field 'colour'"),
        ("[free]\nname = 'x'", "no field 'name'"),
        ("[free]\nmembers = -1", "'members' of the plan 'free'"),
        ("[free]\nmembers = true", "'members' of the plan 'free'"),
        ("[free]\nrequests_per_minute = 0", "'requests_per_minute' of the plan 'free'"),
        ("[free]\nrequests_per_minute = 99999999999", "'requests_per_minute' of the plan 'free'"),
        ("[free]\nunit_price = 'none'", "'unit_price' of the plan 'free'"),
        ("[free]\nunit_price = 0.5", "'unit_price' of the plan 'free'"),
        ("[free]\ntitle = 5", "'title' of the plan 'free'"),
        ("[free", "cannot be read as TOML"),
    ],
)
def test_a_mistake_in_the_plans_is_named(tmp_path, settings_of, text, named) -> None:
    file = tmp_path / "plans.toml"
    file.write_text(text)
    with settings_of(MAAS_PLANS=str(file)), pytest.raises(ImproperlyConfigured, match=named):
        plans.every_plan()


def test_a_mistake_in_the_plans_stops_the_start(tmp_path) -> None:
    import os
    import subprocess
    import sys

    found = subprocess.run(
        [sys.executable, "manage.py", "check"], cwd=Path(__file__).resolve().parent.parent, capture_output=True, text=True,
        env={**os.environ, "MAAS_PLANS": str(tmp_path / "none.toml")},
    )  # fmt: skip
    assert found.returncode and "MAAS_PLANS" in found.stderr.splitlines()[-1]


def test_a_file_changes_what_it_names_alone(tmp_path, settings_of) -> None:
    file = tmp_path / "plans.toml"
    file.write_text('[team]\ntitle = "Crew"\nmembers = "none"\nunit_price = 70')
    with settings_of(MAAS_PLANS=str(file)):
        team = plans.plan_of("team")
        assert (team.title, team.members, team.unit_price, team.concurrent_jobs) == ("Crew", None, 70, 10)
        assert plans.plan_of("a plan that is gone") == plans.plan_of("free")


def test_the_audit_log_keeps_entries_as_long_as_the_plans_say() -> None:
    assert retention.DAYS == {"free": 30, "team": 365, "scale": 730, "unlimited": None}
    assert {name: plan.retention_days for name, plan in plans.every_plan().items()} == retention.DAYS


# ---------- /v1/limits ----------
def test_a_caller_sees_its_limits_and_what_is_left(cast, on_plan, answering) -> None:
    on_plan(requests_per_minute=10, units_per_minute=100, model_units_per_minute=50)
    own = limited(cast, requests_per_minute=5)
    translate(own)
    found = client_for(own).get("/v1/limits", {"model": "tatoeba-en-de"}).json()
    assert (found["plan"]["name"], found["plan"]["requests_per_minute"], found["degraded"]) == ("free", 10, False)
    assert {(row["scope"], row["kind"], row["model"], row["limit"], row["remaining"]) for row in found["rate_limits"]} == {
        ("tenant", "requests", None, 10, 8), ("key", "requests", None, 5, 3), ("tenant", "units", None, 100, 99),
        ("model", "units", "tatoeba-en-de", 50, 49),
    }  # fmt: skip
    again = client_for(own).get("/v1/limits").json()
    assert [row["remaining"] for row in again["rate_limits"]] == [7, 2, 99]  # looking costs the one request


def test_limits_need_the_scope_usage(cast) -> None:
    assert client_for(cast.key_with("models")).get("/v1/limits").status_code == 403
    found = client_for(cast.key).get("/v1/limits").json()
    assert (found["plan"]["name"], found["rate_limits"]) == ("unlimited", [])
    assert client_for(cast.key).get("/v1/limits", {"model": "x" * 121}).json()["error"]["param"] == "model"
