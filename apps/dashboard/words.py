"""The plain words of the interface for what the API names."""

from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

TASKS = {
    "image-classification": gettext_lazy("Classify images"),
    "question-answering": gettext_lazy("Answer questions"),
    "translation": gettext_lazy("Translate"),
    "text-classification": gettext_lazy("Classify text"),
    "feature-extraction": gettext_lazy("Embed"),
    "unconditional-image-generation": gettext_lazy("Generate images"),
    "tabular-regression": gettext_lazy("Predict numbers"),
}
SCOPES = {
    "predict": gettext_lazy("call models"),
    "files": gettext_lazy("upload, download and delete files"),
    "jobs": gettext_lazy("start and cancel jobs"),
    "models": gettext_lazy("read models and their versions"),
    "usage": gettext_lazy("read usage"),
    "keys": gettext_lazy("make and revoke keys"),
    "webhooks": gettext_lazy("manage webhooks"),
}


@dataclass(frozen=True)
class State:
    """A word and the shape beside it."""

    css: str
    word: str


def task_words(task: str) -> str:
    """What a task does, for people; an unknown one as the API spells it."""
    return str(TASKS.get(task, task))


def rate_words(rate: dict[str, Any]) -> str:
    """A model's rate: 1 unit per 384 tokens, 1 unit an image."""
    units = ngettext("%d unit", "%d units", rate["units"]) % rate["units"]
    if rate["per"] == 1:
        nouns = {"image": _("an image"), "token": _("a token"), "row": _("a row"), "text": _("a text")}
        return f"{units} {nouns.get(rate['unit'], _('per %s') % rate['unit'])}"
    return _("%(units)s per %(per)s %(noun)ss") % {"units": units, "per": f"{rate['per']:,}", "noun": rate["unit"]}


def job_state(job: Any) -> State:
    """A job's state in a word; lines that failed show in it."""
    if job.state == "succeeded" and job.failed:
        return State("warn", _("Done, %s failed") % f"{job.failed:,}")
    words = {
        "queued": ("wait", _("Queued")),
        "running": ("run", _("Running")),
        "cancelling": ("run", _("Cancelling")),
        "succeeded": ("ok", _("Done")),
        "failed": ("bad", _("Failed")),
        "cancelled": ("off", _("Cancelled")),
        "expired": ("warn", _("Expired")),
        "paused": ("warn", _("Paused")),
    }
    return State(*words.get(job.state, ("off", job.state)))


PURPOSES = {
    "batch": gettext_lazy("Input of a batch"),
    "batch_output": gettext_lazy("Output of a batch"),
    "fine-tune": gettext_lazy("Training data"),
    "vision": gettext_lazy("Picture"),
}


def purpose_words(purpose: str) -> str:
    return str(PURPOSES.get(purpose, purpose))


def first_sentence(text: str) -> str:
    """A description cut after its first sentence."""
    head, dot, _rest = text.partition(". ")
    return head + (dot.strip() if dot else "")


@dataclass(frozen=True)
class Metric:
    """One figure of a version: its name, its value as text, the data it was measured on and their number."""

    title: str
    value: str
    data: str
    n: int | None


METRICS = {
    "accuracy": "accuracy",
    "f1": "F1",
    "exact_match": gettext_lazy("exact match"),
    "bleu": "BLEU",
    "chrf": "chrF",
}


def metric_rows(metrics: list[dict[str, Any]]) -> list[Metric]:
    """A version's metrics as its manifest lists them: metric, value, dataset, split, n."""
    return [_metric(row) for row in metrics if "metric" in row and "value" in row]


def _metric(row: dict[str, Any]) -> Metric:
    value = row["value"]
    shown = f"{100 * value:.1f}%" if row["metric"] == "accuracy" and value <= 1 else f"{value:.4g}"
    data = ", ".join(str(row[part]) for part in ("dataset", "split") if row.get(part))
    return Metric(str(METRICS.get(row["metric"], row["metric"].replace("_", " "))), shown, data, row.get("n"))
