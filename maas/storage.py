"""Object storage in a folder: a name appears once all its bytes are on the disk, and not before."""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.files.storage import FileSystemStorage

UNFINISHED = ".new"


class StorageAway(OSError):
    """The place where files lie cannot be reached, or refuses us. It passes, so what was being done can be done again."""


class FolderStorage(FileSystemStorage):
    """Django's folder storage, made safe against a crash or a power cut in the middle of a write.

    Saving under a name that exists replaces it as a whole, as an object store does. What a crash leaves behind lies
    beside the name, and goes with it when it is deleted or written again.
    """

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        return name

    def _save(self, name: str, content: Any) -> str:
        target = Path(self.path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        new = _unfinished(target)
        with new.open("wb") as body:
            for chunk in content.chunks():
                body.write(chunk)
            body.flush()
            os.fsync(body.fileno())
        new.replace(target)
        _sync_folder(target.parent)
        return name

    def delete(self, name: str) -> None:
        _unfinished(Path(self.path(name))).unlink(missing_ok=True)
        super().delete(name)

    def delete_folder(self, folder: str) -> None:
        """Remove everything below a folder; removing what is gone is no error."""
        shutil.rmtree(self.path(folder), ignore_errors=True)

    def walk(self, folder: str) -> Iterator[tuple[str, datetime]]:
        """Every name below a folder with the moment when it was written."""
        for place, _, files in os.walk(self.path(folder)):
            for file in files:
                path = Path(place, file)
                with suppress(FileNotFoundError):  # it went a moment ago
                    name = path.relative_to(self.location).as_posix().removesuffix(UNFINISHED)
                    yield name, datetime.fromtimestamp(path.stat().st_mtime, UTC)

    def is_reachable(self) -> bool:
        """Whether files can be read and written now."""
        return not Path(self.location).exists() or os.access(self.location, os.R_OK | os.W_OK | os.X_OK)


def _unfinished(target: Path) -> Path:
    return target.with_name(target.name + UNFINISHED)


def _sync_folder(folder: Path) -> None:
    """The entry in the folder has to reach the disk too, or the bytes have no name after a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
