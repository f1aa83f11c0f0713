"""Prepaid credit: granted, redeemed, drawn by months, taken back, written off when it expires."""

from datetime import date, datetime, timedelta
from uuid import UUID

from django.db.models import F, Q, Sum
from django.utils import timezone
from django.utils.translation import gettext as _

from apps.accounts.services import Tenant
from apps.billing import lots, terms
from apps.billing.models import Coupon, CreditEntry, EntryKind, Redemption
from apps.billing.money import CENT
from apps.billing.months import hold, this_month
from maas import errors
from maas.actors import Permission, require, require_operator
from maas.events import CreditGranted, publish
from maas.tenancy import as_tenant

__all__ = ["CreditEntry", "EntryKind"]  # what the layers above may name

LARGEST = 10**13  # micro-dollars of one grant


# ---------- granting ----------
def grant_credit(
    tenant: Tenant, *, amount: int, reason: str, expires_at: datetime | None = None, source: str | None = None
) -> CreditEntry:  # fmt: skip
    """Add credit in micro-dollars (whole cents), or take some back with an amount below zero. Only the operator may.

    The same `source` twice is one grant. Raises BadRequest for an amount that is no whole cents or more than is left,
    and for an expiry that is past.
    """
    require_operator()
    _check_grant(amount, expires_at)
    with as_tenant(tenant.id):
        hold(tenant.id, this_month())
        known = CreditEntry.objects.filter(tenant=tenant, source=source).first() if source else None
        if known:
            return known
        if amount < 0:
            entry = _take_back(tenant, -amount, reason, source)
        else:
            entry = _add(tenant, EntryKind.GRANT, amount=amount, reason=reason[:200], expires_at=expires_at, source=source)
        publish(CreditGranted(tenant_id=tenant.id, label=reason[:200], after={"amount": amount, "reason": reason[:200]}))
        terms.refresh(tenant)
    return entry


def _check_grant(amount: int, expires_at: datetime | None) -> None:
    if isinstance(amount, bool) or not isinstance(amount, int) or not amount or amount % CENT or abs(amount) > LARGEST:
        message = _("'amount' must be whole cents in micro-dollars (a multiple of %(cent)d) and at most %(n)d.")
        raise errors.BadRequest(message % {"cent": CENT, "n": LARGEST}, param="amount", code="invalid_value")
    if expires_at and expires_at <= timezone.now():
        raise errors.BadRequest(_("'expires_at' must lie in the future."), param="expires_at", code="invalid_value")


def _add(tenant: Tenant, kind: str, **fields: object) -> CreditEntry:
    return CreditEntry.objects.create(tenant=tenant, kind=kind, **fields)


def _take_back(tenant: Tenant, amount: int, reason: str, source: str | None) -> CreditEntry:
    """From what no month has used or reserved."""
    now = timezone.now()
    free = lots.unclaimed(tenant.id, now)
    if sum(lot.left for lot in free) < amount:
        left = {"left": sum(lot.left for lot in free)}
        raise errors.BadRequest(
            _("Only %(left)d micro-dollars of credit are left to take back.") % left, param="amount", code="invalid_value"
        )
    entries: list[CreditEntry] = []
    for lot in free:
        part = min(lot.left, amount)
        if part:
            named = f"{source}:{len(entries)}" if source and entries else source
            entries.append(_add(tenant, EntryKind.TAKEN_BACK, amount=-part, reason=reason[:200], lot_id=lot.id, source=named))
            amount -= part
    return entries[0]


# ---------- looking ----------
def balance(tenant: Tenant) -> int:
    """Micro-dollars of credit: the sum of all entries, less what has expired. What running months use is still in it."""
    with as_tenant(tenant.id):
        total = CreditEntry.objects.filter(tenant=tenant).aggregate(total=Sum("amount"))["total"] or 0
        return int(total) - sum(amount for _lot, amount in lots.expired(tenant.id, timezone.now()))


def left(tenant: Tenant) -> int:
    """Micro-dollars that no month has used or reserved yet."""
    with as_tenant(tenant.id):
        return sum(lot.left for lot in lots.unclaimed(tenant.id, timezone.now()))


