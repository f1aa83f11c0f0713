"""Reserve, then settle: a limit is never overrun, nothing stays reserved, and the books are the ledger."""

import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pytest
import time_machine
from django.utils import timezone

from apps.usage import allowances, blocks, reservations, services
from apps.usage.allowances import Cap
from apps.usage.models import Reservation, UsageRecord
from apps.usage.periods import month_after, month_of
from apps.usage.reservations import NotBegun, Over, Refused, Work
from maas import ids
from maas.tenancy import as_tenant
from tests.books import audit_books
from tests.conftest import ROOT
from tests.test_usage import closing, line


def begin(tenant, cap: int | None, *more: Cap, period: date | None = None) -> date:
    period = period or month_of(timezone.now())
    with as_tenant(tenant.id):
        allowances.begin_month(tenant.id, period)
        allowances.set_caps(tenant.id, period, [Cap("tenant", "", cap), *more])
    return period


def work(tenant, period=None, key_id=None, model="m") -> Work:
    return Work(tenant.id, period or month_of(timezone.now()), key_id, model)


def reserve(tenant, units: int, **fields):
    return reservations.reserve(work(tenant, **fields), units, seconds=60)[0]


def settle(tenant, reservation, units: int, **fields) -> bool:
    charge = line(units=units, reservation=reservation, **fields)
    return charge.source in services.settle_calls([(tenant.id, charge)])


def test_a_month_that_has_not_begun_has_no_room(cast) -> None:
    with pytest.raises(NotBegun):
        reserve(cast.tenant, 1)


def test_what_is_reserved_is_charged_and_the_rest_given_back(cast) -> None:
    begin(cast.tenant, 100)
    held = reserve(cast.tenant, 60)
    assert audit_books(cast.tenant) == {"used": 0, "reserved": 60}
    assert settle(cast.tenant, held, 25)
    assert audit_books(cast.tenant) == {"used": 25, "reserved": 35}
    reservations.release(cast.tenant.id, held)
    reservations.release(cast.tenant.id, held)
    assert audit_books(cast.tenant) == {"used": 25, "reserved": 0}


def test_a_refusal_names_the_limit_and_reserves_nothing(cast) -> None:
    key = cast.key.row.id
    begin(cast.tenant, 100, Cap("key", key.hex, 10, "budget_exceeded"), Cap("model", "m", 50, "budget_exceeded"))
    with pytest.raises(Refused) as refused:
        reserve(cast.tenant, 11, key_id=key)
    assert (refused.value.refusal.scope, refused.value.refusal.reason, refused.value.refusal.room) == ("key", "budget_exceeded", 10)
    reserve(cast.tenant, 45)
    with pytest.raises(Refused) as refused:
        reserve(cast.tenant, 6, key_id=key)
    assert refused.value.refusal.scope == "model"
    assert audit_books(cast.tenant) == {"used": 0, "reserved": 45}


def test_a_closed_reservation_pays_for_nothing(cast) -> None:
    begin(cast.tenant, 100)
    held = reserve(cast.tenant, 10)
    reservations.release(cast.tenant.id, held)
    assert not settle(cast.tenant, held, 5)
    assert audit_books(cast.tenant) == {"used": 0, "reserved": 0}


def test_another_tenants_reservation_pays_for_nothing(cast) -> None:
    begin(cast.other, 100)
    held = reserve(cast.other, 10)
    assert not settle(cast.tenant, held, 5)
    assert audit_books(cast.other) == {"used": 0, "reserved": 10}


def test_a_source_that_comes_twice_is_charged_once(cast) -> None:
    begin(cast.tenant, 100)
    held, source = reserve(cast.tenant, 10), ids.uuid7().hex
    charge = line(source, units=4, reservation=held)
    assert services.settle_calls([(cast.tenant.id, charge)])
    assert not services.settle_calls([(cast.tenant.id, charge)])
    assert audit_books(cast.tenant) == {"used": 4, "reserved": 6}


def test_a_void_call_frees_what_it_reserved_and_a_reversal_what_was_charged(cast) -> None:
    begin(cast.tenant, 100)
    held, charge = reserve(cast.tenant, 10), ids.uuid7().hex
    settle(cast.tenant, held, 4, source=charge)
    services.reverse_call(cast.tenant, charge)
    assert audit_books(cast.tenant) == {"used": 0, "reserved": 6}
    void = line(kind="void", units=0, quantity=0, requests=0)
    assert services.void_call(cast.tenant, void)
    assert not settle(cast.tenant, held, 6, source=void.source)
    assert audit_books(cast.tenant) == {"used": 0, "reserved": 6}


