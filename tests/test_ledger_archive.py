# ruff: noqa: F811  # a fixture of another file has the name of the argument that asks for it
"""A month of the ledger leaves: only whole, only proved, and the figures stay."""

import csv
import gzip
import hashlib
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.db.utils import DatabaseError

from apps.usage import archiving, partitions, services
from apps.usage.models import ArchivedMonth, UsageRecord
from apps.usage.reconciling import differences
from maas.tenancy import SystemUse, as_system, as_tenant
from tests.cast import client_for
from tests.test_ledger import clock, id_at, months  # noqa: F401  # a fixture
from tests.test_usage import line

FREE = iter(date(2000 + n // 12, n % 12 + 1, 1) for n in range(200))  # every test archives a month that no other touches


@pytest.fixture
def month(cast, clock) -> date:
    """A month long past with a charge on its last day, a void, and a slice that ran on the first of the next."""
    period = next(FREE)
    end = datetime.combine(period + timedelta(days=32), datetime.min.time(), tzinfo=UTC).replace(day=1)
    with as_system(SystemUse.PARTITION_USAGE):
        partitions.make_partition(period)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("django.utils.timezone.now", lambda: end - timedelta(minutes=90))
        services.settle_calls(
            [(cast.tenant.id, line(id_at(end - timedelta(minutes=90)))), (cast.other.id, line(id_at(end - timedelta(1))))]
        )
        services.void_call(cast.tenant, line(id_at(end - timedelta(days=2)), kind="void", quantity=0, units=0, requests=0))
        patch.setattr("django.utils.timezone.now", lambda: end + timedelta(hours=2))
        with as_tenant(cast.tenant.id):
            services.record(cast.tenant.id, [line(f"slice:{id_at(end - timedelta(hours=1))}:0:{uuid4().hex}", kind="slice", units=7)])
    return period


def partition(period: date) -> str:
    return f"usage_usagerecord_{period:%Y_%m}"


def figures(cast, period: date) -> dict:
    span = f"start={period}&end={period + timedelta(days=40)}"
    return client_for(cast.key).get(f"/v1/usage?{span}&group_by=hour,model").json()["data"]


def test_a_month_is_written_whole_and_its_figures_stay(cast, month, tmp_path, capsys) -> None:
    before = figures(cast, month)
    call_command("archive_usage", f"{month:%Y-%m}", to=tmp_path)
    file = tmp_path / f"usage-{month:%Y-%m}.csv.gz"
    with gzip.open(file, "rt") as text:
        rows = list(csv.DictReader(text))
    told = json.loads((tmp_path / f"usage-{month:%Y-%m}.json").read_text())
    assert sorted(row["kind"] for row in rows) == ["prediction", "prediction", "slice", "void"]
    assert (told["lines"], told["records"], told["requests"], told["units"]) == (4, 3, 3, 11)
    assert told["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert told["sha256"] in capsys.readouterr().out
    assert partition(month) not in months()
    assert figures(cast, month) == before
    assert sum(row["units"] for row in before) == 9
    assert list(differences()) == []


def refused(month: date, folder: Path, reason: str) -> None:
    """The command says why, and the month stays."""
    had = months()
    with pytest.raises(CommandError, match=reason):
        call_command("archive_usage", f"{month:%Y-%m}", to=folder)
    assert months() == had
    with as_system(SystemUse.ARCHIVE_USAGE):
        assert not ArchivedMonth.objects.filter(period=month, file__startswith=str(folder)).exists()


def test_this_month_and_the_next_are_refused(tmp_path) -> None:
    for period in partitions.months_ahead():
        refused(period, tmp_path, "not over for 7 days")


def test_a_month_is_refused_while_its_work_may_still_be_charged(month, clock, tmp_path) -> None:
    clock(datetime.combine(month + timedelta(days=32), datetime.min.time(), tzinfo=UTC).replace(day=7, hour=23))
    refused(month, tmp_path, "not over for 7 days")
    clock(datetime.combine(month + timedelta(days=32), datetime.min.time(), tzinfo=UTC).replace(day=8))
    call_command("archive_usage", f"{month:%Y-%m}", to=tmp_path)


def test_a_month_that_is_not_there_is_refused(month, tmp_path) -> None:
    refused(date(1999, 1, 1), tmp_path, "has no month")
    call_command("archive_usage", f"{month:%Y-%m}", to=tmp_path / "once")
    refused(month, tmp_path / "twice", "archived already")


def test_what_is_no_month_is_refused(tmp_path) -> None:
    with pytest.raises(CommandError, match="no month such as"):
        call_command("archive_usage", "2026-13", to=tmp_path)


def test_a_month_that_differs_from_its_roll_up_is_refused(cast, month, tmp_path) -> None:
    services.roll_up()
    for by in (1, -1):
        with as_system(SystemUse.ROLL_UP_USAGE), connection.cursor() as cursor:
            cursor.execute(
                "UPDATE usage_usagehourly SET units = units + %s WHERE tenant_id = %s AND period = %s", [by, cast.other.id, month]
            )
        if by == 1:
            refused(month, tmp_path, f"differs from its roll-up.*{cast.other.id}.*units 2 in the ledger, 3 rolled up")
    call_command("archive_usage", f"{month:%Y-%m}", to=tmp_path)


def test_a_file_that_lost_a_line_is_refused(month, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(archiving, "COPY", archiving.COPY.replace("period = %s", "period = %s AND kind <> 'slice'"))
    refused(month, tmp_path, "differs from the roll-up")


def test_a_line_that_comes_while_the_file_is_written_is_not_lost(cast, month, tmp_path, monkeypatch) -> None:
    source = id_at(datetime.combine(month, datetime.min.time(), tzinfo=UTC))
    describe = archiving._describe
    monkeypatch.setattr(archiving, "_describe", lambda *file: (describe(*file), services.settle_calls([(cast.tenant.id, line(source))])))
    refused(month, tmp_path, "holds 5 lines and its archive 4")
    with as_tenant(cast.tenant.id):
        assert UsageRecord.objects.filter(source=source).exists()


def test_the_database_drops_no_month_that_is_not_archived_or_not_over(month) -> None:
    for period, reason in ((month, "4 lines and its archive 0"), (partitions.months_ahead()[0], "is not over")):
        with pytest.raises(DatabaseError, match=reason), as_system(SystemUse.ARCHIVE_USAGE), connection.cursor() as cursor:
            cursor.execute("SELECT maas_drop_usage_month(%s)", [period])


def test_part_of_an_hour_of_an_archived_month_is_refused_and_whole_hours_are_told(cast, month, tmp_path) -> None:
    call_command("archive_usage", f"{month:%Y-%m}", to=tmp_path)
    api, after = client_for(cast.key), month + timedelta(days=32)
    for start, end, status in ((f"{month}T00:30", after, 400), (month, f"{after.replace(day=1)}T02:30", 400), (month, after, 200)):
        assert api.get(f"/v1/usage?start={start}&end={end}").status_code == status


def test_a_line_of_an_archived_month_is_kept_and_still_adds_up(cast, month, tmp_path) -> None:
    call_command("archive_usage", f"{month:%Y-%m}", to=tmp_path)
    services.settle_calls([(cast.tenant.id, line(id_at(datetime.combine(month, datetime.min.time(), tzinfo=UTC))))])
    assert partitions.make_partitions() == 0
    assert list(differences()) == []
