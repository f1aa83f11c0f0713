"""Whoever changes the log, with whatever rights in the database, is found out by `verify_audit`."""

import json
import shutil
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from apps.audit import anchors
from apps.audit.models import Head
from apps.audit.recording import canonical
from maas import ids
from maas.events import AuditPruned, publish
from maas.tenancy import SystemUse, as_system
from maas.verify_export import link
from tests.conftest import HOME
from tests.insider import chain, found, grow, insider, renamed, rewrite, tamper, verify

ANCHORS = HOME / "anchors"


@pytest.fixture
def log(cast):
    """A tenant whose log has ten entries and a few."""
    grow(cast.tenant, 10)
    return cast.tenant


# ---------- what an insider does is found ----------
def test_an_edited_entry_is_named(log) -> None:
    tamper("UPDATE audit_entry SET body = replace(body, 'change 3', 'change X') WHERE tenant_id = %s AND label = 'change 3'", log.id)
    seq = next(seq for seq, _hash, body in chain(log) if "change X" in body)
    assert found(log).splitlines()[0] == f"{log.slug}: Entry {seq} was edited: its text and the entry before it do not give its hash."


def test_an_entry_that_was_edited_and_hashed_anew_is_found_at_the_next_one(log) -> None:
    (seq, _hash, body), (_seq, before, _body) = chain(log)[4], chain(log)[3]
    new = renamed(body)
    tamper("UPDATE audit_entry SET body = %s, hash = %s WHERE tenant_id = %s AND seq = %s", new, link(before, seq, new), log.id, seq)
    assert f"Entry {seq + 1} was edited" in found(log)


def test_a_deleted_entry_in_the_middle_is_named(log) -> None:
    tamper("DELETE FROM audit_entry WHERE tenant_id = %s AND seq IN (4, 5)", log.id)
    assert found(log).splitlines()[0] == f"{log.slug}: Entries 4 to 5 are missing: deleted."


def test_entries_deleted_at_the_start_are_named(log) -> None:
    tamper("DELETE FROM audit_entry WHERE tenant_id = %s AND seq <= 2", log.id)
    assert "Entries 1 to 2 are missing, and no entry tells that they were pruned" in found(log)


def test_a_pruning_that_nobody_signed_does_not_explain_a_missing_start(log) -> None:
    """Whoever has the database but not the keys can publish and delete, and is found all the same."""
    _seq, hash_, _body = chain(log)[1]
    with as_system(SystemUse.PRUNE_AUDIT), connection.cursor() as cursor:
        publish(AuditPruned(tenant_id=log.id, after={"through": 2, "hash": hash_.hex(), "mac": "0" * 64}))
        cursor.execute("SELECT maas_prune_audit(%s, 2)", [log.id])
    assert "Entries 1 to 2 are missing" in found(log)


def test_a_log_that_was_cut_off_is_found_by_its_head(log) -> None:
    last = len(chain(log))
    tamper("DELETE FROM audit_entry WHERE tenant_id = %s AND seq > %s", log.id, last - 2)
    assert f"Entries {last - 1} to {last} are missing at the end: deleted." in found(log)


def test_a_log_that_was_cut_off_with_its_head_is_found_by_an_anchor(log) -> None:
    anchors.write_anchors()
    last = len(chain(log))
    rewrite(log.id, lambda _seq, body: body, upto=last - 2)
    said = found(log)
    assert f"The log ends with entry {last - 2}, but entry {last} existed on" in said
    assert "Entry" not in said.replace("entry", "")  # nothing else looks wrong


def test_a_chain_that_was_made_anew_is_found_by_an_anchor(log) -> None:
    anchors.write_anchors()
    anchored = len(chain(log))
    grow(log, 3)
    rewrite(log.id, lambda seq, body: renamed(body) if seq == 5 else body)
    assert f"The chain was rewritten after entry 0 and up to entry {anchored}" in found(log)


def test_without_anchors_a_chain_that_was_made_anew_would_pass(log) -> None:
    """Which is why there are anchors."""
    rewrite(log.id, lambda seq, body: renamed(body) if seq == 5 else body)
    assert verify(log)[0] == 0


def test_a_log_that_is_gone_as_a_whole_is_found(log) -> None:
    last = len(chain(log))
    tamper("DELETE FROM audit_entry WHERE tenant_id = %s", log.id)
    assert f"Entries 1 to {last} are missing at the end" in found(log)
    anchors.write_anchors()
    tamper("DELETE FROM audit_head WHERE tenant_id = %s", log.id)
    assert f"The log ends with entry 0, but entry {last} existed on" in found(log)


