"""The plain words of the interface for what the API names."""

from dataclasses import dataclass
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from apps.dashboard.texts import day

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
    "keys": gettext_lazy("make and revoke keys, read the audit log"),
    "webhooks": gettext_lazy("manage webhooks"),
}


ROLES = {
    "viewer": gettext_lazy("reads models, jobs, files, keys and usage"),
    "developer": gettext_lazy("also calls models, runs jobs, makes keys and webhooks"),
    "admin": gettext_lazy("also invites and removes people, gives keys the scope keys, reads the audit log, looks after billing"),
    "owner": gettext_lazy("also makes owners and hands the organisation over"),
}


# What webhooks can be sent for now; the API takes names of what comes later too.
EVENTS = {
    "*": gettext_lazy("every event, also those of later versions"),
    "batch.completed": gettext_lazy("a batch is done"),
    "batch.failed": gettext_lazy("a batch could not be run"),
    "batch.cancelled": gettext_lazy("a batch was cancelled"),
    "batch.expired": gettext_lazy("a batch ran out of time"),
    "budget.threshold": gettext_lazy("a part of a budget, or of what the plan includes, is used"),
    "key.created": gettext_lazy("a key was made"),
    "key.revoked": gettext_lazy("a key was revoked"),
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


def endpoint_state(endpoint: Any) -> State:
    """How a webhook does: its latest attempt, unless it is off."""
    if not endpoint.enabled:
        reasons = {"failing": _("Off: failed for 5 days"), "gone": _("Off: address is gone")}
        return State("bad", reasons[endpoint.disabled_reason]) if endpoint.disabled_reason in reasons else State("off", _("Off"))
    if endpoint.last_at is None:
        return State("wait", _("Nothing sent yet"))
    return State("warn", _("Failing")) if endpoint.failing_since else State("ok", _("Delivered"))


def delivery_state(delivery: Any) -> State:
    """A delivery's state in a word."""
    if delivery.state == "pending":
        return State("warn", _("Trying again")) if delivery.step else State("wait", _("Waiting"))
    return State("ok", _("Delivered")) if delivery.state == "delivered" else State("bad", _("Failed"))


def invoice_state(invoice: Any) -> State:
    """An invoice's state in a word, with the day on which it was paid."""
    if invoice.state == "paid":
        return State("ok", _("Paid %s") % day(invoice.paid_at) if invoice.paid_at else _("Paid"))
    if invoice.state == "open" and invoice.due_at:
        late = invoice.due_at < timezone.now()
        return State("bad" if late else "wait", (_("Overdue since %s") if late else _("Due %s")) % day(invoice.due_at))
    css = {"open": "wait", "draft": "wait", "uncollectible": "bad"}
    return State(css.get(invoice.state, "off"), invoice.get_state_display())


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
    "knn_accuracy": gettext_lazy("10-nearest-neighbour accuracy"),
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
    shown = f"{100 * value:.1f}%" if row["metric"].endswith("accuracy") and value <= 1 else f"{value:.4g}"
    data = ", ".join(str(row[part]) for part in ("dataset", "split") if row.get(part))
    return Metric(str(METRICS.get(row["metric"], row["metric"].replace("_", " "))), shown, data, row.get("n"))
