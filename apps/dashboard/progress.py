"""How far a job is, how fast, until when, and why lines failed."""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

from apps.dashboard import texts
from apps.files import services as files

FINAL = ("succeeded", "failed", "cancelled", "expired")
READ_LINES = 2_000  # of an error file, to say why lines failed


@dataclass(frozen=True)
class Run:
    """A job's figures: lines done, left and a second; `left` and `end` are None until they can be told."""

    total: int
    done: int
    failed: int
    per_cent: int
    rate: float | None
    left: str | None
    end: datetime | None
    is_final: bool

    @property
    def handled(self) -> int:
        return self.done + self.failed

    @property
    def rest(self) -> int:
        return max(self.total - self.handled, 0)


def of(job: Any) -> Run:
    """The figures of a job."""
    total, done, failed = job.total or 0, job.completed or 0, job.failed or 0
    pace = job.pace
    left = pace.eta_seconds if pace else None
    return Run(
        total,
        done,
        failed,
        pace.percent if pace else 0,
        pace.lines_per_second if pace else None,
        texts.rough(left) if left else None,
        timezone.now() + timedelta(seconds=left) if left else None,
        job.state in FINAL,
    )


@dataclass(frozen=True)
class Problem:
    """One reason for which lines failed, with the first line that shows it."""

    code: str
    message: str
    lines: int
    line: str


def problems(tenant: Any, job: Any) -> list[Problem]:
    """Why lines failed, the most frequent first, read from the head of the error file."""
    error_file = getattr(getattr(job, "batch", None), "error_file", None)
    if error_file is None or not job.failed:
        return []
    found: dict[str, Problem] = {}
    with files.open_file(tenant, error_file.id) as body:
        for raw in islice(body, READ_LINES):
            code, message, line = _read(json.loads(raw))
            before = found.get(code)
            found[code] = Problem(code, before.message, before.lines + 1, before.line) if before else Problem(code, message, 1, line)
    return sorted(found.values(), key=lambda problem: -problem.lines)


def _read(row: dict[str, Any]) -> tuple[str, str, str]:
    """Code, message and custom_id of a line of an error file."""
    response = row.get("response") or {}
    error = row.get("error") or (response.get("body") or {}).get("error") or {}
    return str(error.get("code") or "error"), str(error.get("message") or ""), str(row.get("custom_id") or "")


def name(job: Any) -> str:
    """What people call a job: the name of its input file."""
    return str(job.batch.input_file.filename)


def failure(job: Any) -> str:
    """Why a job failed, in a sentence."""
    return str((job.error or {}).get("message") or _("The job failed."))


def output_files(job: Any) -> list[tuple[str, Any]]:
    """The files of a job that exist, each with its title."""
    named = (
        (_("Input"), job.batch.input_file),
        (_("Output"), job.batch.output_file),
        (_("Errors"), job.batch.error_file),
    )
    return [(title, file) for title, file in named if file is not None]


def failures(job: Any) -> list[dict[str, Any]]:
    """The lines for which a file was refused: code, line, message."""
    return list((job.error or {}).get("data") or [])
