# ruff: noqa: F811  # a fixture of another file has the name of the argument that asks for it
"""Roll-ups equal the ledger: while others write, after a crash, for late lines, over every span."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from apps.usage import periods, services
from apps.usage.reconciling import differences
from maas import ids
from maas.tenancy import SystemUse, as_system
from tests.cast import client_for
from tests.ledger_load import analyze, fill, ledger_sums, midnight, percentiles, questions
from tests.test_ledger import NIGHT, clock, id_at  # noqa: F401  # a fixture
from tests.test_usage import closing, line, total


def test_a_report_equals_the_ledger_before_between_and_after_roll_ups(cast) -> None:
    start = midnight(periods.month_of(datetime.now(UTC)))
    for step in range(4):
        services.settle_calls([(cast.tenant.id, line(units=n)) for n in range(5)])
        if step % 2:
            services.roll_up()
        rows = services.report(cast.tenant, start=start, end=datetime.now(UTC) + timedelta(hours=1), group_by=[])
        assert [(row["requests"], row["quantity"], row["units"]) for row in rows] == [ledger_sums(cast.tenant.id, start)]


def test_roll_ups_equal_the_ledger_while_others_write(cast) -> None:
    def write() -> None:
        for _ in range(40):
            services.settle_calls([(tenant.id, line()) for tenant in (cast.tenant, cast.other) for _ in range(4)])

    with ThreadPoolExecutor(5) as pool:
        writers = [pool.submit(closing(write)) for _ in range(3)]
        rolling = [pool.submit(closing(lambda: [services.roll_up() for _ in range(25)])) for _ in range(2)]
        seen = [total(cast.tenant)["requests"] for _ in range(20)]
        assert all(one.exception() is None for one in (*writers, *rolling))
    assert seen == sorted(seen)
    assert total(cast.tenant)["requests"] == 480
    services.roll_up()
    assert total(cast.tenant)["requests"] == 480
    assert list(differences()) == []


def test_a_roll_up_that_dies_leaves_everything_to_the_next(cast) -> None:
    services.settle_calls([(cast.tenant.id, line())])
    with pytest.raises(RuntimeError), as_system(SystemUse.ROLL_UP_USAGE):
        services.roll_up()
        raise RuntimeError
    assert total(cast.tenant)["requests"] == 1
    services.roll_up()
    assert total(cast.tenant)["requests"] == 1
    assert services.roll_up() == 0


def test_late_lines_and_reversals_reach_days_long_past(cast, clock) -> None:
    charge = line(id_at(NIGHT), job_id=ids.uuid7())
    clock(NIGHT)
    services.settle_calls([(cast.tenant.id, charge)])
    services.roll_up()
    clock(NIGHT - timedelta(days=3))  # a machine whose clock is behind
    services.settle_calls([(cast.tenant.id, line(id_at(NIGHT)))])
    clock(NIGHT)
    services.reverse_call(cast.tenant, charge.source)
    services.roll_up()
    rows = services.report(cast.tenant, start=NIGHT - timedelta(days=9), end=NIGHT + timedelta(days=1), group_by=["day", "job"])
    assert [(row["day"], row["units"]) for row in rows] == [("2026-02-25", 2), ("2026-02-28", 0)]
    assert list(differences()) == []


def test_a_leap_day_is_a_day(cast, clock) -> None:
    for day in (28, 29):
        moment = datetime(2024, 2, day, 23, 59, 59, tzinfo=UTC)
        clock(moment)
        services.settle_calls([(cast.tenant.id, line(id_at(moment), units=day))])
    services.roll_up()
    clock(datetime(2024, 3, 1, tzinfo=UTC))
    rows = client_for(cast.key).get("/v1/usage?start=2024-02-01&end=2024-03-01&group_by=day").json()["data"]
    assert [(row["day"], row["units"]) for row in rows] == [("2024-02-28", 28), ("2024-02-29", 29)]
    assert [row["units"] for row in services.daily_series(cast.tenant, days=2)] == [29]


@pytest.mark.parametrize("is_rolled_up", [False, True])
def test_a_span_takes_whole_days_hours_and_parts_of_hours_without_gap_or_overlap(cast, clock, is_rolled_up) -> None:
    begun = datetime(2025, 5, 1, 0, 30, tzinfo=UTC)
    moments = [begun + timedelta(minutes=47 * n) for n in range(100)]
    for moment in moments:
        clock(moment)
        services.settle_calls([(cast.tenant.id, line(id_at(moment), units=1))])
    if is_rolled_up:
        services.roll_up()
    clock(begun + timedelta(days=30))
    for start, end in ((0, 99), (3, 97), (10, 11), (20, 70)):
        for groups in ([], ["hour"], ["day", "model"]):
            rows = services.report(cast.tenant, start=moments[start], end=moments[end], group_by=groups)
            assert sum(row["units"] for row in rows) == end - start, (start, end, groups)


@pytest.mark.parametrize("table", ["usage_usagehourly", "usage_usagedaily"])
def test_reconcile_names_a_roll_up_that_is_wrong(cast, table) -> None:
    services.settle_calls([(cast.tenant.id, line())])
    services.roll_up()
    change = f"UPDATE {table} SET units = units + %s WHERE tenant_id = %s"
    for by, count in ((1, 1), (-1, 0)):
        with as_system(SystemUse.ROLL_UP_USAGE), connection.cursor() as cursor:
            cursor.execute(change, [by, cast.tenant.id])
        found = [str(one) for one in differences() if str(cast.tenant.id) in str(one)]
        assert len(found) == (count if table == "usage_usagedaily" else 2 * count)
    services.settle_calls([(cast.tenant.id, line())])
    assert list(differences()) == []


def test_a_large_ledger_is_answered_in_time_and_adds_up() -> None:
    """The short form of `python -m bench.ledger --rows 10000000`."""
    load = fill(100_000, tenants=20)
    analyze()
    start = midnight(periods.month_after(periods.month_of(datetime.now(UTC)), -2))
    for tenant in (load.tenants[0], load.tenants[-1]):
        assert max(percentiles(question, 5).p50 for _, question in questions(tenant)) < 200
        (row,) = services.report(tenant, start=start, end=datetime.now(UTC), group_by=[])
        assert (row["requests"], row["quantity"], row["units"]) == ledger_sums(tenant.id, start)
    assert list(differences()) == []
