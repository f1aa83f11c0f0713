"""Checking a batch's file in one pass: what is wrong with which line, and where its slices begin."""

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO
from uuid import UUID

from apps.catalog import services as catalog
from apps.files import services as files
from apps.inference import services as inference
from apps.jobs import paying, stages
from maas import errors
from workers.batch import lines
from workers.batch.leases import Lease
from workers.batch.lines import Line, LineError

ERROR_COUNT = 100  # errors that are told one by one
SLICE_LINES = 512
SLICE_INPUTS = 64  # inputs of a slice: a few seconds of the slowest shipped model on one core
SLICE_BYTES = 8 * 2**20  # what a worker holds of its input
MODEL_NAMES = 1_000  # different models whose versions are pinned


class Plan:
    """Slices as they grow: a line joins the last one until that holds enough work."""

    def __init__(self) -> None:
        self.runs: list[stages.Run] = []
        self.inputs = 0

    def add(self, line: Line, inputs: int) -> None:
        """Put a line into a slice; `inputs` is how many its body has."""
        last = self.runs[-1] if self.runs else None
        if last is None or self._is_full(last, line, inputs):
            self.runs.append(stages.Run(line.start, line.number, 1))
            self.inputs = inputs
        else:
            self.runs[-1] = stages.Run(last.start, last.first_line, line.number - last.first_line + 1)
            self.inputs += inputs

    def _is_full(self, last: stages.Run, line: Line, inputs: int) -> bool:
        too_long = last.lines >= SLICE_LINES or line.start + len(line.raw) - last.start > SLICE_BYTES
        return too_long or self.inputs + inputs > SLICE_INPUTS


class Check:
    """One pass over a file. Memory holds a digest for each custom_id, the first errors, and the slices.

    `resolve` says what a model reference means now: all lines of a batch are answered by the same version.
    """

    def __init__(self, endpoint: str, resolve: Callable[[str], catalog.Version | None]) -> None:
        self.endpoint = endpoint
        self.resolve = resolve
        self.units = 0  # that it will likely cost
        self.plan = Plan()
        self.problems: list[dict[str, Any]] = []
        self.bad = 0
        self.total = 0
        self.seen: set[bytes] = set()
        self.models: dict[str, catalog.Version | None] = {}  # in the order of their first line

    def read(self, body: BinaryIO, lease: Lease) -> None:
        """Look at every line, or stop early when there are too many or the claim is lost."""
        for line in lines.read_lines(body):
            if lease.lost:
                return
            if line.is_blank:
                continue
            self.total += 1
            if self.total > lines.LINE_COUNT:
                self._note(line.number, LineError("too_many_lines", f"The file has more than {lines.LINE_COUNT:,} lines. Split it."))
                return
            self._read_line(line)
        if not self.total:
            self._note(None, LineError("empty_file", "The file has no lines."))

    def _read_line(self, line: Line) -> None:
        try:
            row = lines.read_row(line, self.endpoint)
            self._check_unique(row["custom_id"])
        except LineError as error:
            self._note(line.number, error)
        else:
            self.plan.add(line, _count_inputs(row.get("body")))
            self._note_model(row.get("body") or {})

    def _check_unique(self, custom_id: str) -> None:
        digest = hashlib.blake2b(custom_id.encode(), digest_size=16).digest()
        if digest in self.seen:
            raise LineError("duplicate_custom_id", f"The custom_id {lines.show(custom_id)} was used on a line before.", "custom_id")
        self.seen.add(digest)

    def _note(self, number: int | None, error: LineError) -> None:
        self.bad += 1
        if len(self.problems) < ERROR_COUNT:
            self.problems.append({"code": error.code, "line": number, "message": error.message, "param": error.param})

    def _note_model(self, body: Any) -> None:
        name = body.get("model") if isinstance(body, dict) else None
        if not isinstance(name, str) or len(name) > 200 or "\0" in name:
            return
        if name not in self.models and len(self.models) < MODEL_NAMES:
            self.models[name] = self.resolve(name)
        version = self.models.get(name)
        self.units += inference.estimate_units(version, body.get("inputs")) if version else 0

    def told(self) -> list[dict[str, Any]]:
        """The errors as the batch lists them, with how many more there are."""
        more = self.bad - len(self.problems)
        if not more:
            return self.problems
        note = {"code": "more_errors", "line": None, "message": f"{more:,} more lines have errors.", "param": None}
        return [*self.problems, note]


def _count_inputs(body: Any) -> int:
    inputs = body.get("inputs") if isinstance(body, dict) else None
    return max(len(inputs), 1) if isinstance(inputs, list) else 1


def validate_batch(tenant_id: UUID, job_id: UUID) -> None:
    """Check the file of a queued batch, then either start it or fail it. Nothing happens if another worker does it."""
    job = stages.claim_job(tenant_id, job_id, stages.TO_CHECK)
    if job is None:
        return
    if job.fence > stages.CHECKS:
        message = "The file could not be checked. Nothing was charged; upload it again."
        stages.fail_job(job, code="server_error", message=message, problems=[])
        return
    with Lease(lambda: stages.renew_job(job)) as lease, files.open_file(job.tenant, job.batch.input_file_id) as body:
        check = Check(job.batch.endpoint, partial(_resolve, job))
        check.read(body, lease)
        if not lease.lost:
            _conclude(job, check)


def _conclude(job: Any, check: Check) -> None:
    if check.bad:
        first = check.problems[0]
        where = f"Line {first['line']}: " if first["line"] else ""
        stages.fail_job(job, code=first["code"], message=where + first["message"], problems=check.told())
        return
    try:
        paying.reserve_job(job, check.units)
    except errors.PaymentRequired as error:
        told = {"code": error.code, "line": None, "message": error.message, "param": None}
        stages.fail_job(job, code=error.code, message=error.message, problems=[told])
        return
    pinned = {name: str(version.id) for name, version in check.models.items() if version}
    stages.start_job(job, runs=check.plan.runs, total=check.total, model_names=list(check.models)[:20], versions=pinned)


def _resolve(job: Any, reference: str) -> catalog.Version | None:
    try:
        return catalog.resolve(job.tenant, reference, allowed=job.batch.allowed_models)
    except errors.MaasError:
        return None  # its lines become errors when they are run
