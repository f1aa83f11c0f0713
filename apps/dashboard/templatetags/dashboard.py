"""Tags and filters of the dashboard's templates."""

from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django import template
from django.db import DatabaseError
from django.forms import BoundField
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from apps.accounts import impersonation
from apps.accounts import services as accounts
from apps.dashboard import deeds, money, progress, texts, words
from apps.dashboard.example import before_sign_up
from apps.dashboard.page import may_write
from apps.jobs import services as jobs
from maas import ids

register = template.Library()

register.filter("ago", texts.ago)
register.filter("ahead", texts.ahead)
register.filter("day", texts.day)
register.filter("duration", texts.duration)
register.filter("size", texts.size)
register.filter("task_words", words.task_words)
register.filter("rate_words", words.rate_words)
register.filter("job_state", words.job_state)


@register.filter
def number(value: float | None) -> str:
    """1240 as 1,240; nothing for nothing."""
    return "" if value is None else f"{value:,}"


@register.filter
def per_cent(value: float) -> str:
    """A score of 0 to 1 as 94.1%, tiny ones as <0.1%."""
    return "<0.1%" if value < 0.001 else f"{100 * value:.1f}%"


@register.filter
def stamp(moment: datetime | None) -> str:
    """A moment in UTC for a hover text: 2026-11-21 07:05:12 UTC."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else ""


@register.simple_tag
def took(start: datetime | None, end: datetime | None) -> str:
    """The time between two moments, or nothing while one is missing."""
    length: timedelta | None = end - start if start and end else None
    return texts.duration(length)


@register.simple_tag(takes_context=True)
def frame(context: template.Context) -> dict[str, Any]:
    """What the sidebar shows: the organisations to switch to and the number of active jobs.

    An error page is drawn in the frame too, so a database that does not answer leaves out what it would say.
    """
    request = context.get("request")
    tenant = getattr(request, "tenant", None)
    if request is None or tenant is None:
        return {"tenant": None, "may_write": False}
    try:
        active = jobs.count_active(tenant)
        return {
            "tenant": tenant,
            "organisations": accounts.list_tenants(request.user),
            "active_jobs": active,
            "may_write": may_write(request),
        }
    except DatabaseError:
        return {"tenant": tenant, "organisations": [], "active_jobs": 0, "may_write": False}


@register.inclusion_tag("parts/field.html")
def field(bound: BoundField, **attributes: Any) -> dict[str, Any]:
    """A form's field with label, hint and errors.

    `label` and `hint` replace the form's own, `affix` stands before the control; the rest are attributes of it, with - written
    as _.
    """
    affix = attributes.pop("affix", "")
    label, hint = attributes.pop("label", bound.label), attributes.pop("hint", bound.help_text)
    attributes = {name.replace("_", "-"): value for name, value in attributes.items()}
    bound.help_text = hint
    bound.field.help_text = hint
    if "placeholder" not in attributes:
        bound.field.widget.attrs.pop("placeholder", None)
    control: SafeString = bound.as_widget(attrs=attributes)
    return {"field": bound, "label": label, "hint": hint, "control": control, "affix": affix}


@register.filter
def summary(form: Any) -> str:
    """How many fields need a change, as the note on top of a form says it."""
    count = len(form.errors)
    numbers = {
        1: _("One field needs a change."),
        2: _("Two fields need a change."),
        3: _("Three fields need a change."),
    }
    return numbers.get(count, _("%d fields need a change.") % count)


@register.simple_tag(takes_context=True)
def example(context: template.Context) -> dict[str, Any]:
    """The call beside the sign-up form."""
    return before_sign_up(context["request"])


def _spell(prefix: str, row: Any) -> str:
    """A row's id as the API and addresses spell it: batch_..., file-..."""
    return ids.encode(prefix, row.id)


IDS = {
    "job_id": ids.BATCH, "file_id": ids.FILE, "key_id": ids.KEY, "invitation_id": ids.INVITATION,
    "budget_id": ids.BUDGET, "invoice_id": ids.INVOICE, "webhook_id": ids.WEBHOOK, "delivery_id": ids.DELIVERY, "event_id": ids.EVENT,
}  # fmt: skip
for _name, _prefix in IDS.items():
    register.filter(_name, partial(_spell, _prefix))
register.filter("log_time", deeds.log_time)
register.filter("endpoint_state", words.endpoint_state)
register.filter("delivery_state", words.delivery_state)
register.filter("run", progress.of)
register.filter("job_name", progress.name)
register.filter("failure", progress.failure)
register.filter("failures", progress.failures)
register.filter("job_files", progress.output_files)
register.filter("purpose_words", words.purpose_words)
register.filter("dollars", money.exact)
register.filter("cents", money.cents)
register.filter("short_dollars", money.short)
register.filter("cents_of_dollars", money.rounded)
register.filter("unit_price", money.unit_price)
register.filter("invoice_state", words.invoice_state)
register.filter("first_sentence", words.first_sentence)
register.filter("visit_end", impersonation.until)
