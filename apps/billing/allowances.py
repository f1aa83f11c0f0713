"""What work reserves before it begins: against the plan's units, the budgets and the prepaid credit, all at once."""

from collections.abc import Callable
from datetime import date
from typing import TypeVar
from uuid import UUID

from django.utils import timezone
from django.utils.translation import gettext as _

from apps.accounts import keys
from apps.accounts.services import Tenant
from apps.billing import terms
from apps.usage import allowances, blocks, reservations
from apps.usage.blocks import Grant
from apps.usage.periods import month_after, month_of
from apps.usage.reservations import NotBegun, Over, Refusal, Refused, Work
from maas import errors
from maas.tenancy import as_tenant

Found = TypeVar("Found")
TRIES = 3  # a month that has to begin, and one that ended a moment ago by another machine's clock


def grant_call(tenant: Tenant, *, key_id: UUID | None, model: str, units: int, seconds: float) -> Grant:
    """Units for a call that ends within `seconds`; `blocks.finish` ends the grant.

    Raises PaymentRequired when a limit has no room for them.
    """

    def attempt(period: date) -> Grant:
        return blocks.grant(Work(tenant.id, period, key_id, model), units, seconds=seconds)

    return _attempt(tenant, units, attempt)


def is_at_hand(tenant: Tenant, *, key_id: UUID | None, model: str, units: int, seconds: float) -> bool:
    """Whether this process has the units of such a call in hand, so that granting them takes no trip to the database."""
    return blocks.at_hand(Work(tenant.id, month_of(timezone.now()), key_id, model), units, seconds=seconds)


def grant_at_hand(tenant: Tenant, *, key_id: UUID | None, model: str, units: int, seconds: float) -> Grant | None:
    """What `grant_call` gives, when that takes no trip to the database; else None."""
    return blocks.grant_at_hand(Work(tenant.id, month_of(timezone.now()), key_id, model), units, seconds=seconds)


def reserve_work(
    tenant: Tenant, *, key_id: UUID | None, model: str | None, units: int, use: str, job_id: UUID, slice_id: UUID | None = None
) -> UUID:  # fmt: skip
    """Units for a job or for one of its slices, until they are released with it; the reservation.

    Raises PaymentRequired when a limit has no room for them.
    """

    def attempt(period: date) -> UUID:
        work = Work(tenant.id, period, key_id, model)
        return reservations.reserve(work, units, seconds=None, use=use, job_id=job_id, slice_id=slice_id)[0]

    return _attempt(tenant, units, attempt)


def begin_month(tenant: Tenant, period: date) -> None:
    """Make the rows of a month with their caps."""
    with as_tenant(tenant.id):
        allowances.begin_month(tenant.id, period)
        terms.apply_caps(tenant, period)


def _attempt(tenant: Tenant, units: int, attempt: Callable[[date], Found]) -> Found:
    period = month_of(timezone.now())
    for _try in range(TRIES):
        try:
            return attempt(period)
        except NotBegun:
            begin_month(tenant, period)
        except Over:
            period = month_after(period)
        except Refused as refused:
            raise _refusal(tenant, refused.refusal, units) from None
    raise errors.Unavailable(_("The month is changing. Nothing was charged; try again."))


def _refusal(tenant: Tenant, refusal: Refusal, units: int) -> errors.PaymentRequired:
    """Final: trying again changes nothing until somebody raises a limit or the month ends."""
    texts = _texts()
    text = texts.get((refusal.scope, refusal.reason)) or texts["tenant", "quota_exceeded"]
    words = {"units": f"{units:,}", "left": f"{max(refusal.room, 0):,}", "subject": _subject(tenant, refusal)}
    return errors.PaymentRequired(text % words, code=refusal.reason)


def _subject(tenant: Tenant, refusal: Refusal) -> str:
    return keys.get_key(tenant, UUID(refusal.subject)).name if refusal.scope == "key" else refusal.subject


def _texts() -> dict[tuple[str, str], str]:
    nothing = _("Nothing was charged.")
    return {
        place: f"{text} {nothing}"
        for place, text in {
            ("tenant", "quota_exceeded"): _(
                "This may cost up to %(units)s units, and %(left)s of your plan's units are left this month. Change the plan or add credit."
            ),
            ("tenant", "insufficient_credit"): _(
                "This may cost up to %(units)s units, and your organisation's credit pays for %(left)s more. Add credit or change the plan."
            ),
            ("tenant", "budget_exceeded"): _(
                "This may cost up to %(units)s units, and your organisation's budget has room for %(left)s more this month."
                " An owner can raise it."
            ),
            ("key", "budget_exceeded"): _(
                "This may cost up to %(units)s units, and the spend limit of the key '%(subject)s' has room for %(left)s more this month."
            ),
            ("model", "budget_exceeded"): _(
                "This may cost up to %(units)s units, and the spend limit of the model '%(subject)s' has room for %(left)s more this month."
            ),
            ("tenant", "payment_overdue"): _(
                "A payment of your organisation is overdue, so nothing new is run. An owner can pay on the billing page."
            ),
        }.items()
    }
