"""The audit log as tenants see it: what is written, who may read it, what it never holds."""

import json
import re
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from apps.accounts import members
from apps.audit import redaction, services
from apps.audit.models import Entry
from apps.files import services as files
from apps.jobs import services as jobs
from maas import errors, events, ids
from maas.actors import Actor, Permission, acting
from maas.events import Event, SignInRefused, TenantChanged, publish
from maas.sealing import Secret
from maas.tenancy import as_tenant
from tests.belongings import LINE
from tests.cast import browser_for, client_for, make_user
from tests.conftest import ROOT
from tests.logbook import all_events, entries, fill, somebody, tell
from tests.queueing import replace_nudge


@pytest.fixture(autouse=True)
def quiet(monkeypatch) -> None:
    """Nobody works on these jobs, and messages about them must not wait for the tests of those who do."""
    replace_nudge(monkeypatch, lambda name, **arguments: None)


def make_event(kind: type[Event], tenant_id: UUID) -> Event:
    own = {"tenant_id", "label", "before", "after"}
    values = {"UUID": ids.uuid7(), "int": 7, "str": "because", "dict": {"threshold": 80}}
    extra = {f.name: values[getattr(f.type, "__name__", str(f.type))] for f in fields(kind) if f.name not in own}
    return kind(tenant_id=tenant_id, label="a thing", before={"role": "viewer"}, after={"role": "developer"}, **extra)


# ---------- what is written ----------
@pytest.mark.parametrize("kind", all_events(), ids=lambda kind: kind.__name__)
def test_every_event_becomes_an_entry(cast, kind) -> None:
    event = make_event(kind, cast.tenant.id)
    tell(cast.tenant, event)
    entry = entries(cast, limit=1)[0]
    assert entry["actor"] == {"kind": "user", "id": "user_42", "name": "ada@example.org", "role": "admin"}
    assert (entry["action"], entry["target"], entry["label"], entry["result"]) == (event.name, event.target, "a thing", event.result)
    assert (entry["address"], entry["request_id"]) == ("203.0.113.24", "req_1")
    assert (entry["before"], entry["after"]) == ({"role": "viewer"}, {"role": "developer"})
    assert abs(entry["created_at"] - datetime.now(UTC).timestamp()) < 60


def test_an_entry_is_undone_with_its_fact(cast) -> None:
    before = entries(cast)
    with pytest.raises(ZeroDivisionError), as_tenant(cast.tenant.id):
        publish(TenantChanged(tenant_id=cast.tenant.id))
        raise ZeroDivisionError
    assert entries(cast) == before


def test_what_people_and_keys_do_names_them_and_where_they_were(cast) -> None:
    made = client_for(cast.key).post("/v1/keys", {"name": "ci", "scopes": ["predict"]}, format="json", REMOTE_ADDR="198.51.100.7")
    assert made.status_code == 201
    entry = entries(cast, action="key.created", limit=1)[0]
    assert entry["actor"] == {"kind": "key", "id": f"key_{cast.key.row.id.hex}", "name": "test", "role": ""}
    assert (entry["target"], entry["label"], entry["address"]) == (made.json()["id"], "ci", "198.51.100.7")
    assert entry["request_id"] == made["x-request-id"]
    assert entry["after"]["scopes"] == ["predict"]
    browser_for(cast.owner).post(f"/keys/{made.json()['id']}/revoke", {"name": "ci"})
    entry = entries(cast, action="key.revoked", limit=1)[0]
    assert (entry["actor"]["id"], entry["actor"]["role"]) == (f"user_{cast.owner.pk}", "owner")


def start(cast, file):
    file_id = ids.encode(ids.FILE, file.id)
    return jobs.create_batch(cast.tenant, input_file_id=file_id, endpoint="/v1/predictions", completion_window="24h")