def test_the_sweep_releases_what_is_past_its_lease_and_nothing_else(cast) -> None:
    begin(cast.tenant, 100)
    lost, alive = reserve(cast.tenant, 10), reserve(cast.tenant, 20)
    with as_tenant(cast.tenant.id):
        Reservation.objects.filter(pk=lost).update(lease_until=timezone.now() - timedelta(seconds=1))
    reservations.sweep_reservations()
    assert audit_books(cast.tenant) == {"used": 0, "reserved": 20}
    assert not settle(cast.tenant, lost, 1)
    assert settle(cast.tenant, alive, 1)


def test_a_limit_that_is_set_in_mid_month_knows_what_was_used_and_what_is_reserved(cast) -> None:
    key, period = cast.key.row.id, begin(cast.tenant, None)
    held = reserve(cast.tenant, 30, key_id=key)
    settle(cast.tenant, held, 12, key_id=key)
    services.roll_up()
    settle(cast.tenant, held, 3, key_id=key)
    with as_tenant(cast.tenant.id):
        allowances.lock_month(cast.tenant.id, period)
        allowances.set_caps(cast.tenant.id, period, [Cap("tenant", "", None), Cap("key", key.hex, 40)])
    row = allowances_of(cast.tenant, period)["key", key.hex]
    assert (row.used, row.reserved) == (15, 15)
    audit_books(cast.tenant)


def allowances_of(tenant, period):
    with as_tenant(tenant.id):
        return {(row.scope, row.subject): row for row in allowances.standings(tenant.id, period)}


def test_limits_set_while_work_is_charged_never_miss_a_unit(cast) -> None:
    """Twelve threads reserve and charge with a key while another one gives it a limit: one that is right at once."""
    key, period = cast.key.row.id, begin(cast.tenant, None)

    def use(number: int) -> None:
        for _ in range(10):
            held = reserve(cast.tenant, 5, key_id=key)
            settle(cast.tenant, held, number % 6, key_id=key)
            reservations.release(cast.tenant.id, held)

    def limit() -> None:
        for cap in range(1, 30):
            with as_tenant(cast.tenant.id):
                allowances.lock_month(cast.tenant.id, period)
                caps = [Cap("key", key.hex, 10_000 + cap), *([Cap("model", "m", 10_000)] if cap > 10 else [])]
                allowances.set_caps(cast.tenant.id, period, [Cap("tenant", "", None), *caps])
            audit_books(cast.tenant)

    with ThreadPoolExecutor(13) as pool:
        running = [pool.submit(closing(lambda n=n: use(n))) for n in range(12)] + [pool.submit(closing(limit))]
        [each.result() for each in running]
    assert audit_books(cast.tenant) == {"used": sum(n % 6 for n in range(12)) * 10, "reserved": 0}


@pytest.mark.parametrize("seed", range(3))
def test_many_at_once_get_what_there_is_and_not_a_unit_more(cast, seed) -> None:
    begin(cast.tenant, 500)
    chance = random.Random(seed)
    wanted = [chance.randint(1, 9) for _ in range(200)]

    def take(units: int) -> int:
        try:
            held = reserve(cast.tenant, units)
        except Refused:
            return 0
        assert settle(cast.tenant, held, units)
        return units

    with ThreadPoolExecutor(16) as pool:
        got = sum(pool.map(closing_with(take), wanted))
    books = audit_books(cast.tenant)
    assert books == {"used": got, "reserved": 0}
    assert 500 - 8 <= got <= 500


def closing_with(work):
    def run(argument):
        return closing(lambda: work(argument))()

    return run


# ---------- months ----------
def test_a_charge_lies_in_the_month_of_its_reservation(cast) -> None:
    """A call of the last second of a month that is answered in the next one."""
    with time_machine.travel(datetime(2027, 1, 31, 23, 59, 59, tzinfo=UTC), tick=False) as clock:
        january = begin(cast.tenant, 100)
        held, source = reserve(cast.tenant, 10), ids.uuid7().hex
        clock.move_to(datetime(2027, 2, 1, 0, 0, 1, tzinfo=UTC))
        assert settle(cast.tenant, held, 10, source=source)
    with as_tenant(cast.tenant.id):
        assert UsageRecord.objects.get(source=source).created_at == datetime(2027, 1, 31, 23, 59, 59, 999999, tzinfo=UTC)
    assert allowances_of(cast.tenant, january)["tenant", ""].used == 10
    audit_books(cast.tenant)


def test_nothing_is_reserved_in_a_month_that_is_over(cast) -> None:
    this = begin(cast.tenant, 100)
    begin(cast.tenant, 100, period=month_after(this))
    with pytest.raises(Over):
        reserve(cast.tenant, 1, period=this)


