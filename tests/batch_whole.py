"""What has to be true of a batch, its files, its usage and its tenant, whatever happened on the way. Each check tells what is wrong."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.core.files.storage import default_storage
from django.utils import timezone

from apps.accounts.models import Tenant
from apps.files import services as files
from apps.files.models import File
from apps.jobs import parts, slices, sweeping
from apps.jobs import services as jobs
from apps.jobs.models import Job, JobEvent
from apps.usage import reconciling
from apps.usage import services as usage
from apps.usage.models import Reservation, UsageRecord
from maas.tenancy import as_tenant
from tests.books import audit_books

PRICE = 3  # units of a picture, of the tiny model
NOT_RUN = {"batch_cancelled"}
GIVEN_UP = {"server_error", "worker_crashed"}  # none is: no round kills the worker of a line often enough


@dataclass
class Batch:
    """A batch that was started: `lines` are custom_ids in order with the number of their pictures, 0 for a bad body. The line
    None is no request at all, and is skipped."""

    job: Job
    lines: dict[str | None, int]
    is_broken: bool = False  # the file holds a line that fails the whole batch
    is_cancelled: bool = False

    @property
    def now(self) -> Job:
        return jobs.get_job(Tenant(id=self.job.tenant_id), self.job.id)


@dataclass
class Found:
    """A batch as it ended: its job, and the lines of its two files."""

    job: Job
    output: list[dict[str, Any]]
    errors: list[dict[str, Any]]

    @property
    def not_run(self) -> list[dict[str, Any]]:
        return [row for row in self.errors if row["error"] and row["error"]["code"] in NOT_RUN]

    @property
    def given_up(self) -> list[dict[str, Any]]:
        return [row for row in self.errors if row["error"] and row["error"]["code"] in GIVEN_UP]


def find(batch: Batch) -> Found:
    """Read what a batch has become."""
    job = batch.now
    return Found(job, _rows(job, job.batch.output_file), _rows(job, job.batch.error_file))


def _rows(job: Job, file: File | None) -> list[dict[str, Any]]:
    if file is None:
        return []
    with files.open_file(Tenant(id=job.tenant_id), file.id) as body:
        return [json.loads(raw) for raw in body]


def what_is_wrong(batch: Batch) -> list[str]:
    """Everything that is wrong with a batch that has ended."""
    found = find(batch)
    checks = (_ending, _files, _answers, _charges, _events) if not batch.is_broken else (_broken, _charges, _events)
    told = [f"{batch.job.id}: {text}" for check in checks for text in check(batch, found)]
    if found.given_up:
        told.append(f"{batch.job.id}: {len(found.given_up)} lines were given up: {found.given_up[0]}")
    return told


def _ending(batch: Batch, found: Found) -> Iterator[str]:
    job = found.job
    wanted = "cancelled" if batch.is_cancelled else "succeeded"
    if job.state != wanted:
        yield f"it is {job.state}, not {wanted}: {job.error}"
    if job.batch.input_file.holds:
        yield f"its input file is still held {job.batch.input_file.holds} times"
    if found.not_run and not batch.is_cancelled:
        yield f"{len(found.not_run)} lines were not run"
    counted, there = (job.completed, job.failed), (len(found.output), len(found.errors) - len(found.not_run))
    if counted != there:
        yield f"its counts are {counted}, its files hold {there}"
    if job.started_at and job.total != len(batch.lines):
        yield f"it counts {job.total} lines of {len(batch.lines)}"


def _broken(batch: Batch, found: Found) -> Iterator[str]:
    job = found.job
    wanted = {"cancelled"} if batch.is_cancelled else {"failed"}
    if job.state not in wanted or found.output or found.errors or job.batch.input_file.holds:
        yield f"a broken file became {job.state} with {len(found.output)} and {len(found.errors)} lines, {job.batch.input_file.holds} holds"
    if job.state == "failed" and (job.error or {}).get("code") != "invalid_json_line":
        yield f"its error is {job.error}"


def _files(batch: Batch, found: Found) -> Iterator[str]:
    """Each line in one of the files, once, in the order of the input."""
    place = {custom_id: number for number, custom_id in enumerate(batch.lines)}
    for name, rows in (("output", found.output), ("error", found.errors)):
        numbers = [place.get(row["custom_id"], -1) for row in rows]
        if sorted(set(numbers)) != numbers or -1 in numbers:
            yield f"the {name} file is not in order, or holds a line twice, or a strange one"
    answered = {row["custom_id"] for row in found.output + found.errors}
    if found.job.started_at and len(found.output) + len(found.errors) != len(batch.lines):
        missing = sorted(map(str, place.keys() - answered))[:5]
        yield f"{len(found.output)} answers and {len(found.errors)} errors for {len(batch.lines)} lines; missing: {missing}"
    if len({row["id"] for row in found.output + found.errors}) != len(found.output) + len(found.errors):
        yield "two lines have the same id"


def _answers(batch: Batch, found: Found) -> Iterator[str]:
    """Answers where the body is good, as many as pictures; errors where it is bad; the output is the parts that count."""
    for row in found.output:
        wanted, body = batch.lines.get(row["custom_id"], 0), row["response"]["body"]
        if not wanted or body["usage"]["units"] != wanted * PRICE or len(body["outputs"]) != wanted:
            yield f"line {row['custom_id']} with {wanted} pictures was answered {body['usage']}"
    refused = [row for row in found.errors if row not in found.not_run and row not in found.given_up]
    if wrong := [row for row in refused if batch.lines.get(row["custom_id"]) or not _is_refusal(row)]:
        yield f"{len(wrong)} errors that no line earned: {wrong[0]}"
    if not found.job.tidied_at and (text := _differing_parts(found.job)):
        yield text


def _is_refusal(row: dict[str, Any]) -> bool:
    """A 400, or the reason why the line was skipped."""
    if row["custom_id"] is None:
        return bool(row["response"] is None and row["error"]["code"] == "invalid_json_line")
    return bool((row["response"] or {}).get("status_code") == 400)


def _differing_parts(job: Job) -> str | None:
    """What does not fit between the output file and the parts of the claims that committed."""
    rows = [row for row in slices.list_slices(job) if row.state == "done" and row.completed]
    wanted = b"".join(b"".join(parts.read_part(job.id, row.number, row.part or 0, 0, row.output_bytes)) for row in rows)
    if (file := job.batch.output_file) is None:
        return "there are parts and no output file" if wanted else None
    with files.open_file(Tenant(id=job.tenant_id), file.id) as body:
        return None if body.read() == wanted else "the output file is not the parts of the claims that committed"


def _charges(batch: Batch, found: Found) -> Iterator[str]:
    """The ledger is the lines that were answered, to the unit."""
    units = sum(batch.lines.get(row["custom_id"], 0) for row in found.output) * PRICE
    with as_tenant(found.job.tenant_id):
        records = list(UsageRecord.objects.filter(job_id=found.job.id))
        still_open = Reservation.objects.filter(job_id=found.job.id, closed_at=None).count()
    charged = (sum(record.units for record in records), sum(record.requests for record in records))
    if charged != (units, len(found.output)) or found.job.units != units:
        yield f"charged {charged}, the job says {found.job.units}; answered {(units, len(found.output))}"
    if still_open:
        yield f"{still_open} reservations are still open"


def _events(batch: Batch, found: Found) -> Iterator[str]:
    """It ended once, and told each slice once."""
    job = found.job
    with as_tenant(job.tenant_id):
        ends = JobEvent.objects.filter(job=job, data__state__isnull=False).count()
        told = JobEvent.objects.filter(job=job, data__completed__isnull=False).count()
    done = sum(row.state == "done" for row in slices.list_slices(job))
    if ends != 1 or told != done:
        yield f"it told {ends} ends, and {told} slices of {done}"


def what_is_wrong_with_tenant(tenant: Tenant, batches: list[Batch]) -> list[str]:
    """Its files, what it has used and reserved, and the roll-ups, once all of its batches have ended."""
    told = []
    mine = [batch.now for batch in batches if batch.job.tenant_id == tenant.id]
    try:
        books, units = audit_books(tenant), sum(job.units for job in mine)
        if books != {"used": units, "reserved": 0}:
            told.append(f"{tenant.id}: {books} for {units} units of its batches")
    except AssertionError as error:
        told.append(f"{tenant.id}: {error}")
    with as_tenant(tenant.id):
        there = File.objects.filter(purpose="batch_output").exclude(stored_at=None).count()
        wanted = sum(bool(job.batch.output_file_id) + bool(job.batch.error_file_id) for job in mine)
    return told + ([f"{tenant.id}: {there} files of output, {wanted} of them in a batch"] if there != wanted else [])


def what_is_wrong_with_roll_ups(tenants: list[Tenant]) -> list[str]:
    """Where the roll-ups of these tenants are not the ledger."""
    usage.roll_up()
    names = [str(tenant.id) for tenant in tenants]
    return [str(each) for each in reconciling.differences() if any(name in str(each) for name in names)]


def tidy(batches: list[Batch]) -> list[str]:
    """As if enough time had passed since their ends: nothing that was written on the way is left."""
    for batch in batches:
        with as_tenant(batch.job.tenant_id):
            long_ago = timezone.now() - sweeping.KEEP_PARTS - timedelta(minutes=1)
            Job.objects.filter(pk=batch.job.pk).update(finished_at=long_ago)
    sweeping.sweep_jobs()
    return [f"{batch.job.id}: parts are left: {left[:3]}" for batch in batches if (left := _parts_of(batch.job))]


def _parts_of(job: Job) -> list[str]:
    with suppress(FileNotFoundError):
        return list(default_storage.listdir(parts.folder(job.id))[1])
    return []


def is_over(batch: Batch) -> bool:
    return batch.now.finished_at is not None
