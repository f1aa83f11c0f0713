"""The months of the ledger in PostgreSQL: made ahead; what fell beside them is moved into a month of its own.

Only the tables' owner may make or drop a table. The functions that do it (migration 0002) belong to that role, and the
system may call them.
"""

from datetime import date

import structlog
from django.db import connection
from django.utils import timezone

from apps.usage.periods import month_after, month_of
from maas.tenancy import SystemUse, as_system

log = structlog.get_logger(__name__)
AHEAD = 2  # months after this one
STRAY = """
SELECT DISTINCT period FROM usage_usagerecord_default
WHERE period NOT IN (SELECT period FROM usage_archivedmonth) ORDER BY period
"""


def make_partitions() -> int:
    """Make this month and the next two, and every month whose lines fell into the default; how many lines moved."""
    with as_system(SystemUse.PARTITION_USAGE), connection.cursor() as cursor:
        cursor.execute(STRAY)
        stray = [period for (period,) in cursor.fetchall()]
    return sum(_make_and_tell(period) for period in sorted({*stray, *months_ahead()}))


def months_ahead() -> list[date]:
    """The months that have to be there already: this one (UTC) and the next two."""
    this = month_of(timezone.now())
    return [month_after(this, count) for count in range(AHEAD + 1)]


def make_partition(period: date) -> int:
    """Make a month's partition if it is not there; the lines that moved in from the default partition."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT maas_make_usage_month(%s)", [period])
        return int(cursor.fetchone()[0])


def _make_and_tell(period: date) -> int:
    """A transaction each: the default partition is locked while lines move."""
    with as_system(SystemUse.PARTITION_USAGE):
        moved = make_partition(period)
    if moved:
        log.warning("lines of the ledger had no month", period=f"{period:%Y-%m}", moved=moved)
    return moved
