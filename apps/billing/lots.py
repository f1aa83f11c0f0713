"""Credit in lots, and which month draws which lot, in the caller's transaction.

Months that are not closed have a claim: what they cost so far, and what is reserved in them. Earlier months draw first, and
the lot that expires first is drawn first. A month draws from what had not expired when the month began; what of a lot is
claimed when it expires stays for that claim.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from django.db.models import F, Sum
from django.db.models.functions import Coalesce

from apps.billing.history import plan_in
from apps.billing.models import ClosedMonth, CreditEntry, EntryKind
from apps.billing.money import CENT, to_cents
from apps.billing.months import start_of
from apps.billing.plans import Plan
from apps.usage import allowances


@dataclass
class Lot:
    """What is left of a grant, in micro-dollars."""

    id: UUID
    expires_at: datetime | None
    left: int

    def serves(self, period: date) -> bool:
        """Whether a month may draw from it."""
        return self.expires_at is None or self.expires_at > start_of(period)


@dataclass(frozen=True)
class Claim:
    """What a month that is not closed may cost, in micro-dollars of whole cents."""

    period: date
    amount: int


def charge(plan: Plan, units: int) -> int:
    """Micro-dollars for the units of a month, before credit."""
    return 0 if plan.included_units is None else max(0, units - plan.included_units) * plan.unit_price


def lots_of(tenant_id: UUID) -> list[Lot]:
    """Lots with something left, in the order in which they are drawn."""
    found = _open().filter(tenant_id=tenant_id)
    return [Lot(row.id, row.expires_at, row.left) for row in found.order_by(F("expires_at").asc(nulls_last=True), "id")]


def expiring(now: datetime) -> Any:
    """Lots that are past their time with something left, of all tenants that the caller sees."""
    return _open().filter(expires_at__lte=now)


def _open() -> Any:
    left = F("amount") + Coalesce(Sum("taken__amount"), 0)
    return CreditEntry.objects.filter(lot=None).annotate(left=left).filter(left__gt=0)


def claims_of(tenant_id: UUID, *, before: date | None = None) -> list[Claim]:
    """The claims of all months that are begun and not closed, earliest first; of those before a month."""
    closed = set(ClosedMonth.objects.filter(tenant_id=tenant_id).values_list("period", flat=True))
    months = [row for row in allowances.begun_months(tenant_id) if row.period not in closed and (before is None or row.period < before)]
    return [Claim(row.period, to_cents(charge(plan_in(tenant_id, row.period), row.used + row.reserved)) * CENT) for row in months]


def draw(lots: Iterable[Lot], period: date, amount: int) -> list[tuple[UUID, int]]:
    """Take up to `amount` from the lots that serve a month; what was taken of which."""
    taken = []
    for lot in lots:
        part = min(lot.left, amount) if lot.serves(period) else 0
        if part:
            lot.left, amount = lot.left - part, amount - part
            taken.append((lot.id, part))
    return taken


def lots_for(tenant_id: UUID, period: date, now: datetime) -> list[Lot]:
    """What a month may draw: lots without what earlier months claim and without what has expired unclaimed."""
    lots = lots_of(tenant_id)
    gone = dict(expired(tenant_id, now))
    for lot in lots:
        lot.left -= gone.get(lot.id, 0)
    for claim in claims_of(tenant_id, before=period):
        draw(lots, claim.period, claim.amount)
    return [lot for lot in lots if lot.left and lot.serves(period)]


def available(tenant_id: UUID, period: date, now: datetime) -> int:
    """Micro-dollars that pay for a month."""
    return sum(lot.left for lot in lots_for(tenant_id, period, now))


def expired(tenant_id: UUID, now: datetime) -> list[tuple[UUID, int]]:
    """Lots that are past their time, with what nobody claims of them."""
    lots = lots_of(tenant_id)
    if not any(_is_past(lot, now) for lot in lots):
        return []
    for claim in claims_of(tenant_id):
        draw(lots, claim.period, claim.amount)
    return [(lot.id, lot.left) for lot in lots if lot.left and _is_past(lot, now)]


def _is_past(lot: Lot, now: datetime) -> bool:
    return lot.expires_at is not None and lot.expires_at <= now


def unclaimed(tenant_id: UUID, now: datetime) -> list[Lot]:
    """What no month claims, without what has expired."""
    lots = lots_of(tenant_id)
    for claim in claims_of(tenant_id):
        draw(lots, claim.period, claim.amount)
    return [lot for lot in lots if lot.left and not _is_past(lot, now)]


def write_off(tenant_id: UUID, now: datetime) -> int:
    """Write off what has expired unclaimed, for whoever holds the tenant's money; micro-dollars."""
    gone = expired(tenant_id, now)
    for lot_id, amount in gone:
        CreditEntry.objects.create(tenant_id=tenant_id, kind=EntryKind.EXPIRY, amount=-amount, lot_id=lot_id)
    return sum(amount for _lot, amount in gone)
