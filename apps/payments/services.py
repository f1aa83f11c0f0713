"""Paying by Stripe: begin a subscription, change or look at it, and let Stripe take care of cards and addresses."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext as _

from apps.accounts.services import Tenant
from apps.billing.models import ClosedMonth
from apps.billing.plans import Plan, every_plan, plan_of
from apps.payments import calls, catalogue, customers, fetching, mirroring
from apps.payments.mirroring import FREE
from apps.payments.models import Customer, Subscription
from apps.usage import allowances
from apps.usage.periods import month_after, month_of
from maas import errors
from maas.actors import Permission, require
from maas.tenancy import as_tenant

is_on = calls.is_on
SESSION = timedelta(hours=23)  # that a checkout stays open; Stripe allows 24
SHORTEST = timedelta(minutes=35)  # Stripe keeps it open for 30 at least, and it has to end before its anchor


@dataclass(frozen=True)
class Card:
    """What may be shown of a card."""

    brand: str
    last4: str
    exp_month: int
    exp_year: int


@dataclass(frozen=True)
class PaymentStatus:
    """How a tenant pays by Stripe. `is_on` is of the installation; `status` is Stripe's word, empty without a subscription.

    `plan` is the one that Stripe collects for: with `cancel_at_period_end` it lasts until `period_end`, UTC.
    """

    is_on: bool
    has_subscription: bool
    status: str = ""
    plan: str = ""
    card: Card | None = None
    period_end: datetime | None = None
    cancel_at_period_end: bool = False


def status(tenant: Tenant) -> PaymentStatus:
    """How the tenant pays, from our mirror: Stripe is not asked."""
    if not is_on():
        return PaymentStatus(is_on=False, has_subscription=False)
    with as_tenant(tenant.id):
        living = mirroring.living(tenant)
        customer = Customer.objects.filter(tenant=tenant).first()
    card = Card(**customer.card) if customer and customer.card else None
    if living is None:
        return PaymentStatus(is_on=True, has_subscription=False, card=card)
    return PaymentStatus(True, True, living.status, living.plan, card, living.period_end, living.cancel_at_period_end)


# ---------- beginning ----------
def start_checkout(tenant: Tenant, *, plan: str, success_url: str, cancel_url: str) -> str:
    """The address at Stripe where somebody pays for the plan. It holds once Stripe tells us so, not when they come back.

    Raises BadRequest for a plan that is not sold, for a tenant that has a subscription, and where Stripe is not set up;
    Unavailable when Stripe does not answer, in the last half hour of a month, when no checkout could end in time, and before
    the month before is closed.
    """
    require(tenant.id, Permission.BILLING)
    calls.require_on()
    wanted = _paid(plan)
    with as_tenant(tenant.id):
        if mirroring.living(tenant):
            raise errors.BadRequest(_("There is a subscription already. Change its plan instead."), code="has_subscription")
    now = timezone.now()
    _check_month(tenant, now)
    with calls.speaking():
        params = _checkout(tenant, wanted, now, customers.ensure_customer(tenant))
        urls = {"success_url": success_url, "cancel_url": cancel_url}
        return str(customers.once(tenant, "checkout", {**params, **urls}, calls.client().v1.checkout.sessions.create).url)


def _check_month(tenant: Tenant, now: datetime) -> None:
    """A checkout has to end before the 1st that it is anchored on, and what came before it is not Stripe's to collect."""
    left = _next_first(now) - now
    if left < SHORTEST:
        message = _("The month ends in a few minutes, and plans begin with it. Try again after midnight UTC.")
        raise errors.Unavailable(message, code="month_ends", retry_after=int(left.total_seconds()) + 1)
    before = month_after(month_of(now), -1)
    with as_tenant(tenant.id):
        if allowances.standings(tenant.id, before) and not ClosedMonth.objects.filter(tenant=tenant, period=before).exists():
            message = _("The invoice of the month before is being made. Try again in an hour.")
            raise errors.Unavailable(message, code="month_ends", retry_after=3600)


