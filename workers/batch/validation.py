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
from apps.jobs import services as jobs
from maas import errors
from workers.batch import lines, sizing
from workers.batch.bodies import raw_inputs
from workers.batch.leases import Lease
from workers.batch.lines import Line, LineError

ERROR_COUNT = 100  # errors that are told one by one
MODEL_NAMES = 1_000  # different models whose versions are pinned


class Check:
    """One pass over a file. Memory holds a digest for each custom_id, the first errors, and the slices.

    `resolve` says what a model reference means now: all lines of a batch are answered by the same version. With `skips`,
    lines that would fail the batch are put into slices like the others; running them makes lines of the error file.
    """

    def __init__(self, endpoint: str, resolve: Callable[[str], catalog.Version | None], *, skips: bool = False) -> None:
        self.endpoint = endpoint
        self.resolve = resolve
        self.skips = skips
        self.units = 0  # that it will likely cost
        self.plan = sizing.Plan()
        self.problems: list[dict[str, Any]] = []
        self.fails = False  # whether the batch cannot run
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
                self._fail(line.number, LineError("too_many_lines", f"The file has more than {lines.LINE_COUNT:,} lines. Split it."))
                return
            self._read_line(line)
        if not self.total:
            self._fail(None, LineError("empty_file", "The file has no lines."))

    def _read_line(self, line: Line) -> None:
        try:
            row = lines.read_row(line, self.endpoint)
            self._check_unique(row["custom_id"])
        except LineError as error:
            self._skip(line, error)
        else:
            self._add(line, row.get("body"))

    def _add(self, line: Line, body: Any) -> None:
        version, inputs = self._model(body), raw_inputs(self.endpoint, body)
        self.units += inference.estimate_units(version, inputs) if version else 0
        count = max(len(inputs), 1) if isinstance(inputs, list) else 1
        self.plan.add(line, inputs=count, work=sizing.work_of(version.model.task if version else None, inputs))

    def _skip(self, line: Line, error: LineError) -> None:
        if not self.skips:
            self._fail(line.number, error)
            return
        self.bad += 1
        self.plan.add(line, inputs=1, work=sizing.REFUSED, is_repeat=error.code == lines.REPEATED)

    def _check_unique(self, custom_id: str) -> None:
        digest = hashlib.blake2b(custom_id.encode(), digest_size=16).digest()
        if digest in self.seen:
            raise lines.repeated(custom_id)
        self.seen.add(digest)

    def _fail(self, number: int | None, error: LineError) -> None:
        self.fails = True
        self.bad += 1
        if len(self.problems) < ERROR_COUNT:
            self.problems.append(error.told(number))

    def _model(self, body: Any) -> catalog.Version | None:
        """What a line's model reference means, if anything."""
        name = body.get("model") if isinstance(body, dict) else None
        if not isinstance(name, str) or len(name) > 200 or "\0" in name:
            return None
        if name not in self.models and len(self.models) < MODEL_NAMES:
            self.models[name] = self.resolve(name)
        return self.models.get(name)

    def told(self) -> list[dict[str, Any]]:
        """The errors as the batch lists them, with how many more there are."""
        more = self.bad - len(self.problems)
        if not more:
            return self.problems
        note = {"code": "more_errors", "line": None, "message": f"{more:,} more lines have errors.", "param": None}
        return [*self.problems, note]


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
        check = Check(job.batch.endpoint, partial(_resolve, job), skips=job.batch.metadata.get(jobs.ON_INVALID) == jobs.SKIP)
        check.read(body, lease)
        if not lease.lost:
            _conclude(job, check)


def _conclude(job: Any, check: Check) -> None:
    if check.fails:
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
    names = list(check.models)[:20]
    stages.start_job(job, runs=check.plan.runs, total=check.total, bad=check.bad, model_names=names, versions=pinned)


def _resolve(job: Any, reference: str) -> catalog.Version | None:
    try:
        return catalog.resolve(job.tenant, reference, allowed=job.batch.allowed_models)
    except errors.MaasError:
        return None  # its lines become errors when they are run
