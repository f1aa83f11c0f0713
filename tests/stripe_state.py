"""What the stand-in for Stripe knows, and what each request does to it. One lock is held around all of this."""

import copy
import gzip
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

Things = dict[str, Any]
DAY = 86_400
CARD = {"brand": "visa", "last4": "4242", "exp_month": 8, "exp_year": 2040}


class Refusal(Exception):
    """What Stripe says no to: the status and the error that it answers."""

    def __init__(self, message: str, *, status: int = 400, kind: str = "invalid_request_error", code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, **({"code": code} if code else {})}}


def first_of(moment: float) -> int:
    """The first moment of the UTC month after this one, Unix seconds."""
    day = datetime.fromtimestamp(moment, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return int((day + timedelta(days=32)).replace(day=1).timestamp())


def month_of(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m")


class State:
    """Objects by their ids, shaped like Stripe's published examples."""

    def __init__(self, examples: Path, emit: Callable[[str, Things], None]) -> None:
        with gzip.open(examples) as file:
            self.examples: Things = json.load(file)["resources"]
        self.emit = emit
        self.objects: dict[str, Things] = {}
        self.meter_events: list[Things] = []  # each with its `received`
        self.owed_prorations: dict[str, list[Things]] = {}  # by subscription
        self.declining: set[str] = set()  # customers whose card is refused
        self.count = 0
        self.account = uuid4().hex[:8]  # so that two stand-ins never give the same id

    def now(self) -> int:
        return int(time.time())

    def make(self, example: str, prefix: str, **fields: Any) -> Things:
        self.count += 1
        made = {**copy.deepcopy(self.examples[example]), "created": self.now(), "metadata": {}, **fields}
        made["id"] = fields.get("id") or f"{prefix}_test{self.account}{self.count:06d}"
        self.objects[made["id"]] = made
        return made

    def get(self, object_id: str, kind: str) -> Things:
        found = self.objects.get(object_id)
        if found is None or found["object"] != kind:
            raise Refusal(f"No such {kind}: '{object_id}'", status=404, code="resource_missing")
        return found

    def all(self, kind: str) -> list[Things]:
        return [found for found in self.objects.values() if found["object"] == kind]

    # ---------- what is for sale ----------
    def create_meter(self, sent: Things) -> Things:
        if any(meter["event_name"] == sent["event_name"] for meter in self.all("billing.meter")):
            raise Refusal(f"A meter with the event name {sent['event_name']} exists already.")
        return self.make("billing.meter", "mtr", **sent)

    def create_product(self, sent: Things) -> Things:
        if sent.get("id") in self.objects:
            raise Refusal("Product already exists.", code="resource_already_exists")
        return self.make("product", "prod", **sent)

    def create_price(self, sent: Things) -> Things:
        self.get(sent["product"], "product")
        if any(price["lookup_key"] == sent.get("lookup_key") for price in self.all("price")):
            raise Refusal(f"A price already uses the lookup key {sent['lookup_key']}.")
        recurring = {"interval_count": 1, "meter": None, "usage_type": "licensed", "trial_period_days": None, **sent["recurring"]}
        if (recurring["usage_type"] == "metered") != bool(recurring["meter"]):
            raise Refusal("A metered price needs a meter.")
        return self.make("price", "price", **{**sent, "recurring": recurring, "unit_amount_decimal": str(sent["unit_amount"])})

    # ---------- customers ----------
    def create_customer(self, sent: Things) -> Things:
        method = {**copy.deepcopy(self.examples["payment_method"]), "id": "pm_card", "card": dict(CARD)}
        settings = {"custom_fields": None, "default_payment_method": method, "footer": None, "rendering_options": None}
        return self.make("customer", "cus", **{**sent, "invoice_settings": settings, "discount": None})

    def delete_customer(self, customer: str) -> None:
        """As in Stripe's own dashboard: its subscriptions end with it."""
        for subscription in self.living(customer):
            self.end(subscription)
        gone = self.objects[customer] = {"id": customer, "object": "customer", "deleted": True}
        self.emit("customer.deleted", gone)

    # ---------- meters ----------
    def create_meter_event(self, sent: Things) -> Things:
        now = self.now()
        if not any(meter["event_name"] == sent["event_name"] for meter in self.all("billing.meter")):
            raise Refusal(f"No active meter found for event name {sent['event_name']}.")
        customer = self.get(sent["payload"]["stripe_customer_id"], "customer")
        value = sent["payload"].get("value", "")
        if customer.get("deleted") or not value.lstrip("-").isdecimal():
            raise Refusal("The payload needs a customer that is there and a whole number as its value.")
        if not now - 35 * DAY <= sent.get("timestamp", now) <= now + 300:
            raise Refusal("The timestamp must be within the past 35 days or up to 5 minutes in the future.")
        known = {event["identifier"] for event in self.meter_events if event["received"] > now - DAY}
        if sent.get("identifier") in known:
            raise Refusal(f"An event already exists with identifier {sent['identifier']}.")
        event = {**copy.deepcopy(self.examples["billing.meter_event"]), "timestamp": now, **sent, "created": now}
        self.meter_events.append({**event, "received": now})
        return event

    def metered(self, customer: str, event_name: str, start: float, end: float) -> int:
        """The sum of a meter's events from `start` up to `end`."""
        mine = [one for one in self.meter_events if one["event_name"] == event_name and one["payload"]["stripe_customer_id"] == customer]
        return sum(int(one["payload"]["value"]) for one in mine if start <= one["timestamp"] < end)

    # ---------- subscriptions ----------
    def living(self, customer: str | None = None) -> list[Things]:
        rows = [one for one in self.all("subscription") if one["status"] not in ("canceled", "incomplete_expired")]
        return [one for one in rows if customer in (None, one["customer"])]

    def make_item(self, price: Things, start: int, end: int, quantity: int | None) -> Things:
        self.count += 1
        made = copy.deepcopy(self.examples["subscription"]["items"]["data"][0])
        return {**made, "id": f"si_test{self.account}{self.count:06d}", "price": price, "quantity": quantity,
                "current_period_start": start, "current_period_end": end}  # fmt: skip

    def make_subscription(self, session: Things, *, status: str = "active") -> Things:
        now, anchor = self.now(), session["sent"]["subscription_data"]["billing_cycle_anchor"]
        if not now < anchor <= first_of(now):
            raise Refusal("billing_cycle_anchor must be a future timestamp that is not after the next natural billing date.")
        lines = session["sent"]["line_items"]
        items = [self.make_item(self.get(line["price"], "price"), now, anchor, line.get("quantity")) for line in lines]
        data = {"object": "list", "data": items, "has_more": False, "url": "/v1/subscription_items"}
        return self.make(
            "subscription", "sub", customer=session["customer"], items=data, status=status, start_date=now, billing_cycle_anchor=anchor,
            metadata=session["sent"]["subscription_data"].get("metadata", {}), cancel_at_period_end=False, cancel_at=None, canceled_at=None,
            ended_at=None, trial_end=None, trial_start=None, pause_collection=None, pending_update=None, latest_invoice=None,
        )  # fmt: skip

    def update_subscription(self, object_id: str, sent: Things) -> Things:
        subscription = self.get(object_id, "subscription")
        if subscription["status"] == "canceled":
            raise Refusal("A canceled subscription can only update its cancellation_details and metadata.")
        for change in sent.get("items", []):
            self._swap(subscription, change, sent.get("proration_behavior", "create_prorations"))
        subscription["cancel_at_period_end"] = sent.get("cancel_at_period_end", subscription["cancel_at_period_end"])
        self.emit("customer.subscription.updated", subscription)
        return subscription

    def _swap(self, subscription: Things, change: Things, behaviour: str) -> None:
        item = next((one for one in subscription["items"]["data"] if one["id"] == change.get("id")), None)
        if item is None:
            raise Refusal(f"No such subscription item: '{change.get('id')}'", status=404)
        price = self.get(change["price"], "price")
        difference, item["price"] = price["unit_amount"] - item["price"]["unit_amount"], price
        if behaviour == "create_prorations" and difference:
            left = item["current_period_end"] - self.now()
            part = round(difference * left / (item["current_period_end"] - first_before(item["current_period_end"])))
            self.owed_prorations.setdefault(subscription["id"], []).append(
                self.line(part, "Remaining time", item=item["id"], proration=True)
            )

    def end(self, subscription: Things, ended_at: int | None = None) -> None:
        """It is over, with everything that it was."""
        subscription.update(status="canceled", ended_at=ended_at or self.now(), canceled_at=ended_at or self.now())
        self.emit("customer.subscription.deleted", subscription)

    def period(self, subscription: Things) -> tuple[int, int]:
        item = subscription["items"]["data"][0]
        return item["current_period_start"], item["current_period_end"]

    def item(self, subscription: Things, usage_type: str) -> Things:
        return next(item for item in subscription["items"]["data"] if item["price"]["recurring"]["usage_type"] == usage_type)

    # ---------- invoices ----------
    def line(self, amount: int, text: str, *, item: str = "", proration: bool = False, quantity: int = 1, price: Things | None = None,
             period: tuple[int, int] = (0, 0)) -> Things:  # fmt: skip
        self.count += 1
        made = copy.deepcopy(self.examples["invoice"]["lines"]["data"][0])
        details = {"proration": proration, "subscription_item": item, "subscription": None, "invoice_item": None}
        kind = {"type": "subscription_item_details", "invoice_item_details": None, "subscription_item_details": details}
        named = {"price": price["id"], "product": price["product"]} if price else None
        each = str(price["unit_amount"]) if price else None
        pricing = {"type": "price_details", "unit_amount_decimal": each, "price_details": named}
        return {
            **made, "id": f"il_test{self.account}{self.count:06d}", "amount": amount, "subtotal": amount, "description": text,
            "quantity": quantity, "parent": kind, "pricing": pricing, "period": {"start": period[0], "end": period[1]},
        }  # fmt: skip

    def make_invoice(self, subscription: Things, lines: list[Things], reason: str, period: tuple[int, int]) -> Things:
        details = {"metadata": subscription["metadata"], "subscription": subscription["id"], "subscription_proration_date": None}
        invoice = self.make(
            "invoice", "in", customer=subscription["customer"], billing_reason=reason, status="draft", number=None, due_date=None,
            lines={"object": "list", "data": lines, "has_more": False, "url": "/v1/invoices/lines"},
            parent={"type": "subscription_details", "subscription_details": details, "quote_details": None},
            period_start=period[0], period_end=period[1], attempted=False, total_taxes=[], starting_balance=0,
            status_transitions={"finalized_at": None, "marked_uncollectible_at": None, "paid_at": None, "voided_at": None},
            hosted_invoice_url=None, invoice_pdf=None, amount_overpaid=0, shipping_cost=None, discounts=[],
        )  # fmt: skip
        self._add_up(invoice)
        subscription["latest_invoice"] = invoice["id"]
        self.emit("invoice.created", invoice)
        return invoice

    def _add_up(self, invoice: Things) -> None:
        total = sum(line["amount"] for line in invoice["lines"]["data"])
        invoice.update(subtotal=total, total=total, amount_due=max(total, 0), amount_remaining=max(total, 0), amount_paid=0,
                       subtotal_excluding_tax=total, total_excluding_tax=total)  # fmt: skip

    def finalise(self, invoice: Things) -> None:
        """The meters are read at this moment; then the card is charged."""
        subscription = self.objects[invoice["parent"]["subscription_details"]["subscription"]]
        if invoice["billing_reason"] == "subscription_cycle":
            item = self.item(subscription, "metered")
            price = item["price"]
            meter = self.get(price["recurring"]["meter"], "billing.meter")
            span = (invoice["period_start"], invoice["period_end"])
            used = max(0, self.metered(invoice["customer"], meter["event_name"], *span))
            text = "Use above the plan"
            invoice["lines"]["data"].append(
                self.line(used * price["unit_amount"], text, item=item["id"], quantity=used, price=price, period=span)
            )
            self._add_up(invoice)
        self.count += 1
        invoice.update(status="open", number=f"{self.account}-{self.count:04d}", hosted_invoice_url="https://invoice.stripe.com/i/x",
                       invoice_pdf="https://pay.stripe.com/invoice/x/pdf", effective_at=self.now())  # fmt: skip
        invoice["status_transitions"]["finalized_at"] = self.now()
        self.emit("invoice.finalized", invoice)
        self.charge(invoice)

    def charge(self, invoice: Things) -> None:
        """Take the money, or note that the card was refused."""
        subscription = self.objects[invoice["parent"]["subscription_details"]["subscription"]]
        invoice["attempted"] = True
        if invoice["customer"] in self.declining and invoice["amount_due"]:
            self.emit("invoice.payment_failed", invoice)
            self._set_status(subscription, "past_due")
            return
        invoice.update(status="paid", amount_paid=invoice["amount_due"], amount_remaining=0)
        invoice["status_transitions"]["paid_at"] = self.now()
        self.emit("invoice.paid", invoice)
        self._set_status(subscription, "active")

    def _set_status(self, subscription: Things, status: str) -> None:
        if subscription["status"] not in (status, "canceled"):
            subscription["status"] = status
            self.emit("customer.subscription.updated", subscription)


def first_before(moment: int) -> int:
    """The first moment of the month that ends with this one."""
    day = datetime.fromtimestamp(moment - 1, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return int(day.timestamp())
