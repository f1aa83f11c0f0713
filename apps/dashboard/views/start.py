"""The first-run checklist: facts decide what is done, each step can be taken right here."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _

from apps.accounts import keys
from apps.catalog import services as catalog
from apps.dashboard import example, figures, playground, snippets
from apps.dashboard.page import STOP_POLLING, MemberRequest, page
from apps.jobs import services as jobs
from maas import errors

DISMISSED = "start_dismissed"  # cookie
SCOPES = ["predict", "files", "jobs", "models", "usage"]
LOOK_BACK = timedelta(days=365)


@dataclass(frozen=True)
class Progress:
    """What the organisation has done so far."""

    has_key: bool
    has_call: bool
    has_batch: bool

    @property
    def done(self) -> int:
        """Steps done, of four; the organisation itself is the first."""
        return 1 + self.has_key + self.has_call + self.has_batch

    @property
    def next_step(self) -> str:
        if not self.has_key:
            return _("make an API key")
        return _("send a request") if not self.has_call else _("run a file of requests as a batch job")

    @property
    def next_url(self) -> str:
        if not self.has_key:
            return "new_key"
        return "models" if not self.has_call else "new_job"


def progress(tenant: Any) -> Progress:
    """Read from keys, the ledger and jobs. Lines of a batch are no calls of a program, but they prove the same."""
    called = bool(figures.daily_rows(tenant, days=LOOK_BACK.days))
    return Progress(bool(keys.list_keys(tenant, with_revoked=True)), called, sum(jobs.job_counts(tenant).values()) > 0)


def checklist(request: MemberRequest, secret: str | None = None) -> dict[str, Any]:
    """What the checklist shows. With a fresh secret the code holds it, so that it runs as it is copied."""
    call = example.first_call(request, catalog.list_models(request.tenant))
    code = [_with_secret(snippet, secret) for snippet in call.snippets] if call else []
    return {
        "call": call,
        "code": code,
        "secret": secret,
        "progress": progress(request.tenant),
        "root": example.root(request),
    }


def _with_secret(snippet: snippets.Snippet, secret: str | None) -> snippets.Snippet:
    if secret is None:
        return snippet
    text = snippet.text.replace(snippets.SECRET, secret).replace('" + os.environ["MAAS_API_KEY"]', f'{secret}"')
    return snippets.Snippet(snippet.language, snippet.title, text)


@page("POST")
def make_key(request: MemberRequest) -> HttpResponse:
    """A key named first. Its secret is in this answer and nowhere else."""
    _key, secret = keys.create_key(request.tenant, name="first", scopes=SCOPES, created_by=request.user)
    template = "parts/steps.html" if request.htmx else "overview_first.html"
    response = render(request, template, checklist(request, secret) | {"section": "overview"})
    response["Cache-Control"] = "no-store"
    return response


@page("POST")
def run_here(request: MemberRequest) -> HttpResponse:
    """The example call from the browser, charged like any call."""
    call = example.first_call(request, catalog.list_models(request.tenant))
    if call is None or call.inputs is None:
        raise errors.NotFound(_("The catalogue has no model that answers a text."))
    body = {"model": call.model, "inputs": call.inputs}
    answer = playground.run(request.tenant, call.task, playground.values_from_sample(call.task, call.inputs), body)
    if not request.htmx:
        return redirect("overview")
    return render(request, "parts/first_result.html", {"answer": answer, "json": snippets.as_json(answer.body)})


@page()
def state(request: MemberRequest) -> HttpResponse:
    """Polled while the checklist waits for the first request."""
    arrived = progress(request.tenant).has_call
    return render(request, "parts/first_state.html", {"arrived": arrived}, status=STOP_POLLING if arrived else 200)


@page("POST")
def dismiss(request: MemberRequest) -> HttpResponse:
    """Hide the reminder in this browser for a year."""
    response = HttpResponse() if request.htmx else redirect("overview")
    response.set_cookie(DISMISSED, request.tenant.slug, max_age=LOOK_BACK, httponly=True, samesite="Lax", secure=request.is_secure())
    return response
