"""Which request to Stripe means what: the types that it has to fit, and what it does."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.stripe_state import Refusal, State, Things


@dataclass(frozen=True)
class Route:
    """`parameters` is `module:Class` below stripe.params."""

    method: str
    path: re.Pattern[str]
    parameters: str
    act: Callable[..., Things]


def listing(rows: list[Things], path: str, limit: int = 10) -> Things:
    return {"object": "list", "data": rows[:limit], "has_more": len(rows) > limit, "url": path}


# ---------- acts ----------
def list_prices(state: State, sent: Things) -> Things:
    keys = sent.get("lookup_keys")
    return listing(
        [price for price in state.all("price") if keys is None or price["lookup_key"] in keys], "/v1/prices", sent.get("limit", 10)
    )


def list_meters(state: State, sent: Things) -> Things:
    return listing(state.all("billing.meter"), "/v1/billing/meters", sent.get("limit", 10))


def list_summaries(state: State, sent: Things, meter: str) -> Things:
    if sent["start_time"] % 60 or sent["end_time"] % 60:
        raise Refusal("Start and end times must be aligned with minute boundaries.")
    name = state.get(meter, "billing.meter")["event_name"]
    value = state.metered(sent["customer"], name, sent["start_time"], sent["end_time"])
    shape = state.examples["billing.meter_event_summary"]
    found = {**shape, "meter": meter, "aggregated_value": value, "start_time": sent["start_time"], "end_time": sent["end_time"]}
    return listing([found] if value else [], f"/v1/billing/meters/{meter}/event_summaries")


def list_configurations(state: State, sent: Things) -> Things:
    return listing(state.all("billing_portal.configuration"), "/v1/billing_portal/configurations", sent.get("limit", 10))


def create_configuration(state: State, sent: Things) -> Things:
    return state.make("billing_portal.configuration", "bpc", **sent)


def update_configuration(state: State, sent: Things, configuration: str) -> Things:
    found = state.get(configuration, "billing_portal.configuration")
    found.update(sent)
    return found


def create_portal_session(state: State, sent: Things) -> Things:
    state.get(sent["customer"], "customer")
    return state.make("billing_portal.session", "bps", **sent, url=f"https://billing.stripe.com/p/session/{state.count}")


def create_session(state: State, sent: Things) -> Things:
    state.get(sent["customer"], "customer")
    for line in sent["line_items"]:
        metered = state.get(line["price"], "price")["recurring"]["usage_type"] == "metered"
        if metered == ("quantity" in line):
            raise Refusal("Metered prices take no quantity, licensed ones need it.")
    if sent.get("tax_id_collection", {}).get("enabled") and sent.get("customer_update", {}).get("name") != "auto":
        raise Refusal("Tax ID collection of an existing customer requires customer_update[name] to be auto.")
    if not 30 * 60 <= sent["expires_at"] - state.now() <= 86_400:
        raise Refusal("expires_at must be 30 minutes to 24 hours after the session is made.")
    if sent["subscription_data"]["billing_cycle_anchor"] <= state.now():
        raise Refusal("billing_cycle_anchor must be in the future.")
    shown = {
        name: sent[name] for name in ("mode", "customer", "client_reference_id", "metadata", "success_url", "cancel_url", "expires_at")
    }
    made = state.make("checkout.session", "cs", **shown, status="open", subscription=None, payment_status="unpaid", sent=sent)
    made["url"] = f"https://checkout.stripe.com/c/pay/{made['id']}"
    return made


def retrieve(kind: str) -> Callable[..., Things]:
    def act(state: State, sent: Things, object_id: str) -> Things:
        return _expanded(state, state.get(object_id, kind), sent.get("expand", []))

    return act


def _expanded(state: State, found: Things, names: list[str]) -> Things:
    """The references that were asked for as objects, where we know them."""
    if "latest_invoice" in names and found.get("latest_invoice"):
        found = {**found, "latest_invoice": state.objects[found["latest_invoice"]]}
    if "default_payment_method" in names:
        customer = state.objects.get(found["customer"], {})
        found = {**found, "default_payment_method": customer.get("invoice_settings", {}).get("default_payment_method")}
    return found


def retrieve_invoice(state: State, sent: Things, invoice: str) -> Things:
    """With its first ten lines."""
    found = state.get(invoice, "invoice")
    return {**found, "lines": listing(found["lines"]["data"], f"/v1/invoices/{invoice}/lines")}


def list_lines(state: State, sent: Things, invoice: str) -> Things:
    return listing(state.get(invoice, "invoice")["lines"]["data"], f"/v1/invoices/{invoice}/lines", sent.get("limit", 10))


def _routes() -> list[Route]:
    table: list[tuple[str, str, str, Callable[..., Things]]] = [
        ("GET", "prices", "_price_list_params:PriceListParams", list_prices),
        ("POST", "prices", "_price_create_params:PriceCreateParams", State.create_price),
        ("POST", "products", "_product_create_params:ProductCreateParams", State.create_product),
        ("GET", "products/ID", "_product_retrieve_params:ProductRetrieveParams", retrieve("product")),
        ("GET", "billing/meters", "billing._meter_list_params:MeterListParams", list_meters),
        ("POST", "billing/meters", "billing._meter_create_params:MeterCreateParams", State.create_meter),
        (
            "GET",
            "billing/meters/ID/event_summaries",
            "billing._meter_event_summary_list_params:MeterEventSummaryListParams",
            list_summaries,
        ),
        ("POST", "billing/meter_events", "billing._meter_event_create_params:MeterEventCreateParams", State.create_meter_event),
        ("POST", "customers", "_customer_create_params:CustomerCreateParams", State.create_customer),
        ("GET", "customers/ID", "_customer_retrieve_params:CustomerRetrieveParams", retrieve("customer")),
        ("POST", "checkout/sessions", "checkout._session_create_params:SessionCreateParams", create_session),
        ("GET", "checkout/sessions/ID", "checkout._session_retrieve_params:SessionRetrieveParams", retrieve("checkout.session")),
        ("GET", "billing_portal/configurations", "billing_portal._configuration_list_params:ConfigurationListParams", list_configurations),
        (
            "POST",
            "billing_portal/configurations",
            "billing_portal._configuration_create_params:ConfigurationCreateParams",
            create_configuration,
        ),
        (
            "POST",
            "billing_portal/configurations/ID",
            "billing_portal._configuration_update_params:ConfigurationUpdateParams",
            update_configuration,
        ),
        ("POST", "billing_portal/sessions", "billing_portal._session_create_params:SessionCreateParams", create_portal_session),
        ("GET", "subscriptions/ID", "_subscription_retrieve_params:SubscriptionRetrieveParams", retrieve("subscription")),
        (
            "POST",
            "subscriptions/ID",
            "_subscription_update_params:SubscriptionUpdateParams",
            lambda s, sent, i: s.update_subscription(i, sent),
        ),
        ("GET", "invoices/ID", "_invoice_retrieve_params:InvoiceRetrieveParams", retrieve_invoice),
        ("GET", "invoices/ID/lines", "_invoice_line_item_list_params:InvoiceLineItemListParams", list_lines),
    ]
    return [Route(method, re.compile("/v1/" + path.replace("ID", "([^/]+)")), parameters, act) for method, path, parameters, act in table]


ROUTES = _routes()


def find_route(method: str, path: str) -> tuple[Route, tuple[str, ...]]:
    """The route and the ids in its path. Raises ValueError for what nobody here asks of Stripe."""
    for route in ROUTES:
        found = route.path.fullmatch(path)
        if found and route.method == method:
            return route, found.groups()
    raise ValueError("an unknown address")
