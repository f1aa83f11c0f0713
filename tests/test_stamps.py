"""Stamps: who changes something renews its owner's after the commit, nobody else's, and waits where Redis is away."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from uuid import uuid4

import pytest
import redis
from django.core.management import call_command
from django.db import transaction

from apps.accounts import keys, leaks, suspension
from apps.accounts import services as accounts
from apps.billing import subscriptions
from apps.catalog import services as catalog
from apps.inference.renewing import KINDS
from maas import events, stamps
from maas.lines import Lines
from maas.stamps import EVERYBODY, EXPIRY, LIFE, key_of, read, renew, renew_on_commit
from maas.tenancy import as_tenant
from tests.cast import Cast
from tests.money import at, on_plan
from tests.operating import make_operator
from tests.tiny import NAME, load_tiny
from workers.manifest import write_manifest

Deed = Callable[[], object]


def server() -> redis.Redis:
    return stamps.connect()


# ---------- reading and renewing ----------
def test_a_stamp_that_is_missing_is_made_and_then_stays() -> None:
    owner = uuid4()
    first = read(owner)
    assert len(first) == 16 and read(owner) == first == server().get(b"maas:stamp:" + owner.bytes)
    assert EXPIRY - 60 < server().ttl(key_of(owner)) <= EXPIRY


def test_several_stamps_are_read_at_once_in_their_order() -> None:
    one, other = uuid4(), uuid4()
    both = read(one, other)
    assert both == read(one) + read(other) and both[:16] != both[16:]
    assert read(other, one) == read(other) + read(one)


def test_an_emptied_redis_makes_other_stamps() -> None:
    owner = uuid4()
    before = read(owner)
    server().delete(key_of(owner))
    assert read(owner) != before


def test_a_renewed_stamp_is_another_and_nobody_elses_changes() -> None:
    owner, other = uuid4(), uuid4()
    before = read(owner, other)
    renew(owner)
    assert read(owner) != before[:16] and read(other) == before[16:]
    assert EXPIRY - 60 < server().ttl(key_of(owner)) <= EXPIRY


def test_a_redis_that_lost_a_renewal_does_not_give_the_same_stamp_again() -> None:
    owner = uuid4()
    old = read(owner)
    renew(owner)
    remembered = read(owner)
    server().set(key_of(owner), old)  # as an older copy of its data has it
    renew(owner)
    assert read(owner) not in {old, remembered}


# ---------- commits ----------
def test_a_stamp_is_renewed_after_the_commit_and_not_before() -> None:
    owner = uuid4()
    before = read(owner)
    with transaction.atomic():
        with transaction.atomic():
            renew_on_commit(owner)
        assert read(owner) == before
    assert read(owner) != before


def test_what_is_undone_renews_nothing() -> None:
    owner = uuid4()
    before = read(owner)
    with transaction.atomic(), pytest.raises(ZeroDivisionError), transaction.atomic():
        renew_on_commit(owner)
        _ = 1 / 0
    assert read(owner) == before


def test_a_renewal_that_fails_does_not_undo_what_was_said(monkeypatch) -> None:
    done = []
    monkeypatch.setattr(stamps, "renew", lambda owner: 1 / 0)
    with transaction.atomic():
        renew_on_commit(uuid4())
        transaction.on_commit(lambda: done.append("the mail"))
    assert done == ["the mail"]


# ---------- without Redis ----------
@contextmanager
def away(settings_of, monkeypatch) -> Iterator[list[float]]:
    """Redis is where nobody listens; the seconds that were waited meanwhile."""
    waited: list[float] = []
    with settings_of(REDIS_URL="redis://127.0.0.1:1/0"), monkeypatch.context() as patch:
        patch.setattr(stamps, "LINES", Lines(stamps.connect))
        patch.setattr(stamps, "sleep", waited.append)
        yield waited


def test_without_redis_it_waits_until_what_is_remembered_has_ended(settings_of, monkeypatch) -> None:
    owner = uuid4()
    before = read(owner)
    with away(settings_of, monkeypatch) as waited:
        with pytest.raises(redis.RedisError):
            read(owner)
        renew(owner)
        assert waited == [LIFE]
    assert read(owner) == before  # it came back with what it had


def test_after_the_wait_it_tries_again(settings_of, monkeypatch) -> None:
    owner = uuid4()
    before, lines = read(owner), stamps.LINES
    with away(settings_of, monkeypatch):
        monkeypatch.setattr(stamps, "sleep", lambda _seconds: monkeypatch.setattr(stamps, "LINES", lines))
        renew(owner)
    assert read(owner) != before


def test_a_redis_that_takes_nothing_counts_as_away(monkeypatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(stamps, "sleep", waited.append)
    server().config_set("maxmemory", 1)
    try:
        renew(uuid4())
    finally:
        server().config_set("maxmemory", 0)
    assert waited == [LIFE]


def test_a_key_is_revoked_when_it_is_said_without_redis_too(cast, settings_of, monkeypatch) -> None:
    with away(settings_of, monkeypatch) as waited:
        assert keys.revoke_key(cast.tenant, cast.key.row.id).status == "revoked"
    assert waited == [LIFE]


# ---------- deeds ----------
def revoke(cast: Cast) -> Deed:
    return lambda: keys.revoke_key(cast.tenant, cast.key.row.id)


def change(cast: Cast) -> Deed:
    return lambda: keys.change_key(cast.tenant, cast.key.row.id, scopes=["files"])


def rotate(cast: Cast) -> Deed:
    return lambda: keys.rotate_key(cast.tenant, cast.key.row.id)


def report(cast: Cast) -> Deed:
    return lambda: leaks.report_leak(f"it says {cast.key.secret} here")


def report_old_secret(cast: Cast) -> Deed:
    keys.rotate_key(cast.tenant, cast.key.row.id)
    return report(cast)


def suspend(cast: Cast) -> Deed:
    return lambda: suspension.suspend_tenant(cast.tenant, reason="not paid")


def suspend_in_the_admin(cast: Cast) -> Deed:
    operator = make_operator()
    return lambda: operator.do(cast.tenant, "suspend", reason="not paid")


def resume(cast: Cast) -> Deed:
    suspension.suspend_tenant(cast.tenant, reason="not paid")
    return lambda: suspension.resume_tenant(cast.tenant)


def ask_for_second_factors(cast: Cast) -> Deed:
    return lambda: accounts.change_tenant(cast.tenant, require_mfa=True)


def rise(cast: Cast) -> Deed:
    on_plan(cast.tenant, "free")
    return lambda: subscriptions.change_plan(cast.tenant, plan="team")


def begin_a_month_on_a_smaller_plan(cast: Cast) -> Deed:
    on_plan(cast.tenant, "team")
    with at(2026, 11, 21, 12):
        subscriptions.change_plan(cast.tenant, plan="free")

    def begin() -> None:
        with at(2026, 12, 1, 0, 5):
            assert subscriptions.apply_due_plans() >= 1

    return begin


DEEDS = (
    revoke, change, rotate, report, report_old_secret, suspend, suspend_in_the_admin, resume, ask_for_second_factors, rise,
    begin_a_month_on_a_smaller_plan,
)  # fmt: skip


@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.__name__)
def test_a_deed_renews_the_stamp_of_its_organisation_alone(cast, deed) -> None:
    do = deed(cast)
    mine, others = read(cast.tenant.id), read(cast.other.id, EVERYBODY)
    do()
    assert read(cast.tenant.id) != mine and read(cast.other.id, EVERYBODY) == others


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_fact_that_changes_what_a_key_opens_renews_once_it_is_committed(cast, kind) -> None:
    more = {"key_id": cast.key.row.id} if issubclass(kind, events.KeyEvent) else {}
    before = read(cast.tenant.id, cast.other.id)
    with as_tenant(cast.tenant.id):
        events.publish(kind(tenant_id=cast.tenant.id, **more))
        assert read(cast.tenant.id, cast.other.id) == before
    assert read(cast.tenant.id) != before[:16] and read(cast.other.id) == before[16:]


def test_no_fact_about_a_key_is_left_out_but_that_it_was_made() -> None:
    assert set(events.KeyEvent.__subclasses__()) - set(KINDS) == {events.KeyCreated}


def test_a_key_that_is_made_or_used_renews_nothing(cast, api) -> None:
    before = read(cast.tenant.id, cast.other.id, EVERYBODY)
    assert api(cast.key_with("models")).get("/v1/models").status_code == 200
    assert read(cast.tenant.id, cast.other.id, EVERYBODY) == before


@pytest.fixture
def models(tmp_path: Path) -> Iterator[Path]:
    """A folder of one shipped model that is loaded; in the end the catalogue holds it as it was."""
    load_tiny(tmp_path / "models" / "tiny")
    yield tmp_path / "models"
    load_tiny(tmp_path / "as it was")


def test_an_alias_that_the_shipping_command_moves_renews_the_stamp_of_what_everybody_sees(cast, models, settings_of) -> None:
    (models / "tiny" / "samples.jsonl").write_text("{}\n")
    write_manifest(models / "tiny")
    mine, everybody = read(cast.tenant.id), read(EVERYBODY)
    before = catalog.resolve(cast.tenant, NAME)
    with settings_of(MAAS_MODELS=models):
        call_command("load_catalogue", stdout=StringIO())
    assert catalog.resolve(cast.tenant, NAME).id != before.id
    assert read(EVERYBODY) != everybody and read(cast.tenant.id) == mine
