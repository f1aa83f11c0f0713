"""Files of versions on this machine: fetched by sha256 from storage into a cache that may be deleted at any time."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError, InterfaceError

from apps.catalog import services as catalog
from maas import errors
from workers.export import ExportError, exported_folder
from workers.predict import prepare
from workers.runtime import cache
from workers.runtime.graphs import out_of_memory

CHUNK = 2**20  # bytes


class Damaged(RuntimeError):
    """A file in storage is missing or is not what it was; the message says which."""


def fetch_folder(version: catalog.Version) -> Path:
    """The version's files in a local folder, complete or not at all. Damaged if storage has not what the catalogue says."""
    return cache.made_once(_fetched(version), lambda new: _copy(version, new))


def _fetched(version: catalog.Version) -> Path:
    return Path(settings.MAAS_HOME) / "cache" / "versions" / version.digest


def _copy(version: catalog.Version, folder: Path) -> None:
    for filename, digest in version.files.items():
        try:
            found = _copy_file(version, filename, folder / filename)
        except FileNotFoundError as error:
            raise Damaged(f"its file {filename} is missing in storage") from error
        if found != digest:
            raise Damaged(f"its file {filename} in storage has another sha256 than the catalogue says")
    (folder / "manifest.json").write_text(json.dumps(_manifest(version)))


def _copy_file(version: catalog.Version, filename: str, target: Path) -> str:
    """Copy one file; the sha256 of what was copied."""
    found = hashlib.sha256()
    with catalog.open_artifact(version, filename) as source, target.open("wb") as copy:
        while chunk := source.read(CHUNK):
            found.update(chunk)
            copy.write(chunk)
    return found.hexdigest()


def _manifest(version: catalog.Version) -> dict[str, object]:
    """The manifest as it was loaded: it cannot list itself among its files."""
    return {
        "name": version.model.name, "task": version.model.task, "recipe": version.recipe, "rate": version.rate,
        "files": {name: {"sha256": digest} for name, digest in version.files.items()},
    }  # fmt: skip


def export_folder() -> Path:
    """Where exported models are cached."""
    return Path(settings.MAAS_HOME) / "cache" / "exports"


def is_exported(folder: Path) -> bool:
    """Whether opening this version needs no export first."""
    return exported_folder(folder, export_folder()).is_dir()


def prepare_version(version: catalog.Version, report: Callable[[str], None]) -> None:
    """Fetch and export a version, so that loading it later is quick."""
    prepare(fetch_folder(version), export_folder(), report)


def discard(version: catalog.Version) -> None:
    """Delete what is cached of a version, so that the next load makes it anew."""
    folder = _fetched(version)
    if (folder / "manifest.json").exists():
        shutil.rmtree(exported_folder(folder, export_folder()), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


# ---------- what went wrong ----------
def is_cache_damage(error: Exception) -> bool:
    """Whether making the cached files anew could help: they are missing, or nobody can read them."""
    unreadable = type(error).__module__.startswith("onnxruntime.") or type(error) is Exception  # the latter from the tokenizer
    return isinstance(error, FileNotFoundError | json.JSONDecodeError) or (unreadable and not out_of_memory(error))


def told(version: catalog.Version, error: Exception, pause: float) -> Exception:
    """The error that callers of the version read. A store that is away stays what it is, for that passes."""
    away = isinstance(error, DatabaseError | InterfaceError | OSError) and not isinstance(error, FileNotFoundError)
    if away or isinstance(error, errors.MaasError):
        return error
    message = f"The model '{version.model.name}' (version {version.number}) could not be loaded: {_reason(error)}. Nothing was charged. "
    message += f"Try again in {pause:.0f} seconds. If it stays so, call another version, or ask the operator, whose log has the details."
    return errors.Unavailable(message, code="model_unavailable", retry_after=round(pause))


def _reason(error: Exception) -> str:
    """For people who cannot see this machine: no paths, no insides."""
    if isinstance(error, Damaged):
        return str(error)
    if isinstance(error, ExportError):
        return "its weights could not be exported"
    if out_of_memory(error):
        return "there is not enough memory for it"
    if is_cache_damage(error):
        return "its network cannot be read"
    return "it did not get through its first run"
