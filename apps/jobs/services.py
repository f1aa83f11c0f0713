"""Jobs as a tenant sees them: start a batch, look, cancel."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models import Count, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from apps.accounts.services import ApiKey, Tenant
from apps.billing.plans import plan_of
from apps.files import services as files
from apps.jobs import stages
from apps.jobs.models import Batch, Job, JobEvent, Kind, State
from maas import errors, ids
from maas.actors import Permission, current_actor, require
from maas.events import BatchCreated, publish
from maas.queue import enqueue
from maas.tenancy import as_tenant

ENDPOINTS = ("/v1/predictions", "/v1/embeddings")
WINDOWS = {"24h": timedelta(hours=24)}
ON_INVALID, FAIL, SKIP = "on_invalid", "fail", "skip"  # what a pair of the metadata says of lines that are no requests
METADATA_PAIRS, METADATA_NAME, METADATA_VALUE = 16, 64, 512
RETRY_SECONDS = 10  # after which a place for another job may be free
ACTIVE = (State.QUEUED, State.RUNNING, State.CANCELLING, State.PAUSED)


# ---------- starting ----------
def create_batch(
    tenant: Tenant, *, input_file_id: str, endpoint: str, completion_window: str, metadata: dict[str, str] | None = None,
    key: ApiKey | None = None, output_expires_in: int | None = None,
) -> Job:  # fmt: skip
    """Start a batch over an uploaded file; a worker checks the file first. `output_expires_in` is in seconds.

    Raises BadRequest that names the field, NotFound for a file that the tenant does not have, and RateLimited while as many
    jobs are unfinished as its plan allows.
    """
    require(tenant.id, Permission.JOBS)
    metadata = {} if metadata is None else metadata
    check_batch(endpoint, completion_window, metadata, output_expires_in)
    with as_tenant(tenant.id):
        _check_room(tenant)
        file = _hold_input(tenant, input_file_id)
        expires_at = timezone.now() + WINDOWS[completion_window]
        job = Job.objects.create(tenant=tenant, kind=Kind.BATCH, key_id=key.id if key else None, expires_at=expires_at)
        Batch.objects.create(
            tenant=tenant, job=job, endpoint=endpoint, completion_window=completion_window, input_file=file,
            metadata=metadata, output_expires_in=output_expires_in, allowed_models=list(current_actor().models),
        )  # fmt: skip
        stages.add_event(job, _("Created. The file is checked next."))
        details = {"endpoint": endpoint, "input_file": input_file_id}
        publish(BatchCreated(tenant_id=tenant.id, job_id=job.id, label=file.filename, after=details))
        enqueue("workers.tasks.validate_batch", queue="batch", tenant_id=str(tenant.id), job_id=str(job.id))
    return job


def _check_room(tenant: Tenant) -> None:
    """Raises RateLimited at the plan's number of unfinished jobs. The tenant's row is held, so two requests cannot pass together."""
    most = plan_of(tenant.plan).concurrent_jobs
    if most is None:
        return
    Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)
    if Job.objects.filter(tenant=tenant, state__in=ACTIVE).count() >= most:
        message = _("Your plan runs %(n)d jobs at a time. Wait until one has ended, or cancel one.") % {"n": most}
        raise errors.RateLimited(message, code="too_many_jobs", retry_after=RETRY_SECONDS)


def _hold_input(tenant: Tenant, input_file_id: str) -> Any:
    try:
        file = files.hold_file(tenant, files.parse_id(input_file_id))
    except errors.NotFound as error:
        error.param = "input_file_id"
        raise
    if file.purpose != "batch":
        words = {"name": file.filename, "purpose": file.purpose}
        message = _("'%(name)s' was uploaded for '%(purpose)s'. Upload it with the purpose 'batch'.") % words
        raise errors.BadRequest(message, param="input_file_id", code="invalid_purpose")
    return file


def check_batch(endpoint: str, completion_window: str, metadata: dict[str, str], output_expires_in: int | None) -> None:
    """Raises BadRequest for what a batch cannot be started with."""
    _check_choice("endpoint", endpoint, ENDPOINTS)
    _check_choice("completion_window", completion_window, tuple(WINDOWS))
    _check_metadata(metadata)
    if metadata.get(ON_INVALID, FAIL) not in {FAIL, SKIP}:
        message = _("'%(value)s' is not known. Use '%(fail)s' (or leave it out) or '%(skip)s'.")
        words = {"value": metadata[ON_INVALID][:100], "fail": FAIL, "skip": SKIP}
        raise errors.BadRequest(message % words, param=f"metadata.{ON_INVALID}", code="invalid_value")
    if output_expires_in is not None and not files.SHORTEST_LIFE <= output_expires_in <= files.LONGEST_LIFE:
        message = _("Must be from %(least)d to %(most)d.") % {"least": files.SHORTEST_LIFE, "most": files.LONGEST_LIFE}
        raise errors.BadRequest(message, param="output_expires_after.seconds", code="invalid_value")


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        words = {"value": value[:100], "name": name, "known": ", ".join(known)}
        message = _("'%(value)s' cannot be the %(name)s of a batch. Use %(known)s.") % words
        raise errors.BadRequest(message, param=name, code=f"invalid_{name}")


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict):
        raise errors.BadRequest(_("Must be an object of texts."), param="metadata", code="invalid_type")
    if len(metadata) > METADATA_PAIRS:
        message = _("Has %(n)d pairs; the limit is %(most)d.") % {"n": len(metadata), "most": METADATA_PAIRS}
        raise errors.BadRequest(message, param="metadata", code="too_long")
    for name, value in metadata.items():
        param = f"metadata.{name[:METADATA_NAME]}"
        if not isinstance(value, str):
            raise errors.BadRequest(_("Must be a text."), param=param, code="invalid_type")
        if not 1 <= len(name) <= METADATA_NAME or len(value) > METADATA_VALUE:
            message = _("Names have 1 to %(name)d characters, values up to %(value)d.") % {"name": METADATA_NAME, "value": METADATA_VALUE}
            raise errors.BadRequest(message, param=param, code="too_long")
        if "\0" in name + value:
            raise errors.BadRequest(_("Must not hold the character NUL."), param=param, code="invalid_value")


# ---------- looking ----------
def get_job(tenant: Tenant, job_id: UUID) -> Job:
    """One of the tenant's jobs, with its detail row and files; NotFound for any other."""
    with as_tenant(tenant.id):
        found = _jobs(tenant).filter(pk=job_id).first()
    if found is None:
        raise errors.NotFound(_("There is no batch '%(id)s'.") % {"id": ids.encode(ids.BATCH, job_id)}, param="id", code="batch_not_found")
    return found


