"""Batches of several kinds in one statement: each line is charged as it would be alone."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.db import IntegrityError, connection

from apps.usage import allowances, reservations, services
from apps.usage.allowances import Cap
from apps.usage.models import UsageRecord
from apps.usage.periods import month_of
from maas import ids
from maas.tenancy import as_tenant
from tests.books import audit_books
from tests.test_allowances import allowances_of, begin, reserve
from tests.test_usage import closing, line


def settle(*rows: tuple) -> list[bool]:
    """Settle `(tenant, line)` at once; whether each was charged."""
    charged = services.settle_calls([(tenant.id, one) for tenant, one in rows])
    return [one.source in charged for _tenant, one in rows]


def test_lines_of_several_tenants_keys_and_models_are_charged_where_they_belong(cast) -> None:
    mine, theirs = cast.key.row.id, ids.uuid7()
    period = begin(cast.tenant, 100, Cap("key", mine.hex, 50), Cap("model", "n", 50))
    begin(cast.other, 100, Cap("key", theirs.hex, 50))
    held, other = reserve(cast.tenant, 20, key_id=mine), reserve(cast.other, 20, key_id=theirs)
    loose = reserve(cast.tenant, 10, model="n")
    assert all(settle(
        (cast.tenant, line(units=3, key_id=mine, reservation=held)), (cast.other, line(units=4, key_id=theirs, reservation=other)),
        (cast.tenant, line(units=5, key_id=mine, reservation=held)), (cast.tenant, line(units=6, model="n", reservation=loose)),
        (cast.tenant, line(units=7, key_id=mine, model="n")), (cast.other, line(kind="void", units=0, quantity=0, requests=0)),
    ))  # fmt: skip
    assert audit_books(cast.tenant) == {"used": 21, "reserved": 16}
    assert audit_books(cast.other) == {"used": 4, "reserved": 16}
    assert {row.used for place, row in allowances_of(cast.tenant, period).items() if place[0] != "tenant"} == {15, 13}


def test_in_a_batch_of_several_a_closed_reservation_pays_nothing(cast) -> None:
    begin(cast.tenant, 100)
    closed, still_open = reserve(cast.tenant, 10), reserve(cast.tenant, 10)
    reservations.release(cast.tenant.id, closed)
    rows = [(cast.tenant, line(units=units, reservation=held)) for units, held in ((1, closed), (2, still_open), (4, still_open))]
    assert settle(*rows) == [False, True, True]
    assert audit_books(cast.tenant) == {"used": 6, "reserved": 4}


def test_in_a_batch_of_several_a_strangers_reservation_pays_nothing(cast) -> None:
    begin(cast.tenant, 100)
    begin(cast.other, 100)
    mine, theirs = reserve(cast.tenant, 10), reserve(cast.other, 10)
    assert settle((cast.tenant, line(units=2, reservation=theirs)), (cast.tenant, line(units=3, reservation=mine))) == [False, True]
    assert (audit_books(cast.tenant), audit_books(cast.other)) == ({"used": 3, "reserved": 7}, {"used": 0, "reserved": 10})


def test_in_a_batch_of_several_each_charge_stands_in_the_month_of_its_reservation(cast) -> None:
    with time_machine.travel(datetime(2027, 1, 31, 23, 59, 59, tzinfo=UTC), tick=False) as clock:
        begin(cast.tenant, 100)
        before, late = reserve(cast.tenant, 10), line(units=3)
        clock.move_to(datetime(2027, 2, 1, 0, 0, 1, tzinfo=UTC))
        february = begin(cast.tenant, 100)
        now = line(units=4, reservation=reserve(cast.tenant, 10))
        assert settle((cast.tenant, late._replace(reservation=before)), (cast.tenant, now)) == [True, True]
    with as_tenant(cast.tenant.id):
        assert UsageRecord.objects.get(source=late.source).created_at == datetime(2027, 1, 31, 23, 59, 59, 999999, tzinfo=UTC)
        assert UsageRecord.objects.get(source=now.source).created_at == datetime(2027, 2, 1, 0, 0, 1, tzinfo=UTC)
    assert allowances_of(cast.tenant, february)["tenant", ""].used == 4
    audit_books(cast.tenant)


def test_what_was_charged_before_is_not_charged_with_what_is_new(cast) -> None:
    begin(cast.tenant, 100)
    held, other = reserve(cast.tenant, 20), reserve(cast.tenant, 20)
    first, second, third = line(units=1, reservation=held), line(units=2, reservation=held), line(units=4, reservation=other)
    assert settle((cast.tenant, first)) == [True]
    assert settle((cast.tenant, first), (cast.tenant, second)) == [False, True]
    assert audit_books(cast.tenant) == {"used": 3, "reserved": 37}
    assert settle((cast.tenant, first), (cast.tenant, third), (cast.tenant, second)) == [False, True, False]
    assert audit_books(cast.tenant) == {"used": 7, "reserved": 33}


def test_a_source_that_comes_twice_in_a_batch_is_charged_once(cast) -> None:
    begin(cast.tenant, 100)
    charge = line(units=2, reservation=reserve(cast.tenant, 10))
    beside = charge._replace(reservation=reserve(cast.tenant, 10))
    assert settle((cast.tenant, charge), (cast.tenant, charge)) == [True, True]
    assert audit_books(cast.tenant) == {"used": 2, "reserved": 18}
    source = ids.uuid7().hex
    settle((cast.tenant, charge._replace(source=source)), (cast.tenant, beside._replace(source=source)))
    assert audit_books(cast.tenant) == {"used": 4, "reserved": 16}


def test_names_reach_the_ledger_as_they_are(cast) -> None:
    period = begin(cast.tenant, 100)
    for name in ('a"b', "c\\d,{e}", "tab\tline\n", "null", "ü", "it's"):
        with as_tenant(cast.tenant.id):
            allowances.set_caps(cast.tenant.id, period, [Cap("tenant", "", 100), Cap("model", name, 10)])
        charge = line(model=name, unit="i\\n", units=1, reservation=reserve(cast.tenant, 2, model=name))
        assert settle((cast.tenant, charge)) == [True]
        with as_tenant(cast.tenant.id):
            written = UsageRecord.objects.get(source=charge.source)
        assert (written.model, written.unit) == (name, "i\\n")
        assert allowances_of(cast.tenant, period)["model", name].used == 1


def test_a_limit_that_is_made_while_a_batch_of_several_is_charged_misses_no_unit(cast) -> None:
    key, period = cast.key.row.id, begin(cast.tenant, None)
    rows = [(cast.tenant, line(units=3, key_id=key, reservation=reserve(cast.tenant, 5, key_id=key))) for _ in range(2)]
    with ThreadPoolExecutor(1) as pool, as_tenant(cast.tenant.id):
        allowances.lock_month(cast.tenant.id, period)
        paying = pool.submit(closing(lambda: settle(*rows)))
        wait_for_a_waiting_lock()
        allowances.set_caps(cast.tenant.id, period, [Cap("tenant", "", None), Cap("key", key.hex, 100)])
    assert paying.result() == [True, True]
    assert allowances_of(cast.tenant, period)["key", key.hex].used == 6
    assert audit_books(cast.tenant) == {"used": 6, "reserved": 4}


def test_a_charge_without_a_reservation_waits_for_who_begins_the_month(cast) -> None:
    """It has no row to hold while the month has none: whoever makes the rows must have counted it, or it counts itself."""
    with ThreadPoolExecutor(1) as pool, as_tenant(cast.tenant.id):
        period = month_of(datetime.now(UTC))
        allowances.begin_month(cast.tenant.id, period)
        paying = pool.submit(closing(lambda: settle((cast.tenant, line(units=3)))))
        wait_for_a_waiting_lock()
        allowances.set_caps(cast.tenant.id, period, [Cap("tenant", "", 100)])
        assert not paying.done()
    assert paying.result() == [True]
    assert audit_books(cast.tenant) == {"used": 3, "reserved": 0}


def wait_for_a_waiting_lock() -> None:
    """Until somebody waits for somebody else."""
    end = datetime.now(UTC) + timedelta(seconds=10)
    while datetime.now(UTC) < end:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return
    raise AssertionError("nobody waits")


def test_a_tenant_that_does_not_exist_is_charged_nothing(cast) -> None:
    charge, nobody = line(), ids.uuid7()
    with pytest.raises(IntegrityError, match="foreign key"):
        services.settle_calls([(cast.tenant.id, charge), (nobody, line())])
    with as_tenant(cast.tenant.id):
        assert not UsageRecord.objects.filter(source=charge.source).exists()