def test_a_charge_that_is_taken_back_next_month_counts_in_that_one(cast) -> None:
    with time_machine.travel(datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC), tick=False) as clock:
        february = begin(cast.tenant, 100)
        held, source = reserve(cast.tenant, 10), ids.uuid7().hex
        settle(cast.tenant, held, 10, source=source)
        clock.move_to(datetime(2028, 3, 1, 0, 0, 0, tzinfo=UTC))
        services.reverse_call(cast.tenant, source)
        march = begin(cast.tenant, 100)
    assert march == date(2028, 3, 1)
    assert [allowances_of(cast.tenant, month)["tenant", ""].used for month in (february, march)] == [10, -10]
    audit_books(cast.tenant)


def test_a_month_begins_once_under_many_calls(cast) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(closing_with(lambda cap: begin(cast.tenant, cap)), [50] * 8))
    assert len(allowances_of(cast.tenant, month_of(timezone.now()))) == 1


# ---------- blocks ----------
def open_reservations(tenant) -> list[tuple[int, int]]:
    with as_tenant(tenant.id):
        return list(Reservation.objects.filter(closed_at=None).order_by("id").values_list("units", "settled"))


def test_where_there_is_plenty_one_statement_pays_for_many_calls(cast) -> None:
    begin(cast.tenant, None)
    grants = [blocks.grant(work(cast.tenant), 3, seconds=30) for _ in range(10)]
    assert len({each.reservation_id for each in grants}) == 1
    assert open_reservations(cast.tenant) == [(blocks.BLOCK, 0)]


def test_near_a_limit_a_block_is_one_call(cast) -> None:
    begin(cast.tenant, reservations.PLENTY - 1)
    grants = [blocks.grant(work(cast.tenant), 3, seconds=30) for _ in range(2)]
    assert open_reservations(cast.tenant) == [(3, 0), (3, 0)]
    for each in grants:
        settle(cast.tenant, each.reservation_id, 2)
        blocks.finish(each, used=2)
    assert audit_books(cast.tenant) == {"used": 4, "reserved": 0}


def test_a_block_is_a_small_part_of_what_is_left(cast) -> None:
    begin(cast.tenant, 64_000)
    blocks.grant(work(cast.tenant), 3, seconds=30)
    assert open_reservations(cast.tenant) == [(1_000, 0)]


def test_what_calls_did_not_use_goes_back_into_the_block(cast) -> None:
    begin(cast.tenant, 64_000)
    for _ in range(50):
        done = blocks.grant(work(cast.tenant), 900, seconds=30)
        settle(cast.tenant, done.reservation_id, 1)
        blocks.finish(done, used=1)
    assert open_reservations(cast.tenant) == [(1_000, 50)]
    assert audit_books(cast.tenant) == {"used": 50, "reserved": 950}


def test_a_block_that_is_used_up_is_closed_by_the_last_of_its_calls(cast) -> None:
    begin(cast.tenant, 64_000)
    first = blocks.grant(work(cast.tenant), 900, seconds=30)
    second = blocks.grant(work(cast.tenant), 900, seconds=30)
    assert first.reservation_id != second.reservation_id
    blocks.finish(first, used=None)
    assert open_reservations(cast.tenant) == [(984, 0)]


def test_a_block_grants_no_call_that_outlives_its_lease(cast) -> None:
    begin(cast.tenant, None)
    short, long = (blocks.grant(work(cast.tenant), 3, seconds=seconds) for seconds in (30, 120))
    assert short.reservation_id != long.reservation_id
    with as_tenant(cast.tenant.id):
        lease = Reservation.objects.get(pk=long.reservation_id).lease_until
    assert lease > timezone.now() + timedelta(seconds=120)


def test_a_process_that_ends_in_good_order_leaves_no_block(cast) -> None:
    begin(cast.tenant, None)
    script = (
        "import django; django.setup()\n"
        "from datetime import date\nfrom uuid import UUID\nfrom apps.usage import blocks, reservations\n"
        f"work = reservations.Work(UUID('{cast.tenant.id}'), date.fromisoformat('{month_of(timezone.now())}'), None, 'm')\n"
        "blocks.finish(blocks.grant(work, 3, seconds=30), used=0)\n"
        "blocks.grant(work, 5, seconds=30)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
    assert open_reservations(cast.tenant) == [(blocks.BLOCK, 0)]  # a call still runs: its lease says for how long
    subprocess.run([sys.executable, "-c", script.rpartition("blocks.grant")[0]], check=True, cwd=ROOT)
    assert open_reservations(cast.tenant) == [(blocks.BLOCK, 0)]


def test_threads_share_the_blocks_of_their_process(cast) -> None:
    begin(cast.tenant, 640_000)

    def call(units: int) -> None:
        done = blocks.grant(work(cast.tenant), 9, seconds=30)
        settle(cast.tenant, done.reservation_id, units)
        blocks.finish(done, used=units)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(closing_with(call), [n % 10 for n in range(400)]))
    assert len(open_reservations(cast.tenant)) == 1
    assert audit_books(cast.tenant)["used"] == 1_800