def test_files_and_jobs_are_written_down(cast) -> None:
    with acting(somebody(cast.tenant, permissions=(Permission.FILES, Permission.JOBS))):
        file = files.create_file(cast.tenant, filename="lines.jsonl", purpose="batch", chunks=iter([LINE]))
        job = start(cast, file)
        jobs.cancel_batch(cast.tenant, job.id)
        files.delete_file(cast.tenant, file.id)
    seen = [(entry["action"], entry["label"], entry["actor"]["id"]) for entry in entries(cast)[:5]]
    assert seen == [
        (action, "lines.jsonl", "user_42")
        for action in ("file.deleted", "batch.cancelled", "batch.cancelling", "batch.created", "file.created")
    ]
    assert entries(cast, action="file.deleted")[0]["after"] == {"reason": "deleted"}


def test_cancelling_twice_is_written_down_once(cast) -> None:
    file = files.create_file(cast.tenant, filename="lines.jsonl", purpose="batch", chunks=iter([LINE]))
    job = start(cast, file)
    jobs.cancel_batch(cast.tenant, job.id)
    jobs.cancel_batch(cast.tenant, job.id)
    assert len(entries(cast, action="batch.cancelling")) == 1


# ---------- what is never written ----------
SECRET = "maas_" + "a1B2" * 11 + "xY"


def test_secrets_are_never_stored_whatever_a_publisher_does(cast) -> None:
    seed = {
        "note": f"use {SECRET} here", "nested": [{"client_secret": "hunter2hunter2"}], "apiKey": "hunter2hunter2", SECRET: "as a name",
        "header": "Authorization: Bearer hunter2hunter2", "url": "https://ada:hunter2hunter2@example.org/",
        "sealed": Secret("hunter2hunter2"),
        "hook": "whsec_hunter2hunter2", "stripe": "sk_live_hunter2hunter2", "password1": "hunter2hunter2",
    }  # fmt: skip
    tell(cast.tenant, TenantChanged(tenant_id=cast.tenant.id, label=f"key {SECRET}", before=seed, after=seed))
    with as_tenant(cast.tenant.id):
        body = Entry.objects.order_by("-seq").first().body
    assert "hunter2" not in body
    assert SECRET not in body
    assert json.loads(body)["label"] == "key [redacted]"


def test_what_only_sounds_like_a_secret_is_kept() -> None:
    kept = {"old_secret_until": "2026-11-22", "tokens": 512, "what": "password", "scopes": ["keys"], "secret": None, "hash": "ab" * 32}
    assert redaction.redact(kept) == kept


@pytest.mark.parametrize("odd", ["a\0b", "\ud800", float("nan"), float("inf"), object(), {1: 2}, {"x", "y"}, 10**400, "x" * 10_000])
def test_odd_values_never_stop_a_publisher(cast, odd) -> None:
    tell(cast.tenant, TenantChanged(tenant_id=cast.tenant.id, label="odd", after={"odd": odd}))
    entry = entries(cast, limit=1)[0]
    assert entry["label"] == "odd"
    assert len(json.dumps(entry["after"])) < 30_000


# ---------- who may read ----------
def test_only_admins_owners_and_keys_with_the_scope_read_it(cast) -> None:
    admin = make_user("admin")
    members.admit(cast.tenant, user=admin, role="admin")
    developer = make_user("developer")
    members.admit(cast.tenant, user=developer, role="developer")
    for path in ("/v1/audit", "/v1/audit/export"):
        assert client_for(cast.key_with("keys")).get(path).status_code == 200
        refused = client_for(cast.key_with("predict", "files", "jobs", "models", "usage", "webhooks")).get(path)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "missing_scope")
        assert [browser_for(user).get(path).status_code for user in (cast.owner, admin, developer, cast.viewer)] == [200, 200, 403, 403]


def test_the_services_ask_too(cast) -> None:
    with acting(somebody(cast.tenant, permissions=(Permission.KEYS, Permission.MEMBERS))):
        for service in (services.list_entries, services.export_entries, services.count_entries, services.list_actors):
            with pytest.raises(errors.Forbidden):
                service(cast.tenant)
    with acting(somebody(cast.other)), pytest.raises(errors.Forbidden):
        services.list_entries(cast.tenant)


