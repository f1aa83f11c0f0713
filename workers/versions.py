"""Versions of models in this process: loaded once, warmed up, kept while their measured memory allows."""

import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connections

from apps.catalog import services as catalog
from maas import errors
from workers import fetching
from workers.predict import Predictor
from workers.runtime import memory

log = structlog.get_logger("maas.versions")
PAUSE = 30.0  # seconds before a version that failed to load is tried again
AWAY = 2.0  # the same, when a store could not be reached: that passes

Pair = tuple[catalog.Version, Predictor]


@dataclass(frozen=True)
class Loaded:
    """A version that is ready, and the bytes that it holds."""

    version: catalog.Version
    predictor: Predictor
    size: int


@dataclass(frozen=True)
class Failed:
    """What loading raised, and until when (monotonic seconds) it is not tried again."""

    error: Exception
    until: float


class LoadedVersions:
    """Predictors of one process, for any number of threads. The least recently used ones are dropped when all together
    pass `limit` bytes (from settings if it is None); one that is larger alone is served alone.

    A thread that still runs a dropped version keeps it alive until its run ends.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = settings.MAAS_MODEL_MEMORY_MB * 2**20 if limit is None else limit
        self.lock = threading.Lock()  # of what follows; held for moments
        self.loaded: OrderedDict[UUID, Loaded] = OrderedDict()
        self.loading: dict[UUID, Future[Pair]] = {}
        self.failed: dict[UUID, Failed] = {}
        self.mended: set[UUID] = set()  # whose cached files were made anew, which is tried once
        self.exporting = threading.Lock()  # an export takes a core for long: one at a time
        self.opening = threading.Lock()  # one at a time, so that what each adds to memory can be told apart

    def get(self, version_id: UUID) -> Pair:
        """The version and its predictor; waits while it is loaded. Raises what loading raised, for a while without trying."""
        found, promise, is_mine = self._look(version_id)
        if found:
            return found
        if is_mine:
            self._load(version_id, promise)
        return promise.result()

    def ready(self, version_id: UUID) -> Pair | None:
        """The same without waiting: None while a thread in the background loads it."""
        found, promise, is_mine = self._look(version_id)
        if is_mine:
            threading.Thread(target=self._load_behind, args=(version_id, promise), daemon=True, name="loading").start()
        return found

    def sizes(self) -> dict[str, int]:
        """Bytes of each loaded version, by `model@number`."""
        with self.lock:
            return {f"{one.version.model.name}@{one.version.number}": one.size for one in self.loaded.values()}

    def memory_bytes(self) -> int:
        """Bytes of all loaded versions."""
        return sum(self.sizes().values())

    def _look(self, version_id: UUID) -> tuple[Pair | None, Future[Pair], bool]:
        """What is loaded; else the promise of it, and whether the caller is the one to keep that."""
        with self.lock:
            if one := self.loaded.get(version_id):
                self.loaded.move_to_end(version_id)
                return (one.version, one.predictor), Future(), False
            failed = self.failed.get(version_id)
            if failed and time.monotonic() < failed.until:
                raise failed.error.with_traceback(None)
            is_mine = version_id not in self.loading
            return None, self.loading.setdefault(version_id, Future()), is_mine

    def _load_behind(self, version_id: UUID, promise: Future[Pair]) -> None:
        try:
            self._load(version_id, promise)
        finally:
            connections.close_all()  # those of this thread

    def _load(self, version_id: UUID, promise: Future[Pair]) -> None:
        """Keep the promise, or break it with what went wrong."""
        try:
            one = self._opened(version_id)
        except BaseException as error:
            self._note_failure(version_id, error, promise)
            return
        with self.lock:
            self.loaded[version_id] = one
            self.failed.pop(version_id, None)
            self.mended.discard(version_id)
            del self.loading[version_id]
            dropped = self._shrink()
        promise.set_result((one.version, one.predictor))
        log.info("model loaded", model=one.version.model.name, version=one.version.number, megabytes=one.size >> 20)
        if dropped:
            log.info("models dropped from memory", models=dropped)
            memory.give_back()

    def _opened(self, version_id: UUID) -> Loaded:
        """Fetched, exported, opened, warmed up and measured. Raises a MaasError or what a store raised."""
        version = catalog.get_version(version_id)
        try:
            return self._open_or_mend(version)
        except Exception as error:
            failure = fetching.told(version, error, PAUSE)
            if failure is error:
                raise
            raise failure from error

    def _open_or_mend(self, version: catalog.Version) -> Loaded:
        """Cached files may get lost or damaged: once they are made anew."""
        try:
            return self._open(version)
        except Exception as error:
            if version.id in self.mended or not fetching.is_cache_damage(error):
                raise
            log.warning("cached files of a model are damaged and made anew", model=version.model.name, error=str(error))
        self.mended.add(version.id)
        fetching.discard(version)
        return self._open(version)

    def _open(self, version: catalog.Version) -> Loaded:
        folder = fetching.fetch_folder(version)
        if not fetching.is_exported(folder):
            with self.exporting:
                fetching.prepare_version(version, lambda line: None)
        with self.opening:
            predictor, size = memory.grown(lambda: open_warm(folder))
        return Loaded(version, predictor, _size(predictor, size))

    def _note_failure(self, version_id: UUID, error: BaseException, promise: Future[Pair]) -> None:
        wait = PAUSE if isinstance(error, errors.MaasError) else AWAY
        with self.lock:
            if isinstance(error, Exception):
                self.failed[version_id] = Failed(error, time.monotonic() + wait)
            del self.loading[version_id]
        promise.set_exception(error)
        log.error("model failed to load", version_id=str(version_id), exc_info=error)

    def _shrink(self) -> list[str]:
        """Drop what was used longest ago until the rest fits; the names of what went."""
        dropped = []
        while len(self.loaded) > 1 and sum(one.size for one in self.loaded.values()) > self.limit:
            _, one = self.loaded.popitem(last=False)
            dropped.append(f"{one.version.model.name}@{one.version.number}")
        return dropped


def _size(predictor: Predictor, grown: int) -> int:
    """Bytes that a version counts as: what the process grew by, its files at the least; on a GPU its limit there."""
    on_gpu = settings.MAAS_DEVICE != "cpu" and settings.MAAS_GPU_MEMORY_MB * 2**20
    return on_gpu or max(grown, predictor.least_bytes)


def open_warm(folder: Path) -> Predictor:
    """A predictor on this process's device whose first runs are done."""
    predictor = Predictor(
        folder, fetching.export_folder(), device=settings.MAAS_DEVICE, threads=settings.MAAS_THREADS,
        gpu_bytes=settings.MAAS_GPU_MEMORY_MB * 2**20,
    )  # fmt: skip
    predictor.warm_up(settings.MAAS_BATCH_LIMIT)
    return predictor


LOADED = LoadedVersions()


def load(version: catalog.Version) -> Predictor:
    """The predictor of a version in this process."""
    return LOADED.get(version.id)[1]
