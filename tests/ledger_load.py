"""A ledger as real use fills it: many tenants and keys, skewed, over three months; and how long its questions take."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from types import SimpleNamespace
from uuid import UUID

from django.db import connection, transaction
from django.utils import timezone

from apps.accounts.models import Tenant
from apps.usage import partitions, services
from apps.usage.periods import month_after, month_of
from maas import ids
from maas.tenancy import SystemUse, as_system, as_tenant
from tests.cast import make_tenant, make_user

CHUNK = 200_000  # lines of one INSERT
GROUPS = ("day", "model", "key", "day,model", "day,model,key", "hour")

# A quarter of the lines is the first tenant's; the others share the rest by a power law, and so do keys and models. Work
# comes more by day than by night. Row-level security refuses COPY into a table that it protects, so the server makes the
# lines itself.
FILL = """
INSERT INTO usage_usagerecord
    (period, source, tenant_id, created_at, kind, model, version, unit, quantity, units, requests, key_id, job_id)
SELECT date_trunc('month', at, 'UTC')::date,
       lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(noise, 1, 3) || '8' || substr(noise, 4, 15),
       tenant, at, 'prediction', (ARRAY['minilm-squad', 'cifar10-resnet9', 'tatoeba-en-de'])[1 + floor(3 * a * a)::int],
       1, 'token', 1 + floor(800 * b)::int, 1 + floor(2 * b)::int, 1,
       CASE WHEN c < 0.1 THEN NULL ELSE md5(tenant::text || floor(20 * c * c * c)::text)::uuid END, NULL
FROM (SELECT (%(tenants)s)[CASE WHEN random() < 0.25 THEN 1 ELSE 1 + floor(%(count)s * power(random(), 3))::int END] AS tenant,
             day + interval '1 day' * (0.5 + asin(2 * random() - 1) / pi()) AS at,
             random() AS a, random() AS b, random() AS c, md5(random()::text || n) AS noise
      FROM (SELECT n, %(first)s + interval '1 day' * floor(%(days)s * random()) AS day FROM generate_series(1, %(lines)s) AS n) AS days
     ) AS lines
"""


@dataclass(frozen=True)
class Load:
    """Tenants, the largest first, and the lines that they have together."""

    tenants: list[Tenant]
    lines: int
    insert_seconds: float
    roll_up_seconds: float


def fill(lines: int, *, tenants: int, seed: float = 0.5) -> Load:
    """Insert so many lines over the last two whole months and this one; a roll-up after every 200,000."""
    owners = [make_tenant(make_user("load"), "load") for _ in range(tenants)]
    first = _make_months()
    days = (timezone.now().date() - first).days
    values = {"tenants": [t.id for t in owners], "count": tenants, "first": midnight(first), "days": days}
    inserted = rolled = 0.0
    for done in range(0, lines, CHUNK):
        inserted += seconds(lambda done=done: _insert(values, min(CHUNK, lines - done), (seed + done / lines) % 1))
        rolled += seconds(services.roll_up)
    return Load(owners, lines, inserted, rolled)


def seconds(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def _insert(values: dict[str, object], lines: int, seed: float) -> None:
    with as_system(SystemUse.SETTLE_CALLS), connection.cursor() as cursor:
        cursor.execute("SELECT setseed(%s)", [seed])
        cursor.execute(FILL, {**values, "lines": lines})


def _make_months() -> date:
    first = month_after(month_of(timezone.now()), -2)
    for count in range(2):
        with as_system(SystemUse.PARTITION_USAGE):
            partitions.make_partition(month_after(first, count))
    return first


def midnight(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time(), tzinfo=timezone.get_default_timezone())


def analyze() -> None:
    """What autovacuum does after a while."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL ROLE maas_owner")
        cursor.execute("ANALYZE usage_usagerecord, usage_usagehourly, usage_usagedaily, usage_usagefresh")


def questions(tenant: Tenant) -> Iterator[tuple[str, Callable[[], object]]]:
    """What the usage page, the overview and /v1/usage ask, by name."""
    now = timezone.now()
    month, quarter = midnight(month_of(now)), midnight(month_after(month_of(now), -2))
    end = now + timedelta(seconds=1)
    yield "page: month by day and model", lambda: services.report(tenant, start=month, end=end, group_by=["day", "model"])
    yield "page: month by key", lambda: services.report(tenant, start=month, end=end, group_by=["key"])
    yield "overview: month", lambda: services.totals(tenant, month, end)
    yield "overview: 60 days", lambda: services.daily_series(tenant, days=60)
    yield "overview: 24 hours", lambda: services.hourly_series(tenant)
    for groups in GROUPS:
        start = month if groups == "hour" else quarter
        name = "month" if groups == "hour" else "3 months"
        yield (
            f"api: {name} by {groups}",
            lambda groups=groups, start=start: services.report(tenant, start=start, end=end, group_by=groups.split(",")),
        )
    odd = quarter + timedelta(minutes=17)
    yield "api: 3 months from 00:17 by day", lambda: services.report(tenant, start=odd, end=now - timedelta(minutes=5), group_by=["day"])


def percentiles(ask: Callable[[], object], times: int) -> SimpleNamespace:
    """Milliseconds of asking so many times: p50 and p95."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        ask()
        taken.append((time.perf_counter() - begun) * 1000)
    taken.sort()
    return SimpleNamespace(p50=taken[len(taken) // 2], p95=taken[min(len(taken) - 1, int(len(taken) * 0.95))])


def ledger_sums(tenant_id: UUID, start: datetime) -> tuple[int, int, int]:
    """Requests, quantity and units straight from the ledger."""
    with as_tenant(tenant_id), connection.cursor() as cursor:
        cursor.execute(
            "SELECT sum(requests)::bigint, sum(quantity)::bigint, sum(units)::bigint FROM usage_usagerecord"
            " WHERE tenant_id = %s AND created_at >= %s AND kind <> 'void'",
            [tenant_id, start],
        )
        return cursor.fetchone()


def settle_rate(tenant: Tenant, batches: int, size: int = 32) -> float:
    """Calls charged a second in micro-batches, one after another, as an online server does."""
    begun = time.monotonic()
    for _ in range(batches):
        lines = [services.UsageLine(ids.uuid7().hex, "prediction", "minilm-squad", 1, "token", 40, 1) for _ in range(size)]
        services.settle_calls([(tenant.id, line) for line in lines])
    return batches * size / (time.monotonic() - begun)