def test_entries_of_another_tenant_are_unseen_though_nothing_filters(cast) -> None:
    with as_tenant(cast.tenant.id):
        assert {entry.tenant_id for entry in Entry.objects.all()} == {cast.tenant.id}
    assert Entry.objects.count() == 0
    ours = {entry["id"] for entry in entries(cast)}
    theirs = {entry["id"] for entry in client_for(cast.other_key).get("/v1/audit").json()["data"]}
    assert ours and theirs and not ours & theirs
    foreign = client_for(cast.key).get("/v1/audit", {"after": theirs.pop()})
    assert (foreign.status_code, foreign.json()["error"]["param"]) == (400, "after")


# ---------- lists ----------
@pytest.mark.parametrize("order", ["desc", "asc"])
def test_pages_hold_every_entry_once_and_in_order(cast, order) -> None:
    fill(cast, 7)
    seen, after = [], {}
    while True:
        page = client_for(cast.key).get("/v1/audit", {"limit": 3, "order": order, **after}).json()
        seen += [entry["seq"] for entry in page["data"]]
        after = {"after": page["last_id"]}
        if not page["has_more"]:
            break
    numbers = list(range(1, max(seen) + 1))
    assert seen == (numbers if order == "asc" else numbers[::-1])


def test_filters_find_what_they_say(cast) -> None:
    fill(cast, 3)
    with acting(Actor("nobody", address="192.0.2.88")), as_tenant(cast.tenant.id):
        publish(SignInRefused(tenant_id=cast.tenant.id, user_id=cast.owner.pk, label=cast.owner.email))
    key_id = f"key_{cast.key.row.id.hex}"
    assert {entry["action"] for entry in entries(cast, action="key.")} == {"key.created"}
    assert {entry["action"] for entry in entries(cast, action="key.,user.sign_in_refused")} == {"key.created", "user.sign_in_refused"}
    assert entries(cast, action="key") == []
    assert len(entries(cast, actor="user_42")) == len(entries(cast, actor="ada@example.org")) == 3
    assert entries(cast, actor="nobody")[0]["address"] == "192.0.2.88"
    assert [entry["label"] for entry in entries(cast, target=key_id)] == ["test"]
    assert [entry["label"] for entry in entries(cast, search="CHANGE 2")] == ["change 2"]
    assert len(entries(cast, search="192.0.2.")) == 1
    assert entries(cast, search="%") == []
    soon, lately = datetime.now(UTC) + timedelta(minutes=1), datetime.now(UTC) - timedelta(minutes=1)
    assert entries(cast, start=soon.isoformat()) == entries(cast, end=lately.isoformat()) == []
    assert entries(cast, start=int(lately.timestamp()), end=soon.isoformat()) == entries(cast)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"start": "yesterday"}, "start"), ({"end": "9" * 30}, "end"), ({"action": "a\0"}, "action"), ({"search": "x" * 301}, "search"),
        ({"after": "aud_1"}, "after"), ({"limit": "0"}, "limit"), ({"order": "up"}, "order"), ({"after": "aud_" + "0" * 32}, "after"),
    ],
)  # fmt: skip
def test_bad_filters_are_named(cast, query, param) -> None:
    answer = client_for(cast.key).get("/v1/audit", query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_every_kind_of_event_is_declared_in_one_place() -> None:
    assert {kind.__module__.rpartition(".")[0] for kind in all_events()} == {events.__name__}


def test_the_guide_names_every_action() -> None:
    guide = (ROOT / "docs" / "audit.md").read_text()
    table = guide[guide.index("| action | when |") : guide.index("Calls of models")]
    named = set()
    for row in table.splitlines()[2:]:
        first, *others = re.findall(r"`([a-z_.]+)`", row) or [""]
        named |= {first, *(first.partition(".")[0] + other for other in others)}
    assert named - {""} == {kind.name for kind in all_events()}
