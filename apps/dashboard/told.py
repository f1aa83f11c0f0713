"""What an organisation was told about its money: alerts, payments, changes of plan and credit, newest first."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.utils.formats import date_format
from django.utils.translation import gettext as _

from apps.accounts.services import Tenant
from apps.audit import services as audit
from apps.audit.services import Filters
from apps.billing import alerts
from apps.billing.alerts import AlertSent
from apps.billing.months import this_month
from apps.billing.plans import plan_of
from apps.dashboard import bills, money

ACTIONS = ("billing.plan_changed", "billing.payment_overdue", "billing.payment_made", "billing.credit_granted", "billing.invoice_changed")
MOST = 30
INCLUDED = "included"  # the scope of alerts about the plan's units


@dataclass(frozen=True)
class Told:
    """A line of the log; `css` is the shape beside it."""

    at: datetime
    text: str
    css: str


def told_this_month(tenant: Tenant) -> dict[tuple[str, str, int], datetime]:
    """When which part of which budget was told of this month, by scope, subject and per cent."""
    rows = alerts.list_alerts(tenant)
    return {(row.scope, row.subject, row.threshold): row.created_at for row in rows if row.period == this_month()}


def log_of(tenant: Tenant) -> list[Told]:
    """The latest that was told. Raises Forbidden for who may not read the audit log, of which a part is shown."""
    names = {key.hex: name for key, name in bills.key_names(tenant).items()}
    sent = [Told(row.created_at, _alert(row, names), "warn" if row.threshold < 100 else "bad") for row in alerts.list_alerts(tenant)]
    entries, _more = audit.list_entries(tenant, Filters(actions=ACTIONS), limit=MOST)
    noted = [told for entry in entries if (told := _event(json.loads(entry.body)))]
    return sorted([*sent, *noted], key=lambda told: told.at, reverse=True)[:MOST]


def _alert(row: AlertSent, names: dict[str, str]) -> str:
    words = {"part": row.threshold, "month": date_format(row.period, "F"), "name": names.get(row.subject, row.subject)}
    if row.scope == INCLUDED:
        return _("%(part)d%% of the plan's %(n)s units were used in %(month)s.") % {**words, "n": f"{row.amount:,}"}
    words |= {"spent": money.exact(row.spent), "amount": money.short(row.amount)}
    if row.scope == "tenant":
        return _("%(part)d%% of the budget of %(amount)s were spent in %(month)s (%(spent)s).") % words
    return _("%(part)d%% of the spend limit of %(name)s, %(amount)s, were spent in %(month)s (%(spent)s).") % words


def _event(said: dict[str, Any]) -> Told | None:
    if said["result"] == "refused":
        return None
    before, after = said["before"] or {}, said["after"] or {}
    text, css = {
        "billing.plan_changed": lambda: (_plan(before, after), "ok"),
        "billing.payment_overdue": lambda: (_overdue(after), "bad"),
        "billing.payment_made": lambda: (_("A payment that was overdue is made."), "ok"),
        "billing.credit_granted": lambda: (_credit(after), "ok"),
        "billing.invoice_changed": lambda: (_invoice(said["label"], after), "ok" if after.get("state") == "paid" else "wait"),
    }[said["action"]]()
    return Told(datetime.fromtimestamp(said["at"] / 1000, UTC), text, css)


def _plan(before: dict[str, Any], after: dict[str, Any]) -> str:
    words = {"old": plan_of(before.get("plan", "")).title, "new": plan_of(after.get("plan", "")).title, "day": after.get("from", "")}
    if words["day"]:
        words["day"] = date_format(datetime.fromisoformat(words["day"]), "j F Y")
        return _("%(new)s will take the place of %(old)s on %(day)s.") % words
    return _("The plan changed from %(old)s to %(new)s.") % words


def _overdue(after: dict[str, Any]) -> str:
    until = date_format(datetime.fromisoformat(after["until"]), "j F, H:i")
    return _("A payment is overdue; calls stop on %(until)s UTC unless it is made.") % {"until": until}


def _credit(after: dict[str, Any]) -> str:
    words = {"amount": money.exact(abs(after["amount"])), "reason": after["reason"]}
    return (
        _("%(amount)s of credit were added: %(reason)s.") if after["amount"] > 0 else _("%(amount)s of credit were taken back: %(reason)s.")
    ) % words


def _invoice(number: str, after: dict[str, Any]) -> str:
    words = {"number": number or _("of Stripe"), "total": money.cents(after["total"]), "state": after["state"]}
    return _("Invoice %(number)s of %(total)s is %(state)s.") % words
