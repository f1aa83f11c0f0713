"""From what Stripe says to what we hold: subscriptions become plans and debts, invoices are copied.

| Stripe's status | what it means here |
| --- | --- |
| active, trialing | the plan of its price holds |
| past_due, unpaid | the plan holds, and the organisation is overdue since its latest invoice was finalised |
| canceled | the free plan follows, on the 1st after the last day that was paid for; overdue as long as the latest invoice is open |
| paused | as canceled, until it is resumed: Stripe makes no invoices meanwhile |
| incomplete, incomplete_expired | nothing: the first payment was never made |

A subscription that is to end with its month lets the free plan follow it. Of several, the latest one that lives counts.
"""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from django.utils import timezone

from apps.accounts.services import Tenant
from apps.billing import invoices, subscriptions
from apps.billing.plans import every_plan
from apps.payments.fetching import Look, id_of
from apps.payments.models import Customer, Subscription
from apps.usage.periods import month_of
from maas.actors import SYSTEM, acting
from maas.tenancy import SystemUse, as_system

LIVING = ("active", "trialing", "past_due", "unpaid")
OVERDUE = ("past_due", "unpaid")
FREE = "free"
NEWER = """INSERT INTO payments_fetched (id, ticket) VALUES (%s, %s)
    ON CONFLICT (id) DO UPDATE SET ticket = excluded.ticket WHERE payments_fetched.ticket < excluded.ticket"""


def write(tenant_id: UUID, look: Look) -> None:
    """Write what was seen, in the caller's transaction as the tenant; what was looked at later and written before stays.

    Raises ValueError for a subscription to something that is none of our plans.
    """
    tenant = Tenant.objects.get(pk=tenant_id)
    Customer.objects.get_or_create(tenant=tenant)
    Customer.objects.select_for_update().get(tenant=tenant)  # one writer a tenant at a time
    for kind, found in look.objects:
        if kind in WRITERS and _is_newest(found["id"], look.ticket):
            WRITERS[kind](tenant, found)


def _is_newest(object_id: str, ticket: int) -> bool:
    with as_system(SystemUse.COLLECT_PAYMENTS), connection.cursor() as cursor:
        cursor.execute(NEWER, [object_id, ticket])
        return bool(cursor.rowcount)


# ---------- subscriptions ----------
def _write_subscription(tenant: Tenant, found: dict[str, Any]) -> None:
    was_owing = _owing_since(tenant)
    was_ours = living(tenant) is not None
    item = _licensed_item(found)
    Subscription.objects.update_or_create(
        stripe_id=found["id"],
        defaults={
            "tenant": tenant, "customer": id_of(found["customer"]), "status": found["status"], "plan": item["price"]["metadata"]["plan"],
            "item_id": item["id"], "price_id": item["price"]["id"], "metered_item_id": _metered_item(found),
            "period_start": _moment(item["current_period_start"]), "period_end": _moment(item["current_period_end"]),
            "cancel_at_period_end": bool(found["cancel_at_period_end"]), "started_at": _moment(found["start_date"]),
            "ended_at": _ended_at(found), "owing_since": _debt(found),
        },
    )  # fmt: skip
    _note_card(tenant, found.get("default_payment_method"))
    _settle_plan(tenant, was_ours)
    _settle_debt(tenant, was_owing)


def _licensed_item(found: dict[str, Any]) -> dict[str, Any]:
    """The item that the plan is paid by; the other one is metered."""
    items = found["items"]["data"]
    licensed = [item for item in items if (item["price"].get("metadata") or {}).get("plan") in every_plan()]
    if len(licensed) != 1:
        raise ValueError(f"The subscription {found['id']} has {len(licensed)} prices of a plan; it must have one, made by stripe_setup.")
    return licensed[0]  # type: ignore[no-any-return]


def _metered_item(found: dict[str, Any]) -> str:
    items = [item["id"] for item in found["items"]["data"] if (item["price"].get("recurring") or {}).get("usage_type") == "metered"]
    return items[0] if items else ""


def _ended_at(found: dict[str, Any]) -> datetime | None:
    if found["status"] in ("canceled", "incomplete_expired"):
        return _moment(found.get("ended_at") or found.get("canceled_at")) or timezone.now()
    return None


def _debt(found: dict[str, Any]) -> datetime | None:
    """Since when its latest invoice is owed; None for one that is paid, or written off."""
    latest = found.get("latest_invoice")
    invoice = latest if isinstance(latest, dict) else {}
    is_owed = found["status"] in OVERDUE or (found["status"] == "canceled" and invoice.get("status") == "open")
    finalised = (invoice.get("status_transitions") or {}).get("finalized_at") or invoice.get("created") or found["start_date"]
    return _moment(finalised) if is_owed else None


