"""Reserve, then settle: units are set aside before work begins and charged when it is done (migration 0003 has the SQL).

A reservation is a row with a lease. One statement reserves in every row of the month that counts the work, or in none;
settling moves units from reserved to used in the transaction that writes the ledger; what a lost process had reserved is
released by the sweep, and work that comes in after that is not charged and not answered.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from uuid import UUID

from django.db import connection
from django.db.models import Q
from django.utils import timezone

from apps.usage.models import Reservation, Use
from maas import ids
from maas.questions import ask
from maas.tenancy import SystemUse, as_system, run_as_tenant

RESERVE = "SELECT * FROM maas_reserve($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
RELEASE = "SELECT maas_release($1::uuid[], $2)"
PLENTY = 4_096  # units left below which a call reserves for itself alone, so that no process keeps what another one needs
SWEPT = 500  # reservations of one transaction
REMEMBERED = timedelta(days=1)  # that a closed reservation can be looked at


@dataclass(frozen=True)
class Work:
    """Who reserves: a tenant in a month, with a key or in a session (None), for a model; None: for several."""

    tenant_id: UUID
    period: date
    key_id: UUID | None
    model: str | None


@dataclass(frozen=True)
class Refusal:
    """The limit that has no room: whose it is, its reason, and the units that are left of it."""

    scope: str
    subject: str
    reason: str
    room: int


class Refused(Exception):
    """No room for what was asked; nothing is reserved."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


class NotBegun(Exception):
    """Nothing was reserved in this month before: its rows have to be made."""


class Over(Exception):
    """The next month has begun, by some other machine's clock at least."""


def reserve(
    work: Work, units: int, *, seconds: float | None, use: str = Use.CALLS, most: int = 0,
    job_id: UUID | None = None, slice_id: UUID | None = None,
) -> tuple[UUID, int]:  # fmt: skip
    """Set `units` aside, or up to `most` where there is plenty; the reservation and how many. `seconds` is its lease.

    Raises Refused, NotBegun or Over; then nothing is reserved.
    """
    new_id = ids.uuid7()
    given = [new_id, work.tenant_id, work.period, work.key_id, work.model, use, job_id, slice_id, units, most, PLENTY, seconds]
    ((granted, scope, subject, reason, room),) = run_as_tenant(work.tenant_id, (RESERVE, given))
    if granted is not None:
        return new_id, granted
    if scope is None:
        raise (NotBegun if reason == "not_begun" else Over)
    raise Refused(Refusal(scope, subject, reason, room))


def release(tenant_id: UUID, reservation_id: UUID) -> None:
    """Close a reservation and give back what is not charged; doing it twice changes nothing."""
    run_as_tenant(tenant_id, (RELEASE, [[reservation_id], None]))


def shrink(tenant_id: UUID, reservation_id: UUID, units: int) -> None:
    """Give back up to `units` of a reservation that stays open."""
    run_as_tenant(tenant_id, (RELEASE, [[reservation_id], units]))


def release_slice(slice_id: UUID) -> None:
    """Close what is reserved for a slice, whoever ran it, in the caller's transaction."""
    _release(list(Reservation.objects.filter(slice_id=slice_id, closed_at=None).values_list("id", flat=True)))


def release_job(job_id: UUID) -> None:
    """Close what is reserved for a job and its slices, in the caller's transaction."""
    _release(list(Reservation.objects.filter(job_id=job_id, closed_at=None).values_list("id", flat=True)))


def hold_for_slice(job_id: UUID, slice_id: UUID) -> None:
    """Hold what is kept for a job and reserved for one of its slices until the transaction ends.

    Reservations are held before the month's row, everywhere: whoever begins with this waits for nobody in a circle.
    """
    mine = Q(use=Use.JOB) | Q(slice_id=slice_id)
    list(Reservation.objects.select_for_update().filter(mine, job_id=job_id, closed_at=None).order_by("id").values_list("id"))


def kept_for(job_id: UUID) -> Reservation | None:
    """What is kept for the slices of a job that are still to come."""
    return Reservation.objects.filter(job_id=job_id, use=Use.JOB, closed_at=None).first()


def release_month(tenant_id: UUID, period: date) -> None:
    """Close every reservation of a month, in the caller's transaction: what comes in later is not charged in it."""
    rows = Reservation.objects.filter(tenant_id=tenant_id, period=period, closed_at=None)
    _release(list(rows.values_list("id", flat=True)))


def sweep_reservations() -> int:
    """Close what is past its lease and forget what was closed long ago; how many were closed."""
    released = 0
    while found := _release_overdue():
        released += found
        if found < SWEPT:
            break
    with as_system(SystemUse.RELEASE_RESERVATIONS):
        Reservation.objects.filter(closed_at__lt=timezone.now() - REMEMBERED).delete()
    return released


def _release_overdue() -> int:
    with as_system(SystemUse.RELEASE_RESERVATIONS), connection.cursor() as cursor:
        # By the clock that gave the leases. What somebody else holds right now is settled: its turn comes again.
        cursor.execute(
            """SELECT id FROM usage_reservation WHERE closed_at IS NULL AND lease_until < clock_timestamp()
               ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED""",
            [SWEPT],
        )
        return _release([found for (found,) in cursor.fetchall()])


def _release(reservation_ids: list[UUID], *, most: int | None = None) -> int:
    if not reservation_ids:
        return 0
    return int(ask((RELEASE, [reservation_ids, most]))[0][0])
