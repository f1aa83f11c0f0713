"""Old entries go by plan, and what is left still verifies."""

import json

import pytest

from apps.audit import retention
from apps.audit.recording import canonical
from maas.tenancy import as_tenant
from tests.insider import chain, found, grow, renamed, rewrite, tamper, verify


@pytest.fixture
def log(cast):
    """A tenant whose log has ten entries and a few."""
    grow(cast.tenant, 10)
    return cast.tenant


@pytest.fixture
def aged(log, monkeypatch):
    """The same log on the free plan, five of its entries older than 30 days."""
    monkeypatch.setattr(retention, "STEP", 3)
    with as_tenant(log.id):
        type(log).objects.filter(pk=log.pk).update(plan="free")
    rewrite(log.id, lambda seq, body: canonical({**json.loads(body), "at": json.loads(body)["at"] - 31 * 86_400_000 * (seq <= 5)}))
    return log


def test_old_entries_go_and_what_is_left_still_verifies(aged) -> None:
    before = len(chain(aged))
    assert retention.prune_entries() == 5
    left = chain(aged)
    assert [seq for seq, _hash, _body in left] == list(range(6, before + 3))  # two steps, so two entries that tell
    told = [json.loads(body) for _seq, _hash, body in left if '"audit.pruned"' in body]
    assert [(entry["after"]["through"], entry["after"]["entries"]) for entry in told] == [(3, 3), (5, 2)]
    assert (told[0]["actor"]["kind"], told[0]["target"]) == ("system", f"org_{aged.id.hex}")
    assert verify(aged)[0] == 0
    assert retention.prune_entries() == 0


def test_the_oldest_entry_that_is_kept_cannot_be_edited_either(aged) -> None:
    retention.prune_entries()
    tamper("UPDATE audit_entry SET body = %s WHERE tenant_id = %s AND seq = 6", renamed(chain(aged)[0][2]), aged.id)
    assert "Entry 6, the oldest that is kept, was edited" in found(aged)


def test_deleting_more_than_was_pruned_is_found(aged) -> None:
    retention.prune_entries()
    tamper("DELETE FROM audit_entry WHERE tenant_id = %s AND seq <= 7", aged.id)
    assert "Entries 1 to 7 are missing, and no entry tells" in found(aged)


def test_a_plan_that_keeps_everything_or_is_unknown_loses_nothing(aged) -> None:
    with as_tenant(aged.id):
        for plan in ("unlimited", "a plan of tomorrow"):
            type(aged).objects.filter(pk=aged.pk).update(plan=plan)
    before = chain(aged)
    assert retention.prune_entries() == 0
    assert chain(aged) == before


def test_a_log_of_nothing_but_prunings_is_left_alone(aged, monkeypatch) -> None:
    monkeypatch.setitem(retention.DAYS, "free", 0)
    assert retention.prune_entries() > 0
    assert retention.prune_entries() == 0
    assert verify(aged)[0] == 0


def test_beat_anchors_and_prunes(aged) -> None:
    import workers.tasks  # noqa: F401  # names the tasks
    from maas.celery import app

    for name in ("anchor-audit", "prune-audit"):
        app.tasks[app.conf.beat_schedule[name]["task"]]()
    assert chain(aged)[0][0] == 6
    assert "and 1 anchors are as they were written" in verify(aged)[1]
