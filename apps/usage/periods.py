"""The month of the ledger that a piece of work belongs to, read from the time inside its identifier.

A retry must meet the line that it repeats, and PostgreSQL finds that line within one partition alone. So the partition
depends on nothing but the source: when it is recorded, and how often, changes nothing.
"""

import re
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache

SOURCE = re.compile(
    r"(?:reversal:)?(?P<call>[0-9a-f]{32})"  # a call, its void, or its reversal
    r"|slice:(?P<job>[0-9a-f]{32}):\d+:[0-9a-f]{32}",  # a slice of a job, by version
    re.ASCII,
)
DAY = 86_400_000  # milliseconds
FORMS = "<call>, reversal:<call> or slice:<job>:<number>:<version>, each id as 32 hex digits"


def period_of(source: str) -> date:
    """The first day of the UTC month in which the work behind a source began.

    Raises ValueError for a source of an unknown form, and for an identifier that holds no time.
    """
    found = SOURCE.fullmatch(source)
    if not found:
        raise ValueError(f"'{source}' names no work. Expected {FORMS}.")
    digits = found["call"] or found["job"]
    if digits[12] != "7" or digits[16] not in "89ab":
        raise ValueError(f"'{digits}' holds no time: it is no UUID of version 7.")
    try:
        return _month_of_day(int(digits[:12], 16) // DAY)
    except OverflowError:
        raise ValueError(f"'{digits}' holds a time after the year 9999.") from None


@lru_cache(maxsize=64)
def _month_of_day(day: int) -> date:
    """The first day of the month of a day that is counted from 1970: asked for every line of the ledger, and the same for most."""
    return (date(1970, 1, 1) + timedelta(days=day)).replace(day=1)


def month_of(moment: datetime) -> date:
    """The first day of the UTC month of a moment."""
    return moment.astimezone(UTC).date().replace(day=1)


def month_after(period: date, months: int = 1) -> date:
    """The first day of the month so many months later."""
    years, month = divmod(period.month - 1 + months, 12)
    return date(period.year + years, month + 1, 1)


def start_of(period: date) -> datetime:
    """The moment at which a month begins."""
    return datetime.combine(period, time(), tzinfo=UTC)


def end_of(period: date) -> datetime:
    """The moment at which the next month begins."""
    return start_of(month_after(period))