def _checkout(tenant: Tenant, plan: Plan, now: datetime, customer: str) -> dict[str, Any]:
    """What is asked of Stripe: the same within an hour, so that two clicks open one checkout."""
    anchor = _next_first(now)
    licensed, metered = catalogue.find_prices(plan)
    mark = {"tenant": tenant.id.hex}
    until = min(now.replace(minute=0, second=0, microsecond=0) + SESSION, anchor)
    return {
        "mode": "subscription", "customer": customer, "client_reference_id": tenant.id.hex, "metadata": mark,
        "line_items": [{"price": licensed, "quantity": 1}, {"price": metered}],
        "subscription_data": {
            "billing_cycle_anchor": int(anchor.timestamp()), "proration_behavior": "create_prorations", "metadata": mark,
        },
        "tax_id_collection": {"enabled": True}, "automatic_tax": {"enabled": settings.MAAS_STRIPE_TAX},
        "customer_update": {"name": "auto", "address": "auto"}, "expires_at": int(until.timestamp()),
    }  # fmt: skip


def _next_first(now: datetime) -> datetime:
    first: date = month_after(month_of(now))
    return datetime(first.year, first.month, first.day, tzinfo=UTC)


# ---------- changing ----------
def open_portal(tenant: Tenant, *, return_url: str) -> str:
    """The address at Stripe where cards, addresses, tax ids and invoices are looked after.

    Raises BadRequest for a tenant that Stripe does not know yet.
    """
    require(tenant.id, Permission.BILLING)
    calls.require_on()
    customer = customers.find_customer(tenant)
    if customer is None or not customer.stripe_id:
        raise errors.BadRequest(_("There is nothing at Stripe yet. Choose a plan first."), code="no_customer")
    with calls.speaking():
        configuration = catalogue.find_portal()
        params = {"customer": customer.stripe_id, "return_url": return_url}
        chosen: Any = {**params, "configuration": configuration} if configuration else params
        return str(calls.client().v1.billing_portal.sessions.create(chosen).url)


def change_plan(tenant: Tenant, plan: str) -> PaymentStatus:
    """Move a subscription to another plan: up at once, the rest of the month prorated; down, or to free, on the 1st.

    Raises BadRequest for a plan that is not sold and for a tenant without a subscription, PaymentRequired for a refused card.
    """
    require(tenant.id, Permission.BILLING)
    calls.require_on()
    wanted = plan_of(FREE) if plan == FREE else _paid(plan)
    with as_tenant(tenant.id):
        living = mirroring.living(tenant)
        held = plan_of(Tenant.objects.values_list("plan", flat=True).get(pk=tenant.pk))
    if living is None:
        raise errors.BadRequest(_("There is no subscription yet. Begin one first."), code="no_subscription")
    with calls.speaking():
        for change in _changes(living, held, wanted):
            calls.client().v1.subscriptions.update(living.stripe_id, change)  # type: ignore[arg-type]
        look = fetching.look_at("subscription", living.stripe_id)
    with as_tenant(tenant.id):
        mirroring.write(tenant.id, look)
    return status(tenant)


def _changes(living: Subscription, held: Plan, wanted: Plan) -> list[dict[str, Any]]:
    """What is asked of Stripe, one after the other; asking it again changes nothing more.

    What was paid is the plan that holds. So a rise after a fall that is still to come goes back first, for nothing:
    Stripe would prorate from the lower price.
    """
    if wanted.name == FREE:
        return [{"cancel_at_period_end": True, "proration_behavior": "none"}]
    steps = [_swap(living, wanted, is_rise=wanted.monthly_price > held.monthly_price)]
    if wanted.monthly_price > held.monthly_price and living.plan != held.name and held.monthly_price:
        steps.insert(0, _swap(living, held, is_rise=False))
    return steps


def _swap(living: Subscription, plan: Plan, *, is_rise: bool) -> dict[str, Any]:
    behaviour = "create_prorations" if is_rise else "none"
    price, _metered = catalogue.find_prices(plan)
    return {"items": [{"id": living.item_id, "price": price}], "proration_behavior": behaviour, "cancel_at_period_end": False}


def _paid(name: str) -> Plan:
    plan = every_plan().get(name)
    if plan is None or not plan.monthly_price:
        known = ", ".join(one.name for one in catalogue.paid_plans())
        raise errors.BadRequest(
            _("'%(name)s' is no plan that can be bought. Choose from: %(known)s.") % {"name": name, "known": known}, param="plan"
        )
    return plan