get_batch = get_job  # batches are the only kind so far


def list_jobs(
    tenant: Tenant, *, state: str | tuple[str, ...] | None = None, search: str | None = None, after: UUID | None = None, limit: int = 25
) -> tuple[list[Job], bool]:
    """A page of jobs, newest first, and whether there are more. `search` looks at file names, models, metadata and ids."""
    rows = _jobs(tenant)
    if state:
        rows = rows.filter(state__in=[state] if isinstance(state, str) else state)
    if search:
        rows = rows.filter(_matches(search.replace("\0", "")))
    if after:
        rows = rows.filter(id__lt=after)
    with as_tenant(tenant.id):
        found = list(rows.order_by("-id")[: limit + 1])
    return found[:limit], len(found) > limit


def _matches(search: str) -> Q:
    job_id = ids.decode(ids.BATCH, search)
    if job_id:
        return Q(pk=job_id)
    return Q(batch__input_file__filename__icontains=search) | Q(model_names__icontains=search) | Q(batch__metadata__icontains=search)


def list_batches(tenant: Tenant, *, after: UUID | None = None, limit: int = 20) -> tuple[list[Job], bool]:
    """A page of batches, newest first, and whether there are more."""
    return list_jobs(tenant, after=after, limit=limit)


def job_counts(tenant: Tenant) -> dict[str, int]:
    """How many jobs are in each state; a state without any is left out."""
    with as_tenant(tenant.id):
        return dict(Job.objects.filter(tenant=tenant).values_list("state").annotate(Count("id")).order_by())


def count_active(tenant: Tenant) -> int:
    """Jobs that have not ended."""
    with as_tenant(tenant.id):
        return Job.objects.filter(tenant=tenant, state__in=ACTIVE).count()


def list_events(tenant: Tenant, job_id: UUID, limit: int = 100, after: UUID | None = None) -> list[JobEvent]:
    """What a job told, newest first; `after` is the last event of the page before."""
    job = get_job(tenant, job_id)
    with as_tenant(tenant.id):
        rows = JobEvent.objects.filter(job=job).order_by("-id")
        return list((rows.filter(id__lt=after) if after else rows)[:limit])


def list_events_since(tenant: Tenant, job_id: UUID, *, after: UUID | None, limit: int) -> list[JobEvent]:
    """What a job told after an event (None: from the start), oldest first."""
    job = get_job(tenant, job_id)
    with as_tenant(tenant.id):
        rows = JobEvent.objects.filter(tenant=tenant, job=job).order_by("id")
        return list((rows.filter(id__gt=after) if after else rows)[:limit])


def _jobs(tenant: Tenant) -> QuerySet[Job]:
    files_too = ("batch__input_file", "batch__output_file", "batch__error_file")
    return Job.objects.filter(tenant=tenant).select_related(*files_too)


# ---------- cancelling ----------
def cancel_batch(tenant: Tenant, job_id: UUID) -> Job:
    """Stop a batch: lines in work are finished, the others are not begun. Cancelling twice changes nothing.

    Raises BadRequest when it has ended otherwise.
    """
    require(tenant.id, Permission.JOBS)
    job = get_job(tenant, job_id)
    if not stages.cancel(job):
        job = get_job(tenant, job_id)
        if job.state not in {State.CANCELLING, State.CANCELLED}:
            message = _("A batch that is %(state)s cannot be cancelled.") % {"state": stages.openai_status(job)}
            raise errors.BadRequest(message, param="id", code="invalid_state")
    stages.close_slices(tenant.id, job.id)
    return get_job(tenant, job_id)
