"""Files: keep bytes, give them back, forget them in time."""

from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from typing import BinaryIO
from uuid import UUID

from django.conf import settings
from django.db.models import F, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from apps.accounts.services import Tenant
from apps.files import bodies, room
from apps.files.models import File, Purpose, Status
from maas import errors, ids, pictures
from maas.actors import Permission, require
from maas.events import FileCreated, FileDeleted, FileExpired, publish
from maas.storage import StorageAway
from maas.tenancy import SystemUse, as_system, as_tenant

UPLOAD_PURPOSES = (Purpose.BATCH, Purpose.FINE_TUNE, Purpose.VISION)
PURPOSES = tuple(Purpose.values)
FILENAME_LIMIT = 255  # characters
LIST_LIMIT = 10_000
SHORTEST_LIFE, LONGEST_LIFE = 3600, 30 * 24 * 3600  # seconds that `expires_after` may ask for
UPLOAD_HOURS = 24  # an upload that began longer ago has broken off
SWEEP_LIMIT = 200  # files of one sweep, so that it stays short


# ---------- making ----------
def create_file(
    tenant: Tenant, *, filename: str, purpose: str, chunks: Iterable[bytes], expires_in: int | None = None, file_id: UUID | None = None
) -> File:
    """Store an upload. `expires_in` is in seconds. An upload that is repeated names its `file_id`, and is stored once.

    Raises BadRequest for a name, purpose or expiry that does not fit and for an empty file, TooLarge past the limit,
    PaymentRequired past what the plan stores.
    """
    require(tenant.id, Permission.FILES)
    check_upload(filename, purpose, expires_in)
    if file_id and (stored := _stored_before(tenant, file_id)):
        return stored
    room.check_room(tenant)
    file = begin_file(tenant, filename=filename, purpose=purpose, expires_in=expires_in, file_id=file_id)
    try:
        write_file(file, chunks, limit=settings.MAAS_FILE_LIMIT)
        if not file.bytes:
            raise errors.BadRequest(_("The file is empty."), param="file", code="empty_file")
    except BaseException:
        discard_file(file)
        raise
    _let_in(tenant, file)
    return file


def _let_in(tenant: Tenant, file: File) -> None:
    """Let an upload be seen if the plan has room for it."""
    try:
        with as_tenant(tenant.id):
            room.take_room(tenant, file.bytes)
            finish_file(file)
            made = {"purpose": file.purpose, "bytes": file.bytes}
            publish(FileCreated(tenant_id=tenant.id, file_id=file.id, label=file.filename, after=made))
    except errors.PaymentRequired:
        discard_file(file)
        raise


def check_upload(filename: str, purpose: str, expires_in: int | None) -> None:
    """Raises BadRequest that names the field, before any byte is stored."""
    _check_purpose(purpose, UPLOAD_PURPOSES)
    check_filename(filename)
    if expires_in is not None and not SHORTEST_LIFE <= expires_in <= LONGEST_LIFE:
        raise errors.BadRequest(
            _("'expires_after[seconds]' must be from %(least)d to %(most)d.") % {"least": SHORTEST_LIFE, "most": LONGEST_LIFE},
            param="expires_after[seconds]", code="invalid_value",
        )  # fmt: skip


def _check_purpose(purpose: str, known: tuple[str, ...]) -> None:
    if purpose not in known:
        message = _("'purpose' must be one of: %(known)s.") % {"known": ", ".join(known)}
        raise errors.BadRequest(message, param="purpose", code="invalid_purpose")


def check_filename(filename: str) -> None:
    """Raises BadRequest for a name that is empty, longer than 255 characters or holds control characters."""
    if not filename.strip() or len(filename) > FILENAME_LIMIT or not filename.isprintable():
        message = _("Give the file a name of 1 to %(n)d printable characters.") % {"n": FILENAME_LIMIT}
        raise errors.BadRequest(message, param="file", code="invalid_filename")


def _stored_before(tenant: Tenant, file_id: UUID) -> File | None:
    """The file that an earlier attempt stored; what one left unfinished is forgotten."""
    with as_tenant(tenant.id):
        File.objects.filter(tenant=tenant, pk=file_id, stored_at=None).delete()
        return File.objects.filter(tenant=tenant, pk=file_id).first()


def begin_file(tenant: Tenant, *, filename: str, purpose: str, expires_in: int | None = None, file_id: UUID | None = None) -> File:
    """A row that nobody sees yet, committed before the first byte is stored."""
    now = timezone.now()
    expires_at = now + timedelta(seconds=expires_in) if expires_in else None
    with as_tenant(tenant.id):
        return File.objects.create(id=file_id or ids.uuid7(), tenant=tenant, filename=filename, purpose=purpose, expires_at=expires_at)


def write_file(file: File, chunks: Iterable[bytes], *, limit: int | None = None) -> None:
    """Store the bytes of a begun file and measure them."""
    file.bytes, file.sha256 = bodies.write_body(file.tenant_id, file.id, chunks, limit=limit)


def finish_file(file: File) -> None:
    """Let a begun file be seen, in the caller's transaction: its body is safe. Unavailable when it took too long and was swept."""
    file.stored_at, file.status = timezone.now(), Status.PROCESSED
    measured = {name: getattr(file, name) for name in ("bytes", "sha256", "stored_at", "status")}
    if not File.objects.filter(pk=file.pk, purged_at=None).update(**measured):
        raise errors.Unavailable(_("The upload took too long. Send it again."))


def discard_file(file: File) -> None:
    """Forget a begun file and its bytes."""
    bodies.delete_body(file.tenant_id, file.id)
    with as_tenant(file.tenant_id):
        File.objects.filter(pk=file.pk, stored_at=None).delete()