def _settle_plan(tenant: Tenant, was_ours: bool) -> None:
    found = living(tenant)
    if found is not None:
        _collect_by(tenant, "stripe", found.started_at)
        subscriptions.change_plan(tenant, plan=FREE if found.cancel_at_period_end else found.plan)
    elif was_ours:
        ended = _last_end(tenant)
        # As on the last moment that was paid for: billing lets the free plan follow on the 1st after it, which may be now.
        subscriptions.change_plan(tenant, plan=FREE, now=ended - timedelta(microseconds=1))
        _collect_by(tenant, "manual", ended)
        subscriptions.change_plan(tenant, plan=FREE)


def _collect_by(tenant: Tenant, collector: str, at: datetime) -> None:
    with acting(SYSTEM):
        subscriptions.set_collector(tenant, collected_by=collector, at=at)


def _settle_debt(tenant: Tenant, was_owing: datetime | None) -> None:
    """What the operator noted about invoices of their own stays: only a debt that Stripe told of is ended by Stripe."""
    owing = _owing_since(tenant)
    with acting(SYSTEM):
        if owing:
            subscriptions.note_overdue(tenant, since=owing)
        elif was_owing:
            subscriptions.note_paid(tenant)


def _last_end(tenant: Tenant) -> datetime:
    rows = Subscription.objects.filter(tenant=tenant, ended_at__isnull=False)
    return rows.order_by("-ended_at").values_list("ended_at", flat=True).first() or timezone.now()


def living(tenant: Tenant) -> Subscription | None:
    """The subscription that counts, in the caller's transaction."""
    return Subscription.objects.filter(tenant=tenant, status__in=LIVING).order_by("-started_at").first()


def _owing_since(tenant: Tenant) -> datetime | None:
    rows = Subscription.objects.filter(tenant=tenant, owing_since__isnull=False)
    return rows.order_by("owing_since").values_list("owing_since", flat=True).first()


# ---------- customers and invoices ----------
def _write_customer(tenant: Tenant, found: dict[str, Any]) -> None:
    """One that was deleted is forgotten, so that the next checkout makes another; Stripe ends its subscriptions itself."""
    mine = Customer.objects.filter(tenant=tenant, stripe_id=found["id"])
    if found.get("deleted"):
        customer = mine.first()
        mine.update(stripe_id="", card={}, attempt=customer.attempt + 1 if customer else 0)
        return
    _note_card(tenant, (found.get("invoice_settings") or {}).get("default_payment_method"))


def _note_card(tenant: Tenant, method: Any) -> None:
    card = method.get("card") if isinstance(method, dict) else None
    if card:
        shown = {name: card.get(name) for name in ("brand", "last4", "exp_month", "exp_year")}
        Customer.objects.filter(tenant=tenant).update(card=shown)


def _write_invoice(tenant: Tenant, found: dict[str, Any]) -> None:
    moved = found.get("status_transitions") or {}
    before_tax = found["total"] if found.get("total_excluding_tax") is None else found["total_excluding_tax"]
    with acting(SYSTEM):
        invoices.mirror_invoice(
            tenant, stripe_id=found["id"], lines=[_line(tenant, line) for line in found["lines"]["data"]],
            number=found.get("number") or "", state=found.get("status") or "draft", currency=found["currency"],
            period=month_of(_moment(found["period_start"])),  # what was used is paid at the end of its month
            subtotal_cents=found["subtotal"], tax_cents=found["total"] - before_tax, total_cents=found["total"],
            issued_at=_moment(moved.get("finalized_at")), due_at=_moment(found.get("due_date")), paid_at=_moment(moved.get("paid_at")),
            page_url=found.get("hosted_invoice_url") or "", pdf_url=found.get("invoice_pdf") or "",
        )  # fmt: skip


def _line(tenant: Tenant, line: dict[str, Any]) -> dict[str, Any]:
    details = (line.get("parent") or {}).get("subscription_item_details") or {}
    item = details.get("subscription_item") or ""
    kind = "plan" if details else "other"
    if item and Subscription.objects.filter(tenant=tenant, metered_item_id=item).exists():
        kind = "usage"
    return {
        "kind": "proration" if details.get("proration") else kind,
        "text": line.get("description") or "",
        "amount_cents": line["amount"],
    }


def _moment(seconds: Any) -> Any:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


WRITERS = {"subscription": _write_subscription, "customer": _write_customer, "invoice": _write_invoice}
