"""Versions of models on this machine: files fetched by sha256 from storage, predictors kept while memory allows."""

import json
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from django.conf import settings

from apps.catalog import services as catalog
from workers.export import ExportError
from workers.predict import Predictor, prepare
from workers.runtime import cache

MEMORY_LIMIT = 2 * 2**30  # bytes of loaded versions in one process
PAUSE = 30.0  # seconds before a version that failed to load is tried again


def fetch_folder(version: catalog.Version) -> Path:
    """The version's files in a local folder, complete or not at all; a cache that may be deleted at any time."""
    target = settings.MAAS_HOME / "cache" / "versions" / version.digest
    return cache.made_once(target, lambda new: _copy(version, new))


def _copy(version: catalog.Version, folder: Path) -> None:
    for filename in version.files:
        with catalog.open_artifact(version, filename) as source, (folder / filename).open("wb") as copy:
            shutil.copyfileobj(source, copy)
    (folder / "manifest.json").write_text(json.dumps(_manifest(version)))


def _manifest(version: catalog.Version) -> dict[str, object]:
    """The manifest as it was loaded: it cannot list itself among its files."""
    return {
        "name": version.model.name, "task": version.model.task, "recipe": version.recipe, "rate": version.rate,
        "files": {name: {"sha256": digest} for name, digest in version.files.items()},
    }  # fmt: skip


def export_folder() -> Path:
    """Where exported models are cached."""
    return Path(settings.MAAS_HOME) / "cache" / "exports"


def prepare_version(version: catalog.Version, report: Callable[[str], None]) -> None:
    """Fetch and export a version, so that loading it later is quick."""
    prepare(fetch_folder(version), export_folder(), report)


class LoadedVersions:
    """Predictors of one process, the least recently used one dropped when their memory passes the limit."""

    def __init__(self, limit: int = MEMORY_LIMIT) -> None:
        self.limit = limit
        self.loaded: OrderedDict[UUID, tuple[catalog.Version, Predictor]] = OrderedDict()
        self.failed: dict[UUID, tuple[float, Exception]] = {}

    def get(self, version_id: UUID) -> tuple[catalog.Version, Predictor]:
        """The version and its predictor, loaded now if need be. Raises what loading raised, for a while without trying."""
        if version_id not in self.loaded:
            self._load(version_id)
        self.loaded.move_to_end(version_id)
        return self.loaded[version_id]

    def _load(self, version_id: UUID) -> None:
        tried, error = self.failed.pop(version_id, (float("-inf"), Exception()))
        if time.monotonic() - tried < PAUSE:
            self.failed[version_id] = tried, error
            raise error
        try:
            version = catalog.get_version(version_id)
            folder = fetch_folder(version)
            predictor = Predictor(folder, export_folder(), device=settings.MAAS_DEVICE, threads=settings.MAAS_THREADS)
        except ExportError as failure:  # not a store that is away: that passes
            self.failed[version_id] = time.monotonic(), failure
            raise
        self.loaded[version_id] = version, predictor
        self._shrink()

    def _shrink(self) -> None:
        while len(self.loaded) > 1 and sum(predictor.memory_bytes for _, predictor in self.loaded.values()) > self.limit:
            self.loaded.popitem(last=False)


LOADED = LoadedVersions()


def load(version: catalog.Version) -> Predictor:
    """The predictor of a version in this process."""
    return LOADED.get(version.id)[1]
