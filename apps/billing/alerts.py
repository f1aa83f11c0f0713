"""Telling people that a part of a budget, or of what their plan includes, is used: once a month each."""

from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from apps.accounts import mails
from apps.accounts.members import addresses_of
from apps.accounts.services import Role, Tenant
from apps.billing import terms
from apps.billing.budgets import label_of, subject_id
from apps.billing.history import plan_in
from apps.billing.models import AlertSent, Budget
from apps.billing.money import dollars
from apps.billing.months import hold, this_month
from apps.billing.thresholds import INCLUDED, Mark, marks_of, unsent
from apps.usage import allowances
from maas import ids
from maas.events import BudgetReached, publish
from maas.tenancy import as_tenant

__all__ = ["AlertSent"]  # what the layers above may name

log = structlog.get_logger(__name__)
LIMIT = 500  # rows of one sweep
INSERT = """INSERT INTO billing_alertsent (id, created_at, tenant_id, period, scope, subject, threshold, spent, amount)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (tenant_id, period, scope, subject, threshold) DO NOTHING"""


@dataclass(frozen=True)
class Reached:
    """A mark and the units that have reached it."""

    mark: Mark
    used: int

    @property
    def spent(self) -> int:
        return self.mark.spent(self.used)


def sweep_alerts() -> int:
    """Tell of everything that was reached since the last time; how many alerts that were. Any number may sweep at once."""
    due = {(tenant_id, standing.period) for tenant_id, standing in allowances.due_alerts(LIMIT)}
    told = 0
    for tenant_id, period in sorted(due):
        try:
            told += _sweep(tenant_id, period)
        except Exception:  # one tenant's trouble must not keep the others' alerts back; the next sweep tries again
            log.exception("alert not sent", tenant=str(tenant_id), period=str(period))
    return told


def _sweep(tenant_id: UUID, period: date) -> int:
    with as_tenant(tenant_id):
        hold(tenant_id, period)
        tenant = Tenant.objects.get(pk=tenant_id)
        told = tell(tenant, period)
        terms.apply_caps(tenant, period)  # the next mark takes the place of the one reached
        return len(told)


def tell(tenant: Tenant, period: date) -> list[Reached]:
    """Publish and mail what was reached in a month and not told yet, in the caller's transaction."""
    found = [reached for reached in _reached(tenant, period) if _note(tenant.id, period, reached)]
    for reached in found:
        publish(BudgetReached(tenant_id=tenant.id, label=_label(tenant, reached.mark), facts=_facts(period, reached)))
    for last in _last_of_each(found):
        _mail(tenant, period, last)
    return found


def list_alerts(tenant: Tenant, *, limit: int = 100) -> list[AlertSent]:
    """What was told, newest first."""
    with as_tenant(tenant.id):
        return list(AlertSent.objects.filter(tenant=tenant).order_by("-id")[:limit])


def _reached(tenant: Tenant, period: date) -> list[Reached]:
    budgets = Budget.objects.filter(tenant=tenant).order_by("scope", "subject")
    marks = unsent(tenant.id, period, marks_of(plan_in(tenant.id, period), budgets))
    used = {(row.scope, row.subject): row.used for row in allowances.standings(tenant.id, period)}
    return [Reached(mark, used[mark.row]) for mark in marks if used.get(mark.row, 0) >= mark.units]


def _note(tenant_id: UUID, period: date, reached: Reached) -> bool:
    """Whether this one is ours to tell: the unique row is."""
    mark = reached.mark
    place: list[Any] = [tenant_id, period, mark.scope, mark.subject, mark.threshold, reached.spent, mark.amount]
    with connection.cursor() as cursor:
        cursor.execute(INSERT, [ids.uuid7(), timezone.now(), *place])
        return bool(cursor.rowcount)


def _facts(period: date, reached: Reached) -> dict[str, object]:
    mark = reached.mark
    return {
        "scope": mark.scope, "subject": subject_id(mark.scope, mark.subject), "period": f"{period:%Y-%m}",
        "threshold": mark.threshold, "spent": reached.spent, "amount": mark.amount,
    }  # fmt: skip


def _last_of_each(found: list[Reached]) -> list[Reached]:
    """Who runs past 50 and 80 per cent at once needs one mail."""
    highest: dict[tuple[str, str], Reached] = {}
    for reached in found:
        place = (reached.mark.scope, reached.mark.subject)
        if place not in highest or highest[place].mark.threshold < reached.mark.threshold:
            highest[place] = reached
    return list(highest.values())


def _label(tenant: Tenant, mark: Mark) -> str:
    return tenant.name if mark.scope == INCLUDED else label_of(tenant, mark.scope, mark.subject)


# ---------- mail ----------
def _mail(tenant: Tenant, period: date, reached: Reached) -> None:
    mark = reached.mark
    words = {
        "tenant": tenant.name, "subject": _label(tenant, mark), "part": mark.threshold, "month": date_format(period, "F Y"),
        "spent": _amount(mark, reached.spent), "amount": _amount(mark, mark.amount),
    }  # fmt: skip
    paragraphs = [_text(mark.scope) % words, _next(tenant, mark), f"{settings.MAAS_URL}/billing"]
    to = addresses_of(tenant, Role.OWNER, Role.ADMIN)
    mails.mail_after_commit(tenant.id, subject=_subject(mark.scope) % words, paragraphs=paragraphs, to=to)


def _amount(mark: Mark, value: int) -> str:
    return _("%(n)s units") % {"n": f"{value:,}"} if mark.scope == INCLUDED else dollars(value)


def _subject(scope: str) -> str:
    if scope == INCLUDED:
        return _("%(part)d%% of the units of %(tenant)s are used this month")
    return _("%(part)d%% of a budget of %(tenant)s are spent")


def _text(scope: str) -> str:
    return {
        INCLUDED: _("%(tenant)s has used %(spent)s of the %(amount)s that its plan includes for %(month)s."),
        "tenant": _("%(tenant)s has spent %(spent)s of its budget of %(amount)s for %(month)s."),
        "key": _("The key '%(subject)s' of %(tenant)s has spent %(spent)s of its %(amount)s for %(month)s."),
        "model": _("The model '%(subject)s' has cost %(tenant)s %(spent)s of the %(amount)s set for %(month)s."),
    }[scope]


def _next(tenant: Tenant, mark: Mark) -> str:
    """What follows when all of it is used."""
    if mark.scope == INCLUDED:
        if plan_in(tenant.id, this_month()).overage:
            return _("What exceeds it goes on the invoice at your plan's price.")
        return _("At 100% calls are refused unless there is prepaid credit. You can add credit or change the plan:")
    hard = Budget.objects.filter(tenant=tenant, scope=mark.scope, subject=mark.subject, hard=True).exists()
    return _("At 100% calls are refused. You can change the budget:") if hard else _("Nothing is refused: this budget only alerts.")