def list_credits(tenant: Tenant, *, after: UUID | None = None, limit: int = 20) -> tuple[list[CreditEntry], bool]:
    """A page of entries, newest first, and whether there are more; `after` is the last of the page before."""
    with as_tenant(tenant.id):
        rows = CreditEntry.objects.filter(tenant=tenant, **({"id__lt": after} if after else {})).order_by("-id")
        found = list(rows[: limit + 1])
    return found[:limit], len(found) > limit


# ---------- months ----------
def draw_month(tenant: Tenant, period: date, cents: int) -> None:
    """Write what a month that is being closed draws, in the caller's transaction."""
    taken = lots.draw(lots.lots_for(tenant.id, period, timezone.now()), period, cents * CENT)
    for number, (lot_id, amount) in enumerate(taken):
        _add(tenant, EntryKind.DRAW, amount=-amount, lot_id=lot_id, period=period, source=f"draw:{period:%Y-%m}:{number}")


# ---------- coupons ----------
def create_coupon(
    *, code: str, amount: int, expires_at: datetime | None = None, most: int | None = None, credit_days: int | None = None
) -> Coupon:
    """A code for `amount` micro-dollars that `most` organisations may redeem once each until `expires_at`; only the operator may.

    Its credit lasts `credit_days` days; None: for good.
    """
    require_operator()
    code = code.strip().upper()
    if not 4 <= len(code) <= 40 or not code.isascii() or not code.replace("-", "").isalnum():
        raise errors.BadRequest(_("A code has 4 to 40 letters, digits and hyphens."), param="code", code="invalid_value")
    _check_grant(abs(amount), expires_at)
    for name, value in (("most", most), ("credit_days", credit_days), ("amount", amount)):
        if value is not None and value < 1:
            raise errors.BadRequest(_("'%(name)s' must be at least 1.") % {"name": name}, param=name, code="invalid_value")
    if Coupon.objects.filter(code=code).exists():
        raise errors.BadRequest(_("There is a coupon with this code already."), param="code", code="taken")
    return Coupon.objects.create(code=code, amount=amount, expires_at=expires_at, most=most, credit_days=credit_days)


def redeem_coupon(tenant: Tenant, *, code: str) -> CreditEntry:
    """Turn a coupon into credit. Raises Forbidden, and BadRequest for a code that is unknown, over, used up or redeemed before."""
    require(tenant.id, Permission.BILLING)
    with as_tenant(tenant.id):
        hold(tenant.id, this_month())
        coupon = Coupon.objects.filter(code=code.strip().upper()).first()
        if coupon is None:
            raise _refused(_("There is no coupon with this code."))
        if Redemption.objects.filter(tenant=tenant, coupon=coupon).exists():
            raise _refused(_("Your organisation has redeemed this coupon already."), "coupon_redeemed")
        _count(coupon)
        entry = _redeem(tenant, coupon)
        publish(CreditGranted(tenant_id=tenant.id, label=coupon.code, after={"amount": coupon.amount, "reason": entry.reason}))
        terms.refresh(tenant)
    return entry


def _count(coupon: Coupon) -> None:
    """One more redemption, unless it has ended or all are taken: many may try at once."""
    if coupon.expires_at and coupon.expires_at <= timezone.now():
        raise _refused(_("This coupon has ended."), "coupon_expired")
    room = Coupon.objects.filter(Q(most=None) | Q(redeemed__lt=F("most")), pk=coupon.pk)
    if not room.update(redeemed=F("redeemed") + 1):
        raise _refused(_("This coupon is used up."), "coupon_used_up")


def _redeem(tenant: Tenant, coupon: Coupon) -> CreditEntry:
    until = timezone.now() + timedelta(days=coupon.credit_days) if coupon.credit_days else None
    reason = _("Coupon %(code)s") % {"code": coupon.code}
    fields = {"amount": coupon.amount, "reason": reason, "expires_at": until, "source": f"coupon:{coupon.pk}"}
    entry = _add(tenant, EntryKind.COUPON, **fields)
    Redemption.objects.create(tenant=tenant, coupon=coupon, entry=entry)
    return entry


def _refused(message: str, code: str = "invalid_coupon") -> errors.BadRequest:
    return errors.BadRequest(message, param="code", code=code)
