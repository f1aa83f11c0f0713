"""The bytes of files in object storage."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO
from uuid import UUID

from django.core.files.base import File as Content
from django.core.files.storage import default_storage

from maas import errors

FOLDER = "tenants"
PATH = re.compile(rf"{FOLDER}/([0-9a-f]{{32}})/files/([0-9a-f]{{32}})")


def body_path(tenant_id: UUID, file_id: UUID) -> str:
    """Where the body of a file lies in storage."""
    return f"{FOLDER}/{tenant_id.hex}/files/{file_id.hex}"


def read_path(name: str) -> tuple[UUID, UUID] | None:
    """The tenant and the file whose body has this name; None for anything else."""
    found = PATH.fullmatch(name)
    return (UUID(found[1]), UUID(found[2])) if found else None


class Measured(Content):
    """A stream of chunks on its way into storage, counted and hashed as it passes. TooLarge when it passes `limit` bytes."""

    def __init__(self, chunks: Iterable[bytes], limit: int | None) -> None:
        super().__init__(None)
        self.source = iter(chunks)
        self.limit = limit
        self.length = 0
        self.digest = hashlib.sha256()

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        for chunk in self.source:
            self.length += len(chunk)
            if self.limit is not None and self.length > self.limit:
                raise too_large(self.limit)
            self.digest.update(chunk)
            yield chunk


def too_large(limit: int) -> errors.TooLarge:
    """What an upload past the limit is told."""
    return errors.TooLarge(f"The file is larger than {limit // 2**20} MB. Split it.", param="file", code="file_too_large")


def write_body(tenant_id: UUID, file_id: UUID, chunks: Iterable[bytes], *, limit: int | None = None) -> tuple[int, str]:
    """Store the bytes; their number and sha256 come back."""
    content = Measured(chunks, limit)
    default_storage.save(body_path(tenant_id, file_id), content)
    return content.length, content.digest.hexdigest()


def open_body(tenant_id: UUID, file_id: UUID) -> BinaryIO:
    """The bytes for reading and seeking; the caller closes it."""
    return default_storage.open(body_path(tenant_id, file_id), "rb")  # type: ignore[return-value]


def delete_body(tenant_id: UUID, file_id: UUID) -> None:
    """Remove the bytes; removing what is gone is no error."""
    default_storage.delete(body_path(tenant_id, file_id))
