"""The calls that newcomers copy: a model that answers text, with an input of its own samples where it has any."""

import json
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest

from apps.catalog import services as catalog
from apps.dashboard import snippets

TEXTS = {
    "question-answering": {"question": "Where is the pump?", "context": "The pump sits behind the left panel."},
    "translation": "The pump sits behind the left panel.",
    "feature-extraction": "The pump sits behind the left panel.",
}
ANSWER = {"answer": "behind the left panel", "score": 0.474, "start": 14, "end": 35}  # what minilm-squad answers; a test asks it
PREFERRED = ("question-answering", "translation", "image-classification")


@dataclass(frozen=True)
class Call:
    """A call that works as it stands: the model, its input, and code for it."""

    model: str
    task: str
    inputs: Any
    snippets: list[snippets.Snippet]


def root(request: HttpRequest) -> str:
    """The address of this server as the reader reached it, without a slash at the end."""
    return request.build_absolute_uri("/").rstrip("/")


def first_call(request: HttpRequest, models: list[catalog.Model]) -> Call | None:
    """The call that the checklist offers: the first task of those above that the catalogue has."""
    by_task = {model.task: model for model in reversed(models)}
    model = next((by_task[task] for task in PREFERRED if task in by_task), None)
    if model is None:
        return None
    inputs = TEXTS.get(model.task)
    return Call(model.name, model.task, inputs, snippets.for_call(root(request), model.name, model.task, inputs))


def before_sign_up(request: HttpRequest) -> dict[str, Any]:
    """What the sign-up page shows: a question, its passage and what comes back."""
    names = {version.model.task: version.model.name for version in catalog.shared_versions()}
    inputs = TEXTS["question-answering"]
    model = names.get("question-answering", "minilm-squad")
    context, start, end = inputs["context"], ANSWER["start"], ANSWER["end"]  # type: ignore[index]
    return {
        "snippets": snippets.for_call(root(request), model, "question-answering", inputs),
        "before": context[:start],
        "answer": context[start:end],
        "after": context[end:],  # type: ignore[misc]
        "json": snippets.colour(json.dumps({"model": model, "outputs": ANSWER, "usage": {"units": 1, "unit": "token"}}, indent=1)),
    }
