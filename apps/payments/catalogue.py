"""What is for sale, as Stripe knows it: two meters, a product and price for each paid plan, a price for what exceeds it.

Everything is found again by a name of ours, so setting it up twice makes nothing twice.
"""

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _

from apps.billing.plans import Plan, every_plan
from apps.payments import calls
from maas import errors

CURRENCY = "usd"
UNITS, CHARGES = "maas_units", "maas_charges"  # names of the meters
METERS = {UNITS: "Units used", CHARGES: "Charges in cents"}
MARK = "maas"  # the metadata by which our portal configuration is known
MICRO_DOLLARS = 10_000  # of a cent
PORTAL: dict[str, Any] = {
    "payment_method_update": {"enabled": True},
    "invoice_history": {"enabled": True},
    "customer_update": {"enabled": True, "allowed_updates": ["address", "email", "name", "tax_id"]},
    # Plans change in our dashboard, where the rules of billing hold; the portal can only end it all.
    "subscription_cancel": {"enabled": True, "mode": "at_period_end"},
}


def paid_plans() -> list[Plan]:
    """The plans that cost something a month."""
    return [plan for plan in every_plan().values() if plan.monthly_price]


def cents(plan: Plan) -> int:
    """The plan's monthly price in whole cents. Raises ValueError for one that is none."""
    amount, rest = divmod(plan.monthly_price, MICRO_DOLLARS)
    if rest:
        raise ValueError(f"The price of the plan '{plan.name}' is {plan.monthly_price} micro-dollars, which is no whole number of cents.")
    return amount


def lookup_key(plan: Plan) -> str:
    """The name of the plan's price: another price is another name."""
    return f"maas_{plan.name}_{cents(plan)}"


def find_prices(plan: Plan) -> tuple[str, str]:
    """The ids of the plan's monthly price and of the price of charges. Raises Unavailable before `stripe_setup` has run."""
    keys = [lookup_key(plan), CHARGES]
    found = calls.client().v1.prices.list({"lookup_keys": keys, "active": True, "limit": 10}).data
    ids = {price.lookup_key: price.id for price in found}
    if set(keys) - set(ids):
        raise errors.Unavailable(_("This plan cannot be bought yet: its operator has to run `manage.py stripe_setup`."), code="no_price")
    return ids[keys[0]], ids[CHARGES]


def find_portal() -> str | None:
    """The id of our portal configuration; None before `stripe_setup` has run, and Stripe's default serves."""
    found = calls.client().v1.billing_portal.configurations.list({"active": True, "limit": 100}).auto_paging_iter()
    return next((one.id for one in found if (calls.plain(one)["metadata"] or {}).get(MARK) == "portal"), None)


# ---------- setting up ----------
def set_up() -> Iterator[str]:
    """Make what is missing at Stripe; a line for each thing, made or found."""
    meters = yield from _meters()
    yield from _price(CHARGES, _charges(meters[CHARGES]), product=("maas_charges", "Use above the plan"))
    for plan in paid_plans():
        licensed = {"unit_amount": cents(plan), "recurring": {"interval": "month"}, "metadata": {"plan": plan.name}}
        yield from _price(lookup_key(plan), licensed, product=(f"maas_{plan.name}", plan.title))
    yield from _portal()


def _meters() -> Any:
    """Make the meters; gives their ids by name to whoever yields from it."""
    service = calls.client().v1.billing.meters
    known = {meter.event_name: meter.id for meter in service.list({"status": "active", "limit": 100}).auto_paging_iter()}
    for name, title in METERS.items():
        yield f"meter {name}: {'found' if name in known else 'made'}"
        if name not in known:
            known[name] = service.create(
                {
                    "event_name": name, "display_name": title, "default_aggregation": {"formula": "sum"},
                    "customer_mapping": {"type": "by_id", "event_payload_key": "stripe_customer_id"},
                    "value_settings": {"event_payload_key": "value"},
                }
            ).id  # fmt: skip
    return known


def _charges(meter_id: str) -> dict[str, Any]:
    """One cent for every cent that billing works out: Stripe multiplies and rounds nothing."""
    return {"unit_amount": 1, "recurring": {"interval": "month", "usage_type": "metered", "meter": meter_id}}


def _price(key: str, terms: dict[str, Any], *, product: tuple[str, str]) -> Iterator[str]:
    service = calls.client().v1.prices
    found = service.list({"lookup_keys": [key], "active": True, "limit": 1}).data
    if not found:
        _product(*product)
        service.create({"currency": CURRENCY, "product": product[0], "lookup_key": key, "tax_behavior": "exclusive", **terms})  # type: ignore[typeddict-item]
    yield f"price {key}: {'found' if found else 'made'}"


def _product(product_id: str, name: str) -> None:
    import stripe

    service = calls.client().v1.products
    try:
        service.retrieve(product_id)
    except stripe.InvalidRequestError as error:
        if error.http_status != 404:
            raise
        service.create({"id": product_id, "name": f"maas {name}"})


def _portal() -> Iterator[str]:
    service = calls.client().v1.billing_portal.configurations
    shape: Any = {"features": PORTAL, "metadata": {MARK: "portal"}, "default_return_url": f"{settings.MAAS_URL}/billing"}
    found = find_portal()
    if found:
        service.update(found, shape)
    else:
        service.create(shape)
    yield f"portal configuration: {'found, and brought up to date' if found else 'made'}"
