"""How figures, times and sizes read on a page."""

from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext


def ago(moment: datetime | None) -> str:
    """A past moment as people say it: now, 4 s ago, 10 min ago, 5 h ago, yesterday, 17 Nov."""
    if moment is None:
        return _("never")
    seconds = int((timezone.now() - moment).total_seconds())
    for limit, size, text in (
        (3, 1, _("now")),
        (60, 1, _("%d s ago")),
        (3600, 60, _("%d min ago")),
        (86400, 3600, _("%d h ago")),
    ):
        if seconds < limit:
            return text % (seconds // size) if "%d" in text else text
    return _("yesterday") if seconds < 2 * 86400 else day(moment)


def ahead(moment: datetime | None) -> str:
    """A moment to come: in 6 days, in 3 h, 18 Feb 2026."""
    if moment is None:
        return _("never")
    seconds = int((moment - timezone.now()).total_seconds())
    if seconds <= 0:
        return _("expired %s") % day(moment)
    if seconds < 86400:
        return _("in %d h") % max(1, seconds // 3600)
    days = seconds // 86400
    return ngettext("in %d day", "in %d days", days) % days if days <= 30 else day(moment)


def day(moment: datetime) -> str:
    """20 Nov, with the year where it is not this one."""
    return date_format(moment, "j M" if moment.year == timezone.now().year else "j M Y")


def duration(length: timedelta | float | None) -> str:
    """1.4 s, 38 s, 9 min 50 s, 2 h 5 min."""
    if length is None:
        return ""
    seconds = length.total_seconds() if isinstance(length, timedelta) else float(length)
    if seconds < 10:
        return _("%s s") % f"{max(seconds, 0):.1f}".removesuffix(".0")
    whole = round(seconds)
    if whole < 60:
        return _("%d s") % whole
    if whole < 3600:
        return _("%(m)d min %(s)d s") % {"m": whole // 60, "s": whole % 60} if whole % 60 else _("%d min") % (whole // 60)
    return _("%(h)d h %(m)d min") % {"h": whole // 3600, "m": whole % 3600 // 60}


def rough(seconds: float) -> str:
    """Time left, rounded so that it does not jump: about 20 s, about 6 min, about 2 h."""
    if seconds < 60:
        return _("about %d s") % (max(1, -(-int(seconds) // 5)) * 5)
    if seconds < 5400:
        return _("about %d min") % round(seconds / 60)
    return _("about %d h") % round(seconds / 3600)


def size(count: int | None) -> str:
    """Bytes as 840 B, 4.1 KB, 18 MB."""
    value = float(count or 0)
    for unit in ("B", "KB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"


def change(now: int, before: int) -> str:
    """How a figure moved against the span before it."""
    if not before:
        return _("none in the span before") if now else _("none yet")
    per_cent = round(100 * (now - before) / before)
    if per_cent == 0:
        return _("as in the span before")
    direction = _("%d%% up on the span before") if per_cent > 0 else _("%d%% down on the span before")
    return direction % abs(per_cent)
