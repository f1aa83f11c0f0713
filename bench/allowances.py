"""What it costs to be exact: python -m bench.allowances

Medians of --rounds N rounds in one run. A micro-batch of 32 calls is settled (ledger, reservations and allowances in one
transaction) beside the limit, an INSERT of the same 32 lines and nothing else; a call is granted from a block beside one that
reserves and releases for itself alone.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from uuid import UUID

import orjson
from django.db import connection
from django.utils import timezone

import tests.conftest  # noqa: F401  # starts the servers that the imports below need
from apps.usage import allowances, blocks, reservations, services
from apps.usage.allowances import Cap
from apps.usage.periods import month_of, period_of
from apps.usage.reservations import Work
from maas import ids
from maas.tenancy import SystemUse, as_system, as_tenant
from tests.cast import make_cast

CALLS = 32


def lines(reservation: UUID | None) -> list[services.UsageLine]:
    return [services.UsageLine(ids.uuid7().hex, "prediction", "m", 1, "token", 300, 1, reservation=reservation) for _ in range(CALLS)]


INSERT = """INSERT INTO usage_usagerecord
        (source, period, tenant_id, created_at, kind, model, version, unit, quantity, units, requests, key_id, job_id)
    SELECT source, period, tenant_id, now(), kind, model, version, unit, quantity, units, requests, key_id, job_id
    FROM jsonb_to_recordset(%s) AS x (source text, period date, tenant_id uuid, kind text, model text, version integer, unit text,
        quantity bigint, units bigint, requests integer, key_id uuid, job_id uuid)
    ON CONFLICT (period, source) DO NOTHING RETURNING source"""


def insert(tenant_id: UUID) -> None:
    """The limit: the ledger's lines alone."""
    rows = [{**line._asdict(), "tenant_id": tenant_id, "period": period_of(line.source)} for line in lines(None)]
    with as_system(SystemUse.SETTLE_CALLS), connection.cursor() as cursor:
        cursor.execute(INSERT, [orjson.dumps(rows).decode()])
        cursor.fetchall()


def median_ms(rounds: int, work: Callable[[], object]) -> float:
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        times.append((time.perf_counter() - begun) * 1000)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.allowances", description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    rounds = parser.parse_args().rounds
    tenant = make_cast().tenant
    work = Work(tenant.id, month_of(timezone.now()), None, "m")
    with as_tenant(tenant.id):
        allowances.begin_month(tenant.id, work.period)
        allowances.set_caps(tenant.id, work.period, [Cap("tenant", "", 10**12)])
    held, _units = reservations.reserve(work, 10**9, seconds=3600)

    def single() -> None:
        reservations.release(tenant.id, reservations.reserve(work, 1, seconds=60)[0])

    def granted() -> None:
        done = blocks.grant(work, 1, seconds=30)
        blocks.finish(done, used=1)

    settle = median_ms(rounds, lambda: services.settle_calls([(tenant.id, line) for line in lines(held)]))
    limit = median_ms(rounds, lambda: insert(tenant.id))
    alone, block = median_ms(rounds, single), median_ms(rounds * 10, granted)
    print(f"settle {CALLS} calls: {settle:.2f} ms ({settle / CALLS:.3f} ms a call)")
    print(f"the ledger alone: {limit:.2f} ms; settling takes {settle / limit:.2f} times as long")
    print(f"reserve: from a block {block * 1000:.1f} us, alone {alone:.2f} ms")


if __name__ == "__main__":
    main()
