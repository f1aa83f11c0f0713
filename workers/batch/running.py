"""Running a slice: read its lines, group them by version, run each group as one batch, write a part, commit."""

import time
from collections import defaultdict
from collections.abc import Container, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from django.db import DatabaseError, InterfaceError, OperationalError, connection

from apps.catalog import services as catalog
from apps.files import services as files
from apps.inference import services as inference
from apps.jobs import parts, paying, slices, stages
from apps.usage import services as usage
from maas import errors, queue
from maas.specs import spec_for
from workers.batch import lines
from workers.batch.assembly import finish_batch
from workers.batch.bodies import read_body
from workers.batch.leases import Lease
from workers.outcomes import outcome_of
from workers.versions import LOADED

log = structlog.get_logger(__name__)
AWAY_TRIES, AWAY_SECONDS = 60, 0.5  # how long a worker waits for its database to come back: there is nothing else to do
FAILED = f"This line and those around it could not be run in {slices.ATTEMPTS} attempts. Nothing was charged for it."
CRASHED = "Running this line ended its worker twice. Nothing was charged for it. Look for what is unusual about its input."
BROKEN = "The model ended its worker on this line and most others of the batch. Nothing was charged for it."


@dataclass
class Request:
    """One line on its way through the model."""

    number: int
    custom_id: str
    identity: UUID
    version: catalog.Version
    inputs: list[Any]
    parameters: dict[str, Any]
    body: inference.Wanted
    most: int  # units that it can be charged
    likely: int


@dataclass(frozen=True)
class Answer:
    """What became of a line: its bytes in a file, and what it used if it succeeded."""

    raw: bytes
    version: catalog.Version | None = None
    quantity: int = 0
    units: int = 0


def run_slice(claim: slices.Claim) -> None:
    """Answer the lines of a slice and commit them, unless the claim was lost meanwhile."""
    with Lease(lambda: slices.renew_slice(claim)):
        try:
            job = slices.load_job(claim)
            read = read_slice(claim, job)
            paid = reserve_slice(claim, job, read)
            result = _write(claim, _run(read, job), paid)
            outcome = slices.write_slice(claim, result)
        except errors.PaymentRequired as error:
            stages.stop(claim.id, job, error)
            return
        except Exception as error:
            log.exception("a slice will be tried again", job_id=str(claim.job_id), slice=claim.number, attempt=claim.attempts)
            _give_back(claim, counts=not _store_is_away(error))
            return
        except BaseException:  # the process is told to end at once
            slices.give_back(claim, counts=False, pause=timedelta(0))
            raise
    if outcome is slices.Outcome.LOST:
        parts.delete_part(claim.job_id, claim.number, claim.fence)
    if outcome is slices.Outcome.LAST:
        finish_batch(claim.tenant_id, claim.job_id)


def _give_back(claim: slices.Claim, *, counts: bool) -> None:
    """Say that the slice is free, and wait for a database that is away: a slice that is let go without a word counts as
    one that ended its worker."""
    for _ in range(AWAY_TRIES):
        try:
            return slices.give_back(claim, counts=counts)
        except (OperationalError, InterfaceError):
            connection.close()
            time.sleep(AWAY_SECONDS)
    return slices.give_back(claim, counts=counts)


def _store_is_away(error: Exception) -> bool:
    return isinstance(error, DatabaseError | InterfaceError | OSError) and not isinstance(error, FileNotFoundError)


def read_slice(claim: slices.Claim, job: Any) -> list[Request | Answer]:
    """A request or a refusal for each line, in order. A slice that failed too often, or ended its workers, is not run again."""
    rows = read_rows(claim, job)
    if claim.is_given_up:
        return [Answer(lines.passed_by(job.id, line, "worker_crashed", CRASHED if len(rows) == 1 else BROKEN)) for line in rows]
    if claim.attempts > slices.ATTEMPTS:
        return [Answer(lines.passed_by(job.id, line, "server_error", FAILED)) for line in rows]
    read = _Reader(job, claim.repeats)
    return [read.request(line) for line in rows]


def read_rows(claim: slices.Claim, job: Any) -> list[lines.Line]:
    """The lines of a slice but for blank ones."""
    with files.open_file(job.tenant, job.batch.input_file_id) as body:
        rows = lines.read_lines(body, number=claim.first_line, start=claim.start, count=claim.lines)
        return [line for line in rows if not line.is_blank]


def reserve_slice(claim: slices.Claim, job: Any, read: list[Request | Answer]) -> dict[str, UUID]:
    """Set aside what the requests can cost: a reservation for each model. A slice that was lost is not run."""
    requests = [item for item in read if isinstance(item, Request)]
    most: dict[str, int] = defaultdict(int)
    for request in requests:
        most[request.version.model.name] += request.most
    paid = paying.reserve_slice(claim, job, most=most, likely=sum(request.likely for request in requests))
    if paid is None:
        raise slices.NotPaid
    return paid


