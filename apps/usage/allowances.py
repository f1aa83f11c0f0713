"""How much may be used in a month: begun, changed and looked at. Reservations count against it (`reservations`).

A month is a UTC calendar month, and a line of the ledger belongs to the month in which it was charged. Every function takes
part in the caller's transaction, `as_tenant` or `as_system`, unless it says otherwise.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from django.db import connection
from django.db.models import F, Sum

from apps.usage.models import Allowance, Reservation, Scope, UsageFresh, UsageHourly
from apps.usage.periods import end_of, start_of
from maas import ids
from maas.tenancy import SystemUse, as_system


@dataclass(frozen=True)
class Cap:
    """What a tenant, a key (its id in hex) or a model (its name) may use in a month; None: all. `alert_at` in units too."""

    scope: str
    subject: str
    units: int | None
    reason: str = "quota_exceeded"
    alert_at: int | None = None


@dataclass(frozen=True)
class Standing:
    """A row of a month as it is: units used and charged, units reserved by work that goes on."""

    period: date
    scope: str
    subject: str
    cap: int | None
    reason: str
    used: int
    reserved: int
    alert_at: int | None
    is_over: bool = False


def begin_month(tenant_id: UUID, period: date) -> None:
    """Make the tenant's row of a month unless it is there, and end the months before: nothing more is reserved in them.

    The row begins with what the ledger holds of the month, and with no cap: `set_caps` follows in the same transaction.
    """
    _hold(tenant_id, period)
    if lock_month(tenant_id, period) is not None:
        return
    earlier = Allowance.objects.filter(tenant_id=tenant_id, scope=Scope.TENANT, period__lt=period, is_over=False)
    list(earlier.order_by("period").select_for_update())
    earlier.update(is_over=True)
    _make(tenant_id, period, [Cap(Scope.TENANT, "", None)])


def lock_month(tenant_id: UUID, period: date) -> Standing | None:
    """Hold a month's rows until the transaction ends; None when it has not begun. What decides about caps is read after this."""
    row = Allowance.objects.select_for_update().filter(tenant_id=tenant_id, period=period, scope=Scope.TENANT).first()
    return _standing(row) if row else None


def set_caps(tenant_id: UUID, period: date, caps: Iterable[Cap]) -> None:
    """Write the caps of a month that the caller holds; rows that are not named have no cap from now on."""
    wanted = {(cap.scope, cap.subject): cap for cap in caps}
    known = {(row.scope, row.subject): row for row in Allowance.objects.filter(tenant_id=tenant_id, period=period)}
    for place, row in known.items():
        cap = wanted.get(place, Cap(*place, None))
        row.cap, row.reason, row.alert_at = cap.units, cap.reason, cap.alert_at
    Allowance.objects.bulk_update(known.values(), ["cap", "reason", "alert_at"])
    _make(tenant_id, period, [cap for place, cap in wanted.items() if place not in known])


def standings(tenant_id: UUID, period: date) -> list[Standing]:
    """All rows of a month, the tenant's own first."""
    rows = Allowance.objects.filter(tenant_id=tenant_id, period=period)
    return sorted(map(_standing, rows), key=lambda row: (row.scope != Scope.TENANT, row.scope, row.subject))


def begun_months(tenant_id: UUID) -> list[Standing]:
    """The tenant's own row of every month, oldest first."""
    return [_standing(row) for row in Allowance.objects.filter(tenant_id=tenant_id, scope=Scope.TENANT).order_by("period")]


def due_alerts(limit: int = 500) -> list[tuple[UUID, Standing]]:
    """Rows that have reached the units of which somebody wants to hear, with their tenants. In a transaction of its own."""
    with as_system(SystemUse.ALERT_BUDGETS):
        rows = Allowance.objects.filter(alert_at__isnull=False, is_over=False, used__gte=F("alert_at"))[:limit]
        return [(row.tenant_id, _standing(row)) for row in rows]


def _hold(tenant_id: UUID, period: date) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT maas_hold_month(%s, %s)", [tenant_id, period])


def _make(tenant_id: UUID, period: date, caps: list[Cap]) -> None:
    """New rows, with what was charged and what is reserved already."""
    for cap in caps:
        Allowance.objects.create(
            id=ids.uuid7(), tenant_id=tenant_id, period=period, scope=cap.scope, subject=cap.subject, cap=cap.units,
            reason=cap.reason, alert_at=cap.alert_at, used=_charged(tenant_id, period, cap), reserved=_reserved(tenant_id, period, cap),
        )  # fmt: skip


def _charged(tenant_id: UUID, period: date, cap: Cap) -> int:
    """Units that the ledger holds of a month, read in one statement: a roll-up must not move them meanwhile."""
    place = {"hour__gte": start_of(period), "hour__lt": end_of(period), "tenant_id": tenant_id, **_subject(cap)}
    lines = [rows.objects.filter(**place).values("units") for rows in (UsageHourly, UsageFresh)]
    return sum(row["units"] for row in lines[0].union(lines[1], all=True))


def _reserved(tenant_id: UUID, period: date, cap: Cap) -> int:
    rows = Reservation.objects.filter(tenant_id=tenant_id, period=period, closed_at=None, **_subject(cap))
    return int(rows.aggregate(held=Sum(F("units") - F("settled")))["held"] or 0)


def _subject(cap: Cap) -> dict[str, str | UUID]:
    if cap.scope == Scope.TENANT:
        return {}
    return {"model": cap.subject} if cap.scope == Scope.MODEL else {"key_id": UUID(cap.subject)}


def _standing(row: Allowance) -> Standing:
    return Standing(row.period, row.scope, row.subject, row.cap, row.reason, row.used, row.reserved, row.alert_at, row.is_over)
