"""Object storage in a bucket of S3 or of a server that speaks like it. Needs the extra `s3`."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from io import BufferedReader
from typing import Any

import structlog
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from storages.backends.s3 import S3Storage
from storages.utils import clean_name

from maas.ranges import open_ranges
from maas.storage import StorageAway

PIECE = 2**23  # bytes of a part of an upload, which is all that is held of it
READS = 4  # of a range, before a connection that breaks off is told
CONNECTIONS = 64
TIMES = {"connect_timeout": 5, "read_timeout": 30, "retries": {"mode": "standard", "total_max_attempts": 4}}
QUICK = {"connect_timeout": 2, "read_timeout": 2, "retries": {"mode": "standard", "total_max_attempts": 1}}

log = structlog.get_logger(__name__)


class BucketStorage(S3Storage):
    """django-storages' backend for private objects, none of which is ever in memory or on this disk as a whole.

    Saving under a name that exists replaces it once all bytes are there. What a crash leaves behind is an upload that
    nobody sees; it goes when its name is deleted. Raises StorageAway when the bucket cannot be reached or refuses us, and
    FileNotFoundError for a name that is not there.
    """

    def __init__(self, **options: Any) -> None:
        self._making = threading.Lock()
        self._resource: Any = None
        self._prober: Any = None
        # Without threads: what is uploaded may come from the database, whose connection belongs to the caller's thread.
        transfer = TransferConfig(multipart_threshold=PIECE, multipart_chunksize=PIECE, use_threads=False)
        settings = {"default_acl": None, "file_overwrite": True, "gzip": False, "transfer_config": transfer}
        super().__init__(**settings, client_config=_config(options.get("endpoint_url"), **TIMES), **options)

    @property
    def connection(self) -> Any:
        """One for all threads: another one for each would take a tenth of a second and megabytes. Only its client is used,
        which threads may share."""
        with self._making:
            if self._resource is None:
                self._resource = self._connect(self.client_config)
        return self._resource

    def _connect(self, config: Config) -> Any:
        return self._create_session().resource("s3", endpoint_url=self.endpoint_url, region_name=self.region_name, config=config)

    @property
    def client(self) -> Any:
        """What speaks to the bucket."""
        return self.connection.meta.client

    def _key(self, name: str) -> str:
        return str(self._normalize_name(clean_name(name)))

    # ---------- writing ----------
    def _save(self, name: str, content: Any) -> str:
        body, extra = _Stream(content.chunks()), self._get_write_parameters(name, content)
        with self._told(name):
            self.client.upload_fileobj(body, self.bucket_name, self._key(name), ExtraArgs=extra, Config=self.transfer_config)
        return str(clean_name(name))

    def delete(self, name: str) -> None:
        with self._told(name):
            self.client.delete_object(Bucket=self.bucket_name, Key=self._key(name))
            self._abort(self._key(name), only=True)

    def delete_folder(self, folder: str) -> None:
        """Remove everything below a folder; removing what is gone is no error."""
        prefix = self._key(folder) + "/"
        with self._told(folder):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket_name, Prefix=prefix)
            for page in pages:
                self._delete_all([entry["Key"] for entry in page.get("Contents", ())])
            self._abort(prefix)

    def _delete_all(self, keys: list[str]) -> None:
        if not keys:
            return
        wanted = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        failed = self.client.delete_objects(Bucket=self.bucket_name, Delete=wanted).get("Errors")
        if failed:
            raise StorageAway(f"{len(failed)} objects of the bucket {self.bucket_name} could not be deleted: {failed[0].get('Message')}")

    def _abort(self, prefix: str, *, only: bool = False) -> None:
        """Forget uploads that were never finished. Not every server can list them; then the bucket's own rules end them."""
        with suppress(ClientError):
            found = self.client.list_multipart_uploads(Bucket=self.bucket_name, Prefix=prefix).get("Uploads", ())
            for upload in found:
                if not only or upload["Key"] == prefix:
                    self.client.abort_multipart_upload(Bucket=self.bucket_name, Key=upload["Key"], UploadId=upload["UploadId"])

    # ---------- reading ----------
    def _open(self, name: str, mode: str = "rb") -> BufferedReader:
        if mode != "rb":
            raise ValueError("Objects are opened for reading alone; save() writes one.")
        with self._told(name):
            head = self.client.head_object(Bucket=self.bucket_name, Key=self._key(name))
        return open_ranges(partial(self._fetch, name, head["ETag"]), head["ContentLength"])

    def _fetch(self, name: str, etag: str, start: int, stop: int) -> bytes:
        """The bytes from `start` up to `stop` of an object as it was when it was opened."""
        wanted = {"Range": f"bytes={start}-{stop - 1}", "IfMatch": etag}
        for left in reversed(range(READS)):
            try:
                with self._told(name):
                    return bytes(self.client.get_object(Bucket=self.bucket_name, Key=self._key(name), **wanted)["Body"].read())
            except StorageAway:
                if not left:
                    raise
        raise AssertionError("unreachable")

    def size(self, name: str) -> int:
        with self._told(name):
            return int(self.client.head_object(Bucket=self.bucket_name, Key=self._key(name))["ContentLength"])

    def exists(self, name: str) -> bool:
        with self._told(name):
            return bool(super().exists(name))

    def listdir(self, name: str) -> tuple[list[str], list[str]]:
        with self._told(name):
            folders, files = super().listdir(name)
        return folders, files

    def walk(self, folder: str) -> Iterator[tuple[str, datetime]]:
        """Every name below a folder with the moment when it was written."""
        above = len(self._key("")) + bool(self._key(""))
        with self._told(folder):
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket_name, Prefix=self._key(folder) + "/"):
                yield from ((entry["Key"][above:], entry["LastModified"]) for entry in page.get("Contents", ()))

    def is_reachable(self) -> bool:
        """Whether the bucket answers us, asked once and quickly."""
        try:
            with self._making:
                self._prober = self._prober or self._connect(_config(self.endpoint_url, **QUICK)).meta.client
            self._prober.head_bucket(Bucket=self.bucket_name)
        except (BotoCoreError, ClientError) as error:
            log.warning("the bucket cannot be reached", bucket=self.bucket_name, error=str(error))
            return False
        return True

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Errors as those who store files know them."""
        try:
            yield
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in {"404", "NoSuchKey"}:
                raise FileNotFoundError(f"There is no object {name}.") from error
            raise StorageAway(f"The bucket '{self.bucket_name}' refused us: {error}") from error
        except BotoCoreError as error:
            raise StorageAway(f"The bucket '{self.bucket_name}' cannot be reached: {error}") from error


def _config(endpoint: str | None, **times: Any) -> Config:
    """Other servers than Amazon's have no name for each bucket, and not all know the newest checksums."""
    others = {"s3": {"addressing_style": "path"}, "request_checksum_calculation": "when_required"} if endpoint else {}
    if endpoint:
        others["response_checksum_validation"] = "when_required"
    return Config(signature_version="s3v4", max_pool_connections=CONNECTIONS, **others, **times)


class _Stream:
    """Chunks of any length as something to read from; an upload wants its parts of one length."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks, self._held = iter(chunks), bytearray()

    def read(self, size: int = PIECE) -> bytes:
        """The next `size` bytes; fewer at the end alone."""
        while len(self._held) < size and (chunk := next(self._chunks, None)) is not None:
            self._held += chunk
        found = bytes(memoryview(self._held)[:size])
        del self._held[:size]
        return found
