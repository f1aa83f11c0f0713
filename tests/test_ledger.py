"""The ledger by months: where a line goes, who may see it, roll-ups that equal it."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from django.db import IntegrityError, connection
from django.db.utils import DatabaseError, ProgrammingError

from apps.usage import partitions, periods, services
from apps.usage.models import UsageRecord
from maas import ids
from maas.management.commands.prepare_database import _address
from maas.tenancy import SystemUse, as_system, as_tenant
from tests.ledger_load import midnight
from tests.test_usage import closing, line, total

NIGHT = datetime(2026, 2, 28, 23, 59, 59, 900_000, tzinfo=UTC)


def id_at(moment: datetime) -> str:
    """A UUIDv7 of a moment, as 32 hex digits."""
    rest = ids.uuid7().int & (1 << 80) - 1
    return UUID(int=int(moment.timestamp() * 1000) << 80 | rest).hex


@pytest.fixture
def clock(monkeypatch):
    """Set the time that lines are recorded at: `clock(moment)`."""
    return lambda moment: monkeypatch.setattr("django.utils.timezone.now", lambda: moment)


def partition_of(tenant, source: str) -> str:
    with as_tenant(tenant.id), connection.cursor() as cursor:
        cursor.execute("SELECT tableoid::regclass::text FROM usage_usagerecord WHERE source = %s", [source])
        return cursor.fetchone()[0]


def months() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'usage_usagerecord'::regclass ORDER BY 1")
        return [name for (name,) in cursor.fetchall()]


# ---------- where a line goes ----------
@pytest.mark.parametrize("form", ["{0}", "reversal:{0}", "slice:{0}:17:{1}"], ids=["call and void", "reversal", "slice"])
def test_every_source_goes_to_the_month_in_its_identifier(form) -> None:
    assert periods.period_of(form.format(id_at(NIGHT), uuid4().hex)) == date(2026, 2, 1)


@pytest.mark.parametrize(
    ("moment", "month"),
    [
        (NIGHT, date(2026, 2, 1)), (NIGHT + timedelta(milliseconds=100), date(2026, 3, 1)),
        (datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC), date(2024, 2, 1)), (datetime(2024, 3, 1, tzinfo=UTC), date(2024, 3, 1)),
        (datetime(2026, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC), date(2026, 12, 1)), (datetime(2027, 1, 1, tzinfo=UTC), date(2027, 1, 1)),
    ],
)  # fmt: skip
def test_months_end_at_midnight_utc(moment, month) -> None:
    assert periods.period_of(id_at(moment)) == month


UNKNOWN_FORMS = {
    "nothing": "", "word": "call", "slice": "slice:1:2:3",
    "capitals": uuid4().hex.upper(), "refund": f"refund:{ids.uuid7().hex}", "line end": f"{ids.uuid7().hex}\n",
}  # fmt: skip


@pytest.mark.parametrize("source", UNKNOWN_FORMS.values(), ids=UNKNOWN_FORMS)
def test_a_source_of_an_unknown_form_is_told(source) -> None:
    with pytest.raises(ValueError, match="names no work"):
        periods.period_of(source)


def test_an_identifier_without_a_time_is_told() -> None:
    with pytest.raises(ValueError, match="no UUID of version 7"):
        periods.period_of(uuid4().hex)
    with pytest.raises(ValueError, match="year 9999"):
        periods.period_of("f" * 12 + "7" + "0" * 3 + "8" + "0" * 15)


@pytest.mark.parametrize(("month", "count", "then"), [((2026, 12), 1, (2027, 1)), ((2026, 1), -1, (2025, 12)), ((2024, 2), 12, (2025, 2))])
def test_months_are_counted_across_years(month, count, then) -> None:
    assert periods.month_after(date(*month, 1), count) == date(*then, 1)


def test_the_migration_reads_a_source_as_the_product_does() -> None:
    from importlib import import_module

    expression = import_module("apps.usage.migrations.0002_months_and_roll_ups").PERIOD
    call, late = id_at(NIGHT), "2020-05-17T00:00:00Z"
    sources = [call, f"reversal:{call}", f"slice:{call}:3:{uuid4().hex}", ids.uuid7().hex]
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT ({expression} AT TIME ZONE 'UTC')::date FROM unnest(%s::text[]) AS source, (SELECT %s::timestamptz) AS t (created_at)",
            [[*sources, uuid4().hex.replace("7", "4"), "odd"], late],
        )
        found = [row for (row,) in cursor.fetchall()]
    assert found == [*map(periods.period_of, sources), date(2020, 5, 1), date(2020, 5, 1)]


def test_a_retry_after_the_months_end_counts_once(cast, clock) -> None:
    """A slice of a job of the 28th runs, its worker dies before it says so, and it runs again on the first of the next month."""
    charge = line(f"slice:{id_at(NIGHT)}:0:{uuid4().hex}", kind="slice")
    for moment in (NIGHT, NIGHT + timedelta(hours=1)):
        clock(moment)
        with as_tenant(cast.tenant.id):
            services.record(cast.tenant.id, [charge])
    rows = services.report(cast.tenant, start=NIGHT - timedelta(days=2), end=NIGHT + timedelta(days=2), group_by=["day"])
    assert [(row["day"], row["requests"]) for row in rows] == [("2026-02-28", 1)]


def test_a_reversal_finds_its_charge_and_counts_once_after_the_months_end(cast, clock) -> None:
    charge = line(id_at(NIGHT))
    clock(NIGHT)
    services.settle_calls([(cast.tenant.id, charge)])
    clock(NIGHT + timedelta(seconds=5))
    services.reverse_call(cast.tenant, charge.source)
    services.reverse_call(cast.tenant, charge.source)
    with as_tenant(cast.tenant.id):
        assert set(UsageRecord.objects.values_list("kind", "period")) == {("prediction", date(2026, 2, 1)), ("reversal", date(2026, 2, 1))}
    rows = services.report(cast.tenant, start=midnight(date(2026, 2, 28)), end=midnight(date(2026, 3, 2)), group_by=["day"])
    assert [(row["day"], row["units"]) for row in rows] == [("2026-02-28", 2), ("2026-03-01", -2)]


def test_the_database_refuses_a_source_twice_in_a_month_and_a_period_inside_one(cast) -> None:
    def insert(period: date, source: str) -> None:
        facts = {"kind": "void", "model": "m", "version": 1, "unit": "token", "quantity": 0, "units": 0, "requests": 0}
        with as_tenant(cast.tenant.id):
            UsageRecord.objects.create(tenant=cast.tenant, period=period, source=source, **facts)

    insert(date(2026, 2, 1), source := id_at(NIGHT))
    for period in (date(2026, 2, 1), date(2026, 2, 2)):
        with pytest.raises(IntegrityError):
            insert(period, source)


# ---------- months are there ----------
def test_this_month_and_the_next_two_are_made_ahead(cast) -> None:
    wanted = [f"usage_usagerecord_{period:%Y_%m}" for period in partitions.months_ahead()]
    assert len(wanted) == 3
    assert set(wanted) <= set(months())
    services.settle_calls([(cast.tenant.id, charge := line())])
    assert partition_of(cast.tenant, charge.source) == wanted[0]


def test_the_months_ahead_cross_the_year(clock) -> None:
    clock(datetime(2026, 12, 31, 23, 59, tzinfo=UTC))
    assert partitions.months_ahead() == [date(2026, 12, 1), date(2027, 1, 1), date(2027, 2, 1)]


def test_a_line_without_a_month_is_kept_moved_and_told_of(cast, monkeypatch) -> None:
    charge, told = line(id_at(datetime(2031, 5, 31, 23, tzinfo=UTC))), []
    monkeypatch.setattr(partitions.log, "warning", lambda *text, **facts: told.append(facts))
    services.settle_calls([(cast.tenant.id, charge)])
    assert partition_of(cast.tenant, charge.source) == "usage_usagerecord_default"
    assert partitions.make_partitions() >= 1
    assert partition_of(cast.tenant, charge.source) == "usage_usagerecord_2031_05"
    assert {"period": "2031-05", "moved": 1} in told
    assert services.settle_calls([(cast.tenant.id, charge)]) == set()
    assert total(cast.tenant)["requests"] == 1
    assert partitions.make_partitions() == 0


def test_months_can_be_made_by_several_at_once() -> None:
    with ThreadPoolExecutor(4) as pool:
        made = [pool.submit(closing(partitions.make_partitions)) for _ in range(4)]
    assert all(one.result() >= 0 for one in made)


# ---------- who may see it ----------
def test_every_month_forces_row_level_security_and_is_closed_to_the_application() -> None:
    partitions.make_partitions()
    for name in months():
        with connection.cursor() as cursor:
            cursor.execute("SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = %s::regclass", [name])
            assert cursor.fetchone() == (True, True), name
            cursor.execute("SELECT polname FROM pg_policy WHERE polrelid = %s::regclass", [name])
            assert {"tenant", "system"} <= {policy for (policy,) in cursor.fetchall()}
            for role, right in ((r, p) for r in ("maas_app", "maas_system") for p in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE")):
                cursor.execute("SELECT has_table_privilege(%s, %s, %s)", [role, name, right])
                reads_strays = (role, right, name) == ("maas_system", "SELECT", "usage_usagerecord_default")
                assert cursor.fetchone()[0] is reads_strays, (role, right, name)


def test_a_month_shows_nothing_of_another_tenant_even_to_whoever_may_read_it(cast) -> None:
    services.settle_calls([(cast.tenant.id, charge := line()), (cast.other.id, line())])
    name = partition_of(cast.tenant, charge.source)
    with pytest.raises(ProgrammingError, match="permission denied"), as_tenant(cast.tenant.id), connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {name}")
    with psycopg.connect(**_address()) as database:
        database.execute("SET ROLE maas_owner")
        database.execute(f"GRANT SELECT ON {name} TO maas_app")
        database.execute("SET LOCAL ROLE maas_app")
        assert database.execute(f"SELECT * FROM {name}").fetchall() == []
        database.execute("SELECT set_config('maas.tenant', %s, true)", [str(cast.tenant.id)])
        assert database.execute(f"SELECT DISTINCT tenant_id FROM {name}").fetchall() == [(cast.tenant.id,)]
        database.rollback()


@pytest.mark.parametrize("role", ["app", "system"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE usage_usagerecord SET units = 0", "DELETE FROM usage_usagerecord", "TRUNCATE usage_usagerecord",
        "DELETE FROM {month}", "DROP TABLE {month}", "ALTER TABLE usage_usagerecord DETACH PARTITION {month}",
        "INSERT INTO usage_usagefresh SELECT * FROM usage_usagefresh", "UPDATE usage_usagefresh SET units = 0",
        "DELETE FROM usage_usagehourly", "DELETE FROM usage_usagedaily", "UPDATE usage_archivedmonth SET units = 0",
    ],
)  # fmt: skip
def test_what_is_written_stays(cast, role, statement) -> None:
    services.settle_calls([(cast.tenant.id, charge := line())])
    month = partition_of(cast.tenant, charge.source)
    begin = as_tenant(cast.tenant.id) if role == "app" else as_system(SystemUse.ROLL_UP_USAGE)
    with pytest.raises(ProgrammingError, match=r"permission denied|must be owner"), begin, connection.cursor() as cursor:
        cursor.execute(statement.format(month=month))


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT maas_make_usage_month('2040-01-01')", "SELECT maas_drop_usage_month('2020-01-01')",
        "UPDATE usage_usagehourly SET units = 0", "UPDATE usage_usagedaily SET units = 0", "DELETE FROM usage_usagefresh",
        "SELECT * FROM usage_archivedmonth",
    ],
)  # fmt: skip
def test_the_application_neither_makes_months_nor_figures(cast, statement) -> None:
    with pytest.raises(ProgrammingError, match="permission denied"), as_tenant(cast.tenant.id), connection.cursor() as cursor:
        cursor.execute(statement)


def test_the_owners_function_makes_months_only() -> None:
    with pytest.raises(DatabaseError, match="not the first day"), as_system(SystemUse.PARTITION_USAGE):
        partitions.make_partition(date(2040, 1, 2))