def test_a_changed_or_missing_head_is_found(log) -> None:
    tamper("UPDATE audit_head SET hash = sha256('x') WHERE tenant_id = %s", log.id)
    assert "The head of the chain names another end" in found(log)
    tamper("DELETE FROM audit_head WHERE tenant_id = %s", log.id)
    assert "The head of the chain is missing" in found(log)


def test_an_entry_put_in_past_the_trigger_is_found(log) -> None:
    entry = ids.uuid7()
    body = canonical({**json.loads(chain(log)[0][2]), "id": ids.encode(ids.AUDIT, entry)})
    with insider() as database:
        database.execute("ALTER TABLE audit_entry DISABLE TRIGGER USER")
        database.execute("INSERT INTO audit_entry (id, tenant_id, body) VALUES (%s, %s, %s)", [entry, log.id, body])
        database.execute("SET CONSTRAINTS ALL IMMEDIATE")
        database.execute("ALTER TABLE audit_entry ENABLE TRIGGER USER")
    assert f"Entry {ids.encode(ids.AUDIT, entry)} stands outside of the chain" in found(log)


# ---------- anchors ----------
def test_an_anchor_is_written_only_where_a_chain_grew(log) -> None:
    assert anchors.write_anchors() >= 1
    with as_system(SystemUse.ANCHOR_AUDIT):
        assert Head.objects.get(tenant=log).anchored_seq == len(chain(log))
    assert anchors.write_anchors() == 0
    grow(log, 1)
    out = StringIO()
    call_command("anchor_audit", stdout=out)
    assert out.getvalue() == "1 chains are anchored.\n"
    assert "and 2 anchors are as they were written" in verify(log)[1]


def anchor_files(tenant) -> list[Path]:
    return [path for path in sorted(ANCHORS.rglob("*.jsonl")) if tenant.id.hex in path.read_text()]


def test_a_forged_anchor_is_told_apart(log) -> None:
    anchors.write_anchors()
    (path,) = anchor_files(log)
    lines = path.read_text().splitlines()
    number = next(n for n, line in enumerate(lines) if log.id.hex in line)
    forged = canonical({**json.loads(lines[number]), "hash": "0" * 64})
    before = path.read_text()
    try:
        path.write_text("\n".join([*lines[:number], forged, "not JSON"]) + "\n")
        said = found(log)
    finally:
        path.write_text(before)
    assert f"line {number + 1} is signed by none of MAAS_SEALING_KEYS" in said
    assert f"line {number + 2} cannot be read" in said
    assert "Anchors are missing" in said


def test_missing_anchors_are_found_and_copies_kept_elsewhere_stand_in(log, tmp_path) -> None:
    anchors.write_anchors()
    (path,) = anchor_files(log)
    shutil.copy(path, tmp_path)
    path.unlink()
    assert f"Anchors are missing: entry {len(chain(log))} was anchored, but the newest anchor found is of entry 0" in found(log)
    assert verify(log, anchors=[tmp_path])[0] == 0


def test_any_of_the_sealing_keys_verifies_an_anchor(log, settings_of) -> None:
    anchors.write_anchors()
    from django.conf import settings

    with settings_of(MAAS_SEALING_KEYS=["a new key", *settings.MAAS_SEALING_KEYS]):
        assert verify(log)[0] == 0
    with settings_of(MAAS_SEALING_KEYS=["a new key"]):
        assert "signed by none" in found(log)


def test_the_command_names_what_does_not_exist(tmp_path) -> None:
    with pytest.raises(CommandError, match="no organisation 'nobody-here'"):
        call_command("verify_audit", tenant="nobody-here", stdout=StringIO())
    with pytest.raises(CommandError, match="no folder"):
        call_command("verify_audit", anchors=[tmp_path / "none"], stdout=StringIO())


def test_all_chains_are_verified_at_once_and_a_tenant_that_is_gone_is_named(log) -> None:
    fact = {"tenant": f"org_{'1' * 32}", "seq": 7, "hash": "2" * 64, "at": 1_700_000_000_000}
    path = ANCHORS / "gone.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text(canonical({**fact, "mac": anchors.sign(fact)}) + "\n")
    try:
        out = StringIO()
        with pytest.raises(SystemExit):
            call_command("verify_audit", stdout=out)
    finally:
        path.unlink()
    assert f"{fact['tenant']}: 7 entries of it were anchored, but the organisation is gone" in out.getvalue()