# ---------- reading ----------
def parse_id(text: str) -> UUID:
    """The UUID behind `file-...`; NotFound for any other text."""
    found = ids.decode(ids.FILE, text)
    if found is None:
        raise _missing(text[:100])
    return found


def list_files(
    tenant: Tenant, *, purpose: str | None = None, after: UUID | None = None, limit: int = 20, order: str = "desc"
) -> tuple[list[File], bool]:
    """A page of files by age, and whether there are more. `after` is the last file of the page before."""
    rows = _visible(tenant)
    if purpose is not None:
        _check_purpose(purpose, PURPOSES)
        rows = rows.filter(purpose=purpose)
    if after:
        rows = rows.filter(id__lt=after) if order == "desc" else rows.filter(id__gt=after)
    with as_tenant(tenant.id):
        found = list(rows.order_by("-id" if order == "desc" else "id")[: limit + 1])
    return found[:limit], len(found) > limit


def get_file(tenant: Tenant, file_id: UUID) -> File:
    """One of the tenant's files; NotFound for any other."""
    with as_tenant(tenant.id):
        found = _visible(tenant).filter(pk=file_id).first()
    if found is None:
        raise _missing(ids.encode(ids.FILE, file_id))
    return found


def open_file(tenant: Tenant, file_id: UUID) -> BinaryIO:
    """The bytes of a file for reading and seeking; the caller closes it."""
    file = get_file(tenant, file_id)
    try:
        return bodies.open_body(file.tenant_id, file.id)
    except FileNotFoundError:  # deleted a moment ago
        raise _missing(ids.encode(ids.FILE, file_id)) from None


def read_bytes(tenant: Tenant, file_id: UUID, *, limit: int = pictures.BYTE_LIMIT) -> bytes:
    """All bytes of a small file, such as a picture; BadRequest when it has more than `limit`."""
    file = get_file(tenant, file_id)
    if file.bytes > limit:
        raise errors.BadRequest(f"The file has {file.bytes:,} bytes; the limit here is {limit:,}.", code="too_large")
    with open_file(tenant, file_id) as body:
        return body.read()


def _visible(tenant: Tenant) -> QuerySet[File]:
    return File.objects.filter(tenant=tenant, stored_at__isnull=False, deleted_at=None)


def _missing(file_id: str) -> errors.NotFound:
    return errors.NotFound(_("There is no file '%(id)s'.") % {"id": file_id}, param="id", code="file_not_found")


# ---------- holding and deleting ----------
def hold_file(tenant: Tenant, file_id: UUID) -> File:
    """Keep a file from being deleted, in the caller's transaction; every hold needs one `release_file`."""
    if not _visible(tenant).filter(pk=file_id).update(holds=F("holds") + 1):
        raise _missing(ids.encode(ids.FILE, file_id))
    return File.objects.get(pk=file_id)


def release_file(file_id: UUID) -> None:
    """Give a hold back, in the transaction that ends the job."""
    File.objects.filter(pk=file_id).update(holds=F("holds") - 1)


def delete_file(tenant: Tenant, file_id: UUID) -> File:
    """Delete a file: nobody finds it any more, and the next sweep removes its bytes.

    Raises NotFound, and BadRequest while a job still reads it.
    """
    require(tenant.id, Permission.FILES)
    file = get_file(tenant, file_id)
    with as_tenant(tenant.id):
        if not _visible(tenant).filter(pk=file_id, holds=0).update(deleted_at=timezone.now()):
            message = _("'%(name)s' is read by a job that has not finished. Cancel the job or wait for it.") % {"name": file.filename}
            raise errors.BadRequest(message, param="id", code="file_in_use")
        publish(FileDeleted(tenant_id=tenant.id, file_id=file.id, label=file.filename, after={"reason": "deleted"}))
    return file


# ---------- sweep ----------
def sweep_files() -> int:
    """Delete what has expired, then remove the bytes of what is deleted or was never finished; the bodies removed.

    While the storage is away the bytes wait for a later sweep.
    """
    _expire_files()
    count = 0
    with suppress(StorageAway):
        for tenant_id, file_id in _find_purgeable():
            bodies.delete_body(tenant_id, file_id)
            with as_tenant(tenant_id):
                File.objects.filter(pk=file_id).update(purged_at=timezone.now())
            count += 1
    return count


def _expire_files() -> None:
    with as_system(SystemUse.SWEEP):
        due = File.objects.filter(expires_at__lte=timezone.now(), deleted_at=None, holds=0, stored_at__isnull=False)
        found = due.select_for_update(skip_locked=True).order_by("expires_at")[:SWEEP_LIMIT]
        for file in sorted(found, key=lambda file: file.tenant_id):  # events of several tenants go in the order of their ids
            File.objects.filter(pk=file.pk).update(deleted_at=timezone.now())
            kept = {"expired_at": file.expires_at.isoformat()} if file.expires_at else None
            publish(FileExpired(tenant_id=file.tenant_id, file_id=file.id, label=file.filename, after=kept))


def _find_purgeable() -> list[tuple[UUID, UUID]]:
    """Deleted files, and uploads that broke off, as (tenant, file)."""
    broken_off = timezone.now() - timedelta(hours=UPLOAD_HOURS)
    with as_system(SystemUse.SWEEP):
        rows = File.objects.filter(purged_at=None)
        deleted = rows.filter(deleted_at__isnull=False).values_list("tenant_id", "id")[:SWEEP_LIMIT]
        unfinished = rows.filter(stored_at=None, created_at__lt=broken_off).values_list("tenant_id", "id")[:SWEEP_LIMIT]
        return [*deleted, *unfinished]
