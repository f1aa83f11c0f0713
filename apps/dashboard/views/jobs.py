"""Jobs: the list, one job while it runs, starting and cancelling."""

import json
from typing import Any

from django import forms
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext_lazy
from django_htmx.http import HttpResponseClientRedirect

from apps.catalog import services as catalog
from apps.dashboard import example, job_filters, progress
from apps.dashboard.page import STOP_POLLING, MemberRequest, page, read_id, require_writer
from apps.files import services as files
from apps.jobs import services
from maas import errors, ids

PAGE = 25
RECENT = 5  # on the overview
EVENTS = 100
ACTIVE = tuple(services.ACTIVE)
SAMPLE_LINES = 20


class NewJob(forms.Form):
    """A file of requests to run."""

    file = forms.FileField(
        label=gettext_lazy("File"),
        help_text=gettext_lazy("JSONL in UTF-8, one request a line, up to 50,000 lines and 200 MB."),
        widget=forms.FileInput(attrs={"accept": ".jsonl,application/jsonl"}),
        error_messages={"empty": gettext_lazy("The file is empty. Put one request on each line.")},
    )


# ---------- the list ----------
@page()
def index(request: MemberRequest) -> HttpResponse:
    template = "parts/jobs.html" if request.htmx else "jobs.html"
    return render(request, template, _list(request) | {"form": NewJob()})


@page()
def rows(request: MemberRequest) -> HttpResponse:
    """The rows alone, polled while a job is active."""
    context = _list(request)
    return render(request, "parts/job_rows.html", context, status=200 if context["active"] else STOP_POLLING)


def _list(request: MemberRequest) -> dict[str, Any]:
    asked = job_filters.read(request)
    counts, choices = services.job_counts(request.tenant), job_filters.choices(request.tenant, asked)
    found, has_more = _find(request, asked)
    return {
        "section": "jobs", "jobs": found, "has_more": has_more, "asked": asked, "after": request.GET.get("after", ""),
        "total": sum(counts.values()), "active": sum(counts.get(name, 0) for name in ACTIVE),
        "chips": job_filters.chips(asked, counts), "choices": choices, "told": job_filters.told(asked, choices["keys"]),
    }  # fmt: skip


def _find(request: MemberRequest, asked: job_filters.Asked) -> tuple[list[Any], bool]:
    filters, limit = asked.filters(), RECENT if "recent" in request.GET else PAGE
    if filters is None:
        return [], False
    after = ids.decode(ids.BATCH, request.GET.get("after", ""))
    return services.list_jobs(request.tenant, state=asked.states, search=asked.q or None, filters=filters, after=after, limit=limit)


# ---------- one job ----------
@page()
def show(request: MemberRequest, job_id: str) -> HttpResponse:
    return render(request, "job.html", _one(request, job_id))


@page()
def live(request: MemberRequest, job_id: str) -> HttpResponse:
    """What changes while a job runs; the last answer tells htmx to stop asking."""
    context = _one(request, job_id)
    return render(request, "parts/job.html", context, status=STOP_POLLING if context["run"].is_final else 200)


def _one(request: MemberRequest, job_id: str) -> dict[str, Any]:
    job = services.get_job(request.tenant, read_id(ids.BATCH, job_id))
    run = progress.of(job)
    return {
        "section": "jobs",
        "job": job,
        "run": run,
        "job_id": ids.encode(ids.BATCH, job.id),
        "events": services.list_events(request.tenant, job.id, limit=EVENTS),
        "problems": progress.problems(request.tenant, job),
    }


@page("GET", "POST")
def cancel(request: MemberRequest, job_id: str) -> HttpResponse:
    """Ask once more, saying what is kept and what is not run; then cancel."""
    require_writer(request)
    context = _one(request, job_id)
    if request.method == "POST":
        services.cancel_batch(request.tenant, context["job"].id)
        return _go(request, f"/jobs/{context['job_id']}")
    template = "parts/cancel_job.html" if request.htmx else "cancel_job.html"
    return render(request, template, context)


# ---------- a new one ----------
@page("GET", "POST")
def new(request: MemberRequest) -> HttpResponse:
    """The form as a page of its own, and where the dialog posts to."""
    require_writer(request)
    form = NewJob(request.POST, request.FILES) if request.method == "POST" else NewJob()
    if request.method == "POST" and form.is_valid():
        job = _start(request, form)
        if job:
            return _go(request, f"/jobs/{ids.encode(ids.BATCH, job.id)}")
    dialog = request.htmx and request.method == "POST"
    template = "parts/job_form.html" if dialog else "new_job.html"
    return render(request, template, {"form": form, "section": "jobs"}, status=422 if form.errors else 200)


def _start(request: MemberRequest, form: NewJob) -> Any:
    upload = form.cleaned_data["file"]
    try:
        file = files.create_file(request.tenant, filename=upload.name, purpose="batch", chunks=upload.chunks())
        return services.create_batch(
            request.tenant,
            input_file_id=ids.encode(ids.FILE, file.id),
            endpoint="/v1/predictions",
            completion_window="24h",
            metadata={},
            key=None,
        )
    except errors.MaasError as error:
        form.add_error("file", error.message)
        return None


def _go(request: MemberRequest, address: str) -> HttpResponse:
    return HttpResponseClientRedirect(address) if request.htmx else redirect(address)


@page()
def sample(request: MemberRequest) -> HttpResponse:
    """A file of requests that runs as it is, over every model of the catalogue that has samples."""
    lines = [json.dumps(line, ensure_ascii=False) for line in _sample_lines(request)]
    disposition = {"Content-Disposition": 'attachment; filename="sample.jsonl"'}
    return HttpResponse("\n".join(lines) + "\n", content_type="application/jsonl; charset=utf-8", headers=disposition)


def _sample_lines(request: MemberRequest) -> list[dict[str, Any]]:
    bodies = []
    for model in catalog.list_models(request.tenant):
        rows = catalog.samples(catalog.current_version(model), SAMPLE_LINES)
        inputs = [row["inputs"] for row in rows] or [example.TEXTS[model.task]] * (model.task in example.TEXTS)
        bodies += [{"model": model.name, "inputs": value} for value in inputs]
    return [{"custom_id": str(number), "method": "POST", "url": "/v1/predictions", "body": body} for number, body in enumerate(bodies, 1)]
