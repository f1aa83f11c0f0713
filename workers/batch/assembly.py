"""Putting the parts of a batch together, in the order of its input, without ever holding more than a chunk."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from apps.files import services as files
from apps.jobs import parts, slices, stages
from maas import ids
from workers.batch import lines
from workers.batch.leases import Lease

NOT_RUN = {
    "cancelled": ("batch_cancelled", "The batch was cancelled before this line was run."),
    "expired": ("batch_expired", "The completion window passed before this line was run."),
}


def finish_batch(tenant_id: UUID, job_id: UUID) -> None:
    """Write the output and error files of a batch whose slices are all in, then end it.

    A worker that dies here leaves files that nobody sees; the next one begins again.
    """
    job = stages.claim_job(tenant_id, job_id, stages.TO_FINISH)
    if job is None:
        return
    with Lease(lambda: stages.renew_job(job)):
        rows = slices.list_slices(job)
        output = _store(job, "output", _outputs(rows)) if any(row.completed for row in rows) else None
        error = _store(job, "error", _errors(job, rows)) if any(row.failed or row.state == "closed" for row in rows) else None
        ended = stages.finish_job(job, output=output, error=error)
    if not ended:
        for file in filter(None, (output, error)):
            files.discard_file(file)


def _store(job: Any, kind: str, chunks: Iterator[bytes]) -> Any:
    name = f"{ids.encode(ids.BATCH, job.id)}_{kind}.jsonl"
    file = files.begin_file(job.tenant, filename=name, purpose="batch_output", expires_in=job.batch.output_expires_in)
    files.write_file(file, chunks)
    return file


def _outputs(rows: list[Any]) -> Iterator[bytes]:
    for row in rows:
        if row.completed:
            yield from parts.read_part(row.job_id, row.number, row.part, 0, row.output_bytes)


def _errors(job: Any, rows: list[Any]) -> Iterator[bytes]:
    """Failed lines, and those of slices that were closed before anybody ran them."""
    for row in rows:
        if row.state == "closed":
            yield b"".join(_closed(job, row))
        elif row.failed:
            yield from parts.read_part(row.job_id, row.number, row.part, row.output_bytes, None)


def _closed(job: Any, row: Any) -> Iterator[bytes]:
    code, message = NOT_RUN.get(job.ending) or (job.error["code"], job.error["message"])  # stopped by a limit
    with files.open_file(job.tenant, job.batch.input_file_id) as body:
        for line in lines.read_lines(body, number=row.first_line, start=row.start, count=row.lines):
            if not line.is_blank:
                yield lines.passed_by(job.id, line, code, message)
