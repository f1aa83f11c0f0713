"""Batches and their events in OpenAI's shapes."""

from dataclasses import asdict
from typing import Any

from apps.jobs import stages
from maas import ids
from maas.api import seconds

EVENT = "event_"


def render_batch(job: Any) -> dict[str, Any]:
    """A batch as OpenAI's clients read it, the units charged, and how fast it is."""
    batch, status = job.batch, stages.openai_status(job)
    ended = {f"{name}_at": seconds(job.finished_at) if name == status else None for name in ("completed", "failed", "expired", "cancelled")}
    return {
        "id": ids.encode(ids.BATCH, job.id), "object": "batch", "endpoint": batch.endpoint,
        "model": job.model_names[0] if len(job.model_names) == 1 else None,
        "errors": {"object": "list", "data": job.error["data"]} if job.error else None,
        "input_file_id": file_id(batch.input_file), "completion_window": batch.completion_window, "status": status,
        "output_file_id": file_id(batch.output_file), "error_file_id": file_id(batch.error_file),
        "created_at": seconds(job.created_at), "in_progress_at": seconds(job.started_at), "expires_at": seconds(job.expires_at),
        "finalizing_at": seconds(batch.finalizing_at), "cancelling_at": seconds(batch.cancelling_at), **ended,
        "request_counts": {"total": job.total, "completed": job.completed, "failed": job.failed},
        "metadata": batch.metadata or None, "units": job.units, "progress": asdict(job.pace) if job.pace else None,
    }  # fmt: skip


def render_event(event: Any) -> dict[str, Any]:
    """An event of a job."""
    return {
        "id": ids.encode(EVENT, event.id), "object": "batch.event", "created_at": seconds(event.created_at),
        "level": event.level, "message": event.message, "data": event.data,
    }  # fmt: skip


def file_id(file: Any) -> str | None:
    """The id of a file as the API shows it."""
    return ids.encode(ids.FILE, file.id) if file else None
