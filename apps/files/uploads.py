"""Reading a multipart upload without ever holding more of it than the limit."""

import hashlib
from typing import Any

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import TemporaryFileUploadHandler
from django.core.handlers.wsgi import LimitedStream
from django.http import HttpRequest

from apps.files import bodies
from apps.files.services import check_filename
from maas import errors

CHUNK = 2**20  # bytes that are read at once: each read waits for the event loop
FORM_BYTES = 64 * 2**10  # what the form may weigh besides the file


class LimitedUpload(TemporaryFileUploadHandler):
    """One file named `file`, on disk, stopped as soon as it is too large."""

    chunk_size = CHUNK

    def new_file(self, field_name: str, file_name: str, *args: Any, **kwargs: Any) -> None:
        if field_name != "file":
            message = f"Unknown file field '{field_name[:100]}'. Send the file as 'file'."
            raise errors.BadRequest(message, param=field_name[:100], code="unknown_field")
        if hasattr(self, "file"):
            raise errors.BadRequest("Send one file a call.", param="file", code="invalid_value")
        check_filename(file_name)
        super().new_file(field_name, file_name, *args, **kwargs)

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        if start + len(raw_data) > settings.MAAS_FILE_LIMIT:
            raise bodies.too_large(settings.MAAS_FILE_LIMIT)
        super().receive_data_chunk(raw_data, start)


def limit_upload(request: HttpRequest) -> None:
    """Make a request safe to parse: refuse it by its Content-Length, or stop reading when the file is too large.

    Raises TooLarge before a byte of the body is read.
    """
    length, most = request.META.get("CONTENT_LENGTH") or "", settings.MAAS_FILE_LIMIT + FORM_BYTES
    if length.isdecimal() and int(length) > most:
        raise bodies.too_large(settings.MAAS_FILE_LIMIT)
    if not length and "chunked" in request.META.get("HTTP_TRANSFER_ENCODING", "").lower():
        _read_until_its_end(request, most)
    request.upload_handlers = [LimitedUpload(request)]  # type: ignore[list-item]


def _read_until_its_end(request: HttpRequest, most: int) -> None:
    """Django takes a body that does not say how long it is for none: let it read what comes, up to `most` bytes."""
    request.META["CONTENT_LENGTH"] = str(most)
    request._stream = LimitedStream(request.environ["wsgi.input"], most)  # type: ignore[attr-defined,assignment]


def fingerprint(request: Any) -> bytes:
    """SHA-256 of what an upload says and holds; the body as a whole would differ with its multipart boundary."""
    fields = sorted((name, str(value)) for name, value in request.data.items() if name != "file")
    file = sent_file(request)
    digest = hashlib.sha256(repr((request.path, fields, file.name)).encode())
    for chunk in file.chunks(2**20):
        digest.update(chunk)
    return digest.digest()


def sent_file(request: Any) -> UploadedFile:
    """The uploaded file of a parsed request; BadRequest when there is none."""
    found = request.FILES.get("file")
    if found is None:
        message = "Send the file as the part 'file' of a multipart form, with a file name."
        raise errors.BadRequest(message, param="file", code="missing_field")
    return found  # type: ignore[no-any-return]