# ---------- lines to requests ----------
class _Reader:
    """Turns lines of one job into requests, or into the error that their line becomes."""

    def __init__(self, job: Any, repeats: Container[int]) -> None:
        self.job = job
        self.repeats = repeats
        self.versions: dict[str, catalog.Version | errors.MaasError] = {}

    def request(self, line: lines.Line) -> Request | Answer:
        """The request of a line, or an answer that refuses it."""
        try:
            row = lines.read_row(line, self.job.batch.endpoint, self.repeats)
        except lines.LineError as error:
            return Answer(lines.unreadable(self.job.id, line, error))
        identity = lines.line_id(self.job.id, line.number)
        try:
            return self._check(line, row["custom_id"], identity, row.get("body"))
        except errors.MaasError as error:
            return Answer(lines.refused(identity, row["custom_id"], error))

    def _check(self, line: lines.Line, custom_id: str, identity: UUID, body: Any) -> Request:
        asked = read_body(self.job.batch.endpoint, body)
        version = self._version(asked.model)
        asked.check(version)
        spec = spec_for(version.model.task)
        try:
            clean, options = inference.check_inputs(self.job.tenant, spec, asked.inputs), spec.check_parameters(asked.parameters)
        except errors.MaasError as error:
            raise asked.told(error) from None
        most, likely = inference.most_units(version, spec, clean, options), inference.likely_units(version, spec, clean)
        return Request(line.number, custom_id, identity, version, clean, options, asked, most, likely)

    def _version(self, reference: str) -> catalog.Version:
        """The pinned version of a reference, looked up once a slice."""
        if reference not in self.versions:
            try:
                pinned = self.job.batch.versions.get(reference)
                self.versions[reference] = catalog.get_version(UUID(pinned)) if pinned else _resolve(self.job, reference)
            except errors.MaasError as error:
                self.versions[reference] = error
        found = self.versions[reference]
        if isinstance(found, errors.MaasError):
            raise found
        return found


def _resolve(job: Any, reference: str) -> catalog.Version:
    return catalog.resolve(job.tenant, reference, allowed=job.batch.allowed_models)


# ---------- requests to answers ----------
def _run(read: list[Request | Answer], job: Any) -> list[Answer]:
    """Answer what can be asked, each version's requests as one batch, and keep the order of the lines."""
    groups: dict[UUID, list[Request]] = defaultdict(list)
    for item in read:
        if isinstance(item, Request):
            groups[item.version.id].append(item)
    done: dict[int, Answer] = {}
    for requests in groups.values():
        done |= _run_group(requests, job)
    return [item if isinstance(item, Answer) else done[item.number] for item in read]


def _run_group(requests: list[Request], job: Any) -> dict[int, Answer]:
    _, predictor = LOADED.get(requests[0].version.id)
    waited_ms, begun = (time.time() - job.started_at.timestamp()) * 1000, time.monotonic()
    results = iter(_predict(predictor, requests))
    each_ms = (time.monotonic() - begun) * 1000 / max(sum(len(request.inputs) for request in requests), 1)
    mine = {request.number: [next(results) for _ in request.inputs] for request in requests}
    return {request.number: _answer(request, mine[request.number], waited_ms, each_ms * len(request.inputs)) for request in requests}


def _predict(predictor: Any, requests: list[Request]) -> list[Any]:
    """A prediction or an exception for every input. When a whole batch fails, its lines are tried one by one."""
    inputs = [value for request in requests for value in request.inputs]
    parameters = [request.parameters for request in requests for _ in request.inputs]
    try:
        return list(predictor.predict(inputs, parameters))
    except Exception as error:
        log.exception("a batch failed", inputs=len(inputs), lines=len(requests))
        if len(requests) == 1:
            return [error for _ in inputs]
        return [result for request in requests for result in _predict(predictor, [request])]


def _answer(request: Request, results: list[Any], queue_ms: float, compute_ms: float) -> Answer:
    """The bytes of a line's answer, or of the error that it becomes."""
    version = request.version
    try:
        outcome = outcome_of(version.rate, results, as_list=isinstance(request.body.inputs, list))
    except errors.MaasError as error:
        return Answer(lines.refused(request.identity, request.custom_id, request.body.told(error)))
    units = min(outcome.units, request.most)  # nobody pays more than was reserved
    answer = queue.Answer(outcome.outputs, units, queue_ms, compute_ms, None, outcome.quantity, len(results))
    body = request.body.render(request.identity, version, answer)
    return Answer(lines.answered(request.identity, request.custom_id, 200, body), version, outcome.quantity, units)


# ---------- answers to a part ----------
def _write(claim: slices.Claim, answers: list[Answer], paid: dict[str, UUID]) -> slices.Result:
    """Store the part, then say what is to be committed."""
    output = b"".join(answer.raw for answer in answers if answer.version)
    failed = b"".join(answer.raw for answer in answers if not answer.version)
    parts.write_part(claim.job_id, claim.number, claim.fence, output, failed)
    completed = sum(answer.version is not None for answer in answers)
    return slices.Result(len(output), completed, len(answers) - completed, list(_usage(claim, answers, paid)))


def _usage(claim: slices.Claim, answers: list[Answer], paid: dict[str, UUID]) -> Iterable[usage.UsageLine]:
    """One line of the ledger for each version, named after the slice: a slice that runs twice is counted once."""
    versions = {answer.version.id: answer.version for answer in answers if answer.version}
    for version in versions.values():
        mine = [answer for answer in answers if answer.version and answer.version.id == version.id]
        yield usage.UsageLine(
            source=f"slice:{claim.job_id.hex}:{claim.number}:{version.id.hex}", kind="slice",
            model=version.model.name, version=version.number, unit=version.rate["unit"],
            quantity=sum(answer.quantity for answer in mine), units=sum(answer.units for answer in mine),
            requests=len(mine), key_id=claim.key_id, job_id=claim.job_id,
            reservation=paid[version.model.name],
        )  # fmt: skip
