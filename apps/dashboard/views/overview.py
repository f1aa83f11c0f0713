"""Is it working, what is used, what runs."""

from datetime import timedelta

from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone

from apps.dashboard import alarms, figures
from apps.dashboard.page import MemberRequest, page
from apps.dashboard.serving import is_serving
from apps.dashboard.texts import change
from apps.dashboard.views import start
from apps.dashboard.views.billing import may_bill
from apps.jobs import services as jobs
from apps.usage import services as usage

PERIODS = list(figures.PERIODS)
RECENT = 5


@page()
def show(request: MemberRequest) -> HttpResponse:
    tenant = request.tenant
    progress = start.progress(tenant)
    if not progress.has_call and not request.htmx and "period" not in request.GET:
        return render(request, "overview_first.html", start.checklist(request) | {"section": "overview"} | _alarms(request))
    if request.htmx:
        return render(request, "parts/overview.html", _context(request, progress))
    return render(request, "overview.html", _context(request, progress) | _alarms(request))


def _alarms(request: MemberRequest) -> dict[str, object]:
    return {"alarms": alarms.alarms_of(request.tenant), "may_bill": may_bill()}


def _context(request: MemberRequest, progress: start.Progress) -> dict[str, object]:
    tenant = request.tenant
    wanted = request.GET.get("period", "30d")
    period = wanted if wanted in PERIODS else "30d"
    found = figures.for_period(tenant, period)
    now = timezone.now()
    month = usage.totals(tenant, now.replace(day=1, hour=0, minute=0, second=0, microsecond=0), now + timedelta(seconds=1))
    recent, _more = jobs.list_jobs(tenant, limit=RECENT)
    counts = jobs.job_counts(tenant)
    return {
        "section": "overview",
        "period": period,
        "figures": found,
        "trend": change(found.requests, found.requests_before),
        "month": month,
        "now": now,
        "serving": is_serving(),
        "jobs": recent,
        "counts": counts,
        "active": jobs.count_active(tenant),
        "progress": progress if progress.done < 4 and request.COOKIES.get(start.DISMISSED) != tenant.slug else None,
    }
