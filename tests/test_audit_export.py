"""Exports of the audit log: written down themselves, harmless in a spreadsheet, and verified without us."""

import csv
import io
import json
import shutil
import subprocess
import sys

import pytest

from apps.audit import services
from maas import verify_export
from maas.actors import Actor, acting
from maas.events import TenantChanged
from tests.cast import client_for
from tests.conftest import ROOT
from tests.logbook import entries, fill, somebody, tell


def export(cast, form: str, **query) -> bytes:
    answer = client_for(cast.key).get("/v1/audit/export", {"format": form, **query})
    assert answer.status_code == 200
    return b"".join(answer.streaming_content)


def test_an_export_is_itself_written_down_and_the_last_line_of_it(cast) -> None:
    lines = [json.loads(line) for line in export(cast, "jsonl", search="example").splitlines()]
    entry = entries(cast, action="audit.exported")[0]
    assert entry["after"] == {"format": "jsonl", "search": "example"}
    assert entry["actor"]["kind"] == "key"
    whole = [json.loads(line) for line in export(cast, "jsonl").splitlines()]
    assert json.loads(whole[-1]["body"])["action"] == "audit.exported"
    assert len(lines) < len(whole)


def test_an_export_that_is_refused_is_not_begun(cast) -> None:
    answer = client_for(cast.key).get("/v1/audit/export", {"format": "xlsx"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "format")
    assert entries(cast, action="audit.") == []


def verify_file(path) -> tuple[int, str]:
    """As a customer would, with nothing but Python and the one file."""
    alone = path.parent / "verify_export.py"
    shutil.copy(ROOT / "maas" / "verify_export.py", alone)
    done = subprocess.run([sys.executable, "-I", str(alone), str(path)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_an_export_verifies_offline_and_a_changed_one_does_not(cast, form, tmp_path) -> None:
    fill(cast, 5)
    path = tmp_path / f"audit.{form}"
    path.write_bytes(export(cast, form))
    count = entries(cast, limit=1)[0]["seq"]
    status, said = verify_file(path)
    assert (status, said[: len(f"{count} entries are")]) == (0, f"{count} entries are")
    assert "without a gap" in said
    good = path.read_text()
    path.write_text(good.replace("change 3", "change X"))
    assert verify_file(path)[0] == 1
    lines = good.splitlines(keepends=True)
    first = 1 if form == "csv" else 0
    path.write_text("".join([*lines[: first + 2], *lines[first + 3 :]]))
    status, said = verify_file(path)
    assert (status, "with gaps in 1 places" in said) == (0, True)  # which is what a filter does; each entry is still checked
    path.write_text("not an export\n")
    assert verify_file(path)[0] == 1


def test_a_filtered_export_verifies_entry_by_entry(cast, tmp_path) -> None:
    fill(cast, 3)
    path = tmp_path / "some.jsonl"
    path.write_bytes(export(cast, "jsonl", actor="user_42"))
    assert verify_export.main(path) == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1]["body"] = lines[1]["body"].replace("change 1", "change X")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert verify_export.main(path) == 1


def test_an_export_is_written_in_constant_memory(cast, monkeypatch) -> None:
    monkeypatch.setattr(services, "CHUNK", 2)
    fill(cast, 5)
    with acting(somebody(cast.tenant)):
        parts = [part.count(b"\n") for part in services.export_entries(cast.tenant)]
    assert max(parts) == 2
    assert sum(parts) == entries(cast, limit=1)[0]["seq"]


@pytest.mark.parametrize("evil", ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\t=1"])
def test_a_spreadsheet_does_not_run_what_somebody_called_a_thing(cast, evil) -> None:
    actor = Actor("key", id="key_1", name=evil, tenant_id=cast.tenant.id)
    tell(cast.tenant, TenantChanged(tenant_id=cast.tenant.id, label=evil), actor)
    rows = list(csv.DictReader(io.StringIO(export(cast, "csv").decode())))
    row = rows[-2]
    assert (row["label"], row["actor"]) == (f"'{evil}", f"'{evil}")
    assert all(not cell.startswith(("=", "+", "-", "@", "\t")) for row in rows for cell in row.values())
