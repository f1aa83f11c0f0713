"""What stops calls, or is about to: a payment that is overdue, a limit that is reached. The same on every page that says it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from apps.accounts.services import Tenant
from apps.billing import invoices, subscriptions, terms
from apps.billing.invoices import InvoiceState
from apps.billing.months import end_of, this_month
from apps.billing.plans import plan_of
from apps.dashboard import bills, money
from apps.files import room

NEAR = 80  # per cent


@dataclass(frozen=True)
class Alarm:
    """A note: `css` is bad or warn, `code` what callers get, `pay` where an invoice is paid, `wants` payment, billing or files."""

    css: str
    title: str
    text: str
    code: str = ""
    pay: str = ""
    wants: str = "billing"


def alarms_of(tenant: Tenant, *, near: bool = False) -> list[Alarm]:
    """What needs somebody now, the worst first; with `near` also what soon will."""
    found = list(_payment(tenant))
    for row in terms.standings_of(tenant, this_month()):
        if row.cap is None or row.reason == "payment_overdue":
            continue
        if row.used + row.reserved >= row.cap:
            found.append(_reached(tenant, row))
        elif near and row.scope == "tenant" and row.used * 100 >= row.cap * NEAR:
            found.append(_close(tenant, row))
    return [*found, *(_files(tenant) if near else ())]


def _payment(tenant: Tenant) -> Iterator[Alarm]:
    since = subscriptions.get_account(tenant).overdue_since
    if since is None:
        return
    until = terms.cut_off_at(since)
    owed = _owed(tenant)
    title = _("A payment of %(amount)s is overdue.") % {"amount": money.cents(owed.total_cents)} if owed else _("A payment is overdue.")
    words = {"when": date_format(until, "j F, H:i")}
    if until > timezone.now():
        text = _("Calls go on until %(when)s UTC, then stop with 402 until it is paid. Nothing is deleted.")
    else:
        text = _("Calls have stopped with 402 since %(when)s UTC. They go on as soon as it is paid. Nothing is deleted.")
    yield Alarm("bad", title, text % words, _ref(owed), owed.page_url if owed else "", "payment")


def _owed(tenant: Tenant) -> Any:
    """The oldest invoice that should have been paid by now, None where that is not known."""
    rows, _more = invoices.list_invoices(tenant)
    return next((row for row in reversed(rows) if _is_late(row)), None)


def _is_late(invoice: Any) -> bool:
    if invoice.state == InvoiceState.OPEN:
        return invoice.due_at is None or invoice.due_at <= timezone.now()
    return bool(invoice.state == InvoiceState.UNCOLLECTIBLE)


def _ref(invoice: Any) -> str:
    return f"payment_overdue · {invoice.number}" if invoice and invoice.number else "payment_overdue"


def _reached(tenant: Tenant, row: Any) -> Alarm:
    first = {"day": date_format(end_of(row.period), "j F"), "n": f"{row.cap:,}", "plan": plan_of(tenant.plan).title}
    if row.scope != "tenant":
        title = _("The spend limit of %(name)s is reached.") % {"name": _subject(tenant, row)}
        return Alarm("warn", title, _("Its calls get 402 until %(day)s; others go on. Raise the limit to go on now.") % first, row.reason)
    title, text = _texts(row.reason)
    return Alarm("bad", title % first, text % first, row.reason)


def _texts(reason: str) -> tuple[str, str]:
    if reason == "budget_exceeded":
        return _("The budget of this month is spent."), _("Calls get 402 until %(day)s. Raise the budget to go on now.")
    more = _("Calls get 402 until %(day)s. Add credit or change the plan to go on now.")
    if reason == "insufficient_credit":
        return _("The prepaid credit is used up."), more
    return _("The %(n)s units of the %(plan)s plan are used."), more


def _close(tenant: Tenant, row: Any) -> Alarm:
    words = {"part": row.used * 100 // row.cap, "left": f"{max(0, row.cap - row.used - row.reserved):,}"}
    words |= {"day": date_format(end_of(row.period), "j F")}
    if row.reason == "budget_exceeded":
        title = _("%(part)d%% of the units that the budget pays for are used.")
    elif row.reason == "insufficient_credit":
        title = _("%(part)d%% of the units that the plan and the credit pay for are used.")
    else:
        title = _("%(part)d%% of the plan's units are used.")
    return Alarm("warn", title % words, _("After %(left)s more, calls get 402 until %(day)s.") % words, row.reason)


def _subject(tenant: Tenant, row: Any) -> str:
    if row.scope == "model":
        return str(row.subject)
    names = {key.hex: name for key, name in bills.key_names(tenant).items()}
    return names.get(row.subject, _("a deleted key"))


def _files(tenant: Tenant) -> Iterator[Alarm]:
    most = plan_of(tenant.plan).storage_gigabytes
    if most is not None and room.stored_bytes(tenant) >= most * room.GIGABYTE:
        title = _("The %(n)d GB for files are full.") % {"n": most}
        text = _("New uploads get 402. Calls and running jobs go on. Delete files that are not needed, or change the plan.")
        yield Alarm("warn", title, text, "quota_exceeded", wants="files")
