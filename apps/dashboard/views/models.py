"""The catalogue, one model, and its playground."""

from typing import Any

from django.http import HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from apps.catalog import services as catalog
from apps.dashboard import cards, example, playground, snippets
from apps.dashboard.page import MemberRequest, page
from apps.dashboard.serving import is_serving
from apps.dashboard.words import metric_rows, task_words
from maas import errors


@page()
def index(request: MemberRequest) -> HttpResponse:
    every = catalog.list_models(request.tenant)
    task, query = request.GET.get("task", ""), request.GET.get("q", "").strip()[:100]
    shown = [model for model in every if _matches(model, task, query)]
    tasks = [(name, task_words(name), sum(model.task == name for model in every)) for name in sorted({model.task for model in every})]
    context = {
        "section": "models",
        "total": len(every),
        "query": query,
        "task": task,
        "tasks": tasks,
        "serving": is_serving(),
        "view": "cards" if request.GET.get("view") == "cards" else "table",
        "own": [_row(model) for model in shown if model.tenant_id],
        "shared": [_row(model) for model in shown if not model.tenant_id],
    }
    return render(request, "parts/models.html" if request.htmx else "models.html", context)


def _matches(model: catalog.Model, task: str, query: str) -> bool:
    words = f"{model.name} {model.task} {task_words(model.task)} {model.description}".lower()
    return (not task or model.task == task) and all(word in words for word in query.lower().split())


def _row(model: catalog.Model) -> dict[str, Any]:
    version = catalog.current_version(model)
    return {"model": model, "version": version, "metric": next(iter(metric_rows(version.metrics)), None)}


@page()
def show(request: MemberRequest, name: str) -> HttpResponse:
    return render(request, "model.html", _context(request, name))


@page("POST")
def play(request: MemberRequest, name: str) -> HttpResponse:
    """One call from the form. htmx gets the result alone, a browser without script the whole page with it."""
    context = _context(request, name)
    task, version = context["model"].task, context["version"]
    try:
        values = playground.read_values(task, request, context["values"])
        body = playground.body_from(context["reference"], task, values)
        answer = playground.run(request.tenant, task, values, body)
    except errors.MaasError as error:
        return _answer(request, context | {"error": error, "values": _typed(request, context["values"])}, error.status)
    done = {
        "answer": answer,
        "values": values,
        "request_json": snippets.as_json(body),
        "response_json": snippets.as_json(answer.body),
    }
    code = playground.code_for(example.root(request), context["reference"], task, values)
    return _answer(request, context | done | {"code": code, "version": version}, 200)


def _answer(request: MemberRequest, context: dict[str, Any], status: int) -> HttpResponse:
    template = "parts/play_result.html" if request.htmx else "model.html"
    return render(request, template, context, status=status)


def _typed(request: MemberRequest, values: dict[str, Any]) -> dict[str, Any]:
    return values | {name: request.POST[name] for name in ("question", "context", "text", "other") if name in request.POST}


def _context(request: MemberRequest, name: str) -> dict[str, Any]:
    """What the model page shows. `?version=2` shows that version, `?sample=3` puts that sample into the form."""
    model = catalog.get_model(request.tenant, name)
    current = catalog.current_version(model)
    version = _version(model, request.GET.get("version", "")) or current
    reference = model.name if version.id == current.id else f"{model.name}@{version.number}"
    samples = catalog.samples(version, playground.SAMPLES)
    at = _sample_number(request, len(samples))
    sample = samples[at] if samples else {}
    inputs = sample.get("inputs") or example.TEXTS.get(model.task)
    return {
        "section": "models",
        "model": model,
        "version": version,
        "current": current,
        "reference": reference,
        "versions": list(model.versions.all()),
        "card": cards.to_html(version.card),
        "serving": is_serving(),
        "sample": at,
        "next_sample": (at + 1) % len(samples) if len(samples) > 1 else None,
        "attribution": sample.get("attribution"),
        "values": playground.values_from_sample(model.task, inputs) if inputs else {},
        "playable": model.task in playground.FORMS,
        "snippets": _snippets(request, reference, model.task, inputs),
        "metrics": metric_rows(version.metrics),
        "history": [(one, next(iter(metric_rows(one.metrics)), None)) for one in model.versions.all()],
    }


def _version(model: catalog.Model, number: str) -> catalog.Version | None:
    if not number:
        return None
    found = catalog.find_version(model, number) if number.isdecimal() else None
    if found is None:
        raise errors.NotFound(_("The model %(name)s has no version %(number)s.") % {"name": model.name, "number": number[:20]})
    return found


def _sample_number(request: MemberRequest, count: int) -> int:
    text = request.POST.get("sample") or request.GET.get("sample") or "0"
    return int(text) % count if text.isdecimal() and len(text) < 6 and count else 0


def _snippets(request: MemberRequest, reference: str, task: str, inputs: Any) -> list[snippets.Snippet]:
    root = example.root(request)
    return [*snippets.for_call(root, reference, task, inputs), snippets.for_batch(root, reference, task, inputs)]
