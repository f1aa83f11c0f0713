"""How fast units are used, and what a month comes to when it goes on like that."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from apps.accounts.services import Tenant
from apps.billing.months import end_of, this_month
from apps.usage import services as usage

DAYS = 14
DAY = 86_400  # seconds


@dataclass(frozen=True)
class Pace:
    """Units of the last `days` days. A younger organisation is measured since it began."""

    units: int
    days: int

    def ahead(self, until: datetime) -> int:
        """Units from now until a moment, in whole numbers."""
        seconds = max(0, int((until - timezone.now()).total_seconds()))
        return self.units * seconds // (self.days * DAY)

    def reaches(self, more: int) -> datetime | None:
        """When so many units more are used; None when not in this month."""
        if more <= 0 or self.units <= 0:
            return None
        seconds = more * self.days * DAY // self.units
        month_end = end_of(this_month())
        return timezone.now() + timedelta(seconds=seconds) if seconds < (month_end - timezone.now()).total_seconds() else None


def pace_of(tenant: Tenant) -> Pace:
    """The pace of the last two weeks."""
    now = timezone.now()
    days = max(1, min(DAYS, (now - tenant.created_at).days))
    start = (now - timedelta(days=days)).replace(minute=0, second=0, microsecond=0)
    return Pace(max(0, usage.totals(tenant, start, now + timedelta(seconds=1))["units"]), days)
