"""Looking at Stripe's objects: what is mirrored is what Stripe says now, never what an event said when it was sent."""

from dataclasses import dataclass
from typing import Any

import stripe
from django.db import connection

from apps.payments import calls
from maas.tenancy import SystemUse, as_system

EXPANDED = {
    "subscription": ["default_payment_method", "latest_invoice"],
    "customer": ["invoice_settings.default_payment_method"],
}


@dataclass(frozen=True)
class Look:
    """Stripe's objects by kind, in the order in which they are to be written. `ticket` was drawn before the first was fetched."""

    ticket: int
    objects: tuple[tuple[str, dict[str, Any]], ...]

    @property
    def customer(self) -> str:
        """Stripe's customer that they belong to, or an empty text."""
        named = [found["id"] if kind == "customer" else id_of(found.get("customer")) for kind, found in self.objects]
        return next(filter(None, named), "")

    @property
    def subscription(self) -> str:
        """The subscription among them, or an empty text."""
        return next((found["id"] for kind, found in self.objects if kind == "subscription"), "")


def look_at(kind: str, object_id: str, *, retries: int = calls.RETRIES) -> Look:
    """Fetch an object (subscription, invoice, customer, session) and the subscription that it belongs to.

    Raises what Stripe raises. An object that Stripe no longer has is left out.
    """
    ticket = draw_ticket()
    found = _fetch(kind, object_id, retries)
    objects = [(kind, found)] if found else []
    behind = _subscription_behind(kind, found)
    more = _fetch("subscription", behind, retries) if behind else None
    return Look(ticket, tuple(objects + ([("subscription", more)] if more else [])))


def draw_ticket() -> int:
    """A number larger than all before it, in this and every other process."""
    with as_system(SystemUse.COLLECT_PAYMENTS), connection.cursor() as cursor:
        cursor.execute("SELECT nextval('payments_ticket')")
        return int(cursor.fetchone()[0])


def id_of(reference: Any) -> str:
    """The id behind what Stripe gives as an id, an expanded object or nothing."""
    return (reference.get("id", "") if isinstance(reference, dict) else reference) or ""


def _fetch(kind: str, object_id: str, retries: int) -> dict[str, Any] | None:
    v1 = calls.client().v1
    services: dict[str, Any] = {
        "subscription": v1.subscriptions, "invoice": v1.invoices, "customer": v1.customers, "session": v1.checkout.sessions,
    }  # fmt: skip
    expanded = {"expand": EXPANDED[kind]} if kind in EXPANDED else {}
    try:
        found = calls.plain(services[kind].retrieve(object_id, expanded, {"max_network_retries": retries}))
        return _with_every_line(found) if kind == "invoice" else found
    except stripe.InvalidRequestError as error:
        if error.http_status == 404:
            return None
        raise


def _with_every_line(invoice: dict[str, Any]) -> dict[str, Any]:
    """Stripe shows the first lines of a long invoice only."""
    if invoice["lines"]["has_more"]:
        lines = calls.client().v1.invoices.line_items.list(invoice["id"], {"limit": 100}).auto_paging_iter()
        invoice["lines"]["data"] = [calls.plain(line) for line in lines]
    return invoice


def _subscription_behind(kind: str, found: dict[str, Any] | None) -> str:
    if not found:
        return ""
    if kind == "session":
        return id_of(found.get("subscription"))
    if kind == "invoice":
        details = (found.get("parent") or {}).get("subscription_details") or {}
        return id_of(details.get("subscription"))
    return ""
