"""What slices write on the way: one part each in storage, named after the slice and the claim that wrote it."""

import re
from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

CHUNK = 2**20
FOLDER = "jobs"
PATH = re.compile(rf"{FOLDER}/([0-9a-f]{{32}})/[0-9.]+")


def part_path(job_id: UUID, number: int, fence: int) -> str:
    """The name of a part: the same claim writes the same name again, another claim never does."""
    return f"{folder(job_id)}/{number}.{fence}"


def folder(job_id: UUID) -> str:
    """Where the parts of a job lie."""
    return f"{FOLDER}/{job_id.hex}"


def old_folders(before: datetime) -> Iterator[UUID]:
    """Jobs with a part that was written before a moment, each once or more often."""
    for name, written_at in default_storage.walk(FOLDER):  # type: ignore[attr-defined]
        found = PATH.fullmatch(name)
        if found and written_at < before:
            yield UUID(found[1])


def write_part(job_id: UUID, number: int, fence: int, output: bytes, errors: bytes) -> None:
    """Store the lines of a slice: answered ones first, then failed ones."""
    default_storage.save(part_path(job_id, number, fence), ContentFile(output + errors))


def delete_part(job_id: UUID, number: int, fence: int) -> None:
    """Remove a part that does not count."""
    default_storage.delete(part_path(job_id, number, fence))


def read_part(job_id: UUID, number: int, fence: int, start: int, stop: int | None) -> Iterator[bytes]:
    """The bytes of a part from `start` up to `stop`, or to its end, in chunks."""
    with default_storage.open(part_path(job_id, number, fence), "rb") as body:
        body.seek(start)
        left = stop - start if stop is not None else None
        while chunk := body.read(CHUNK if left is None else min(CHUNK, left)):
            left = None if left is None else left - len(chunk)
            yield chunk


def delete_parts(job_id: UUID) -> None:
    """Remove all parts of a job, those of workers that lost their claim included."""
    default_storage.delete_folder(folder(job_id))  # type: ignore[attr-defined]
