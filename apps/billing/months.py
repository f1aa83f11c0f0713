"""UTC calendar months, and the one order in which a tenant's month is held."""

from datetime import date
from uuid import UUID

from django.db import connection
from django.utils import timezone

from apps.usage import allowances
from apps.usage.periods import end_of, month_of, start_of

__all__ = ["end_of", "start_of"]  # billing's modules take them from here


def this_month() -> date:
    """The first day of the running month."""
    return month_of(timezone.now())


def hold(tenant_id: UUID, period: date) -> bool:
    """Hold what a tenant may use and pay until the transaction ends; whether the month has begun.

    Everything that changes a plan, a budget or credit begins with this, so it comes after what others changed before,
    and whoever begins the month at the same moment reads what was changed. Months are held from the earliest.
    """
    stand_in_line(tenant_id, period)
    begun = allowances.lock_month(tenant_id, period) is not None
    hold_money(tenant_id)
    return begun


def stand_in_line(tenant_id: UUID, period: date) -> None:
    """Come after everybody who begins this month or changes what decides about it; its rows stay free for calls."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT maas_hold_month(%s, %s)", [tenant_id, period])


def hold_money(tenant_id: UUID) -> None:
    """Let nobody else change the tenant's credit until the transaction ends, whatever month their clock shows."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"money {tenant_id}"])
