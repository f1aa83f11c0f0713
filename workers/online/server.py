"""One process that serves every model: a few runners that each take, run, charge and answer a batch at a time.

While one runner settles another computes. Models load in the background; calls for a model that is not ready wait in the
queue, where another server may find them.
"""

import os
import threading
import time
from types import FrameType
from uuid import UUID, uuid4

import redis
import structlog
from django.conf import settings
from django.db import DatabaseError, close_old_connections, connections

from apps.catalog import services as catalog
from apps.usage import services as usage
from maas import errors, metrics, queue
from workers.online.answers import Answers, Settle, answer_calls, failed, label_of
from workers.predict import Predictor
from workers.versions import LOADED

log = structlog.get_logger("maas.online")
IDLE_SECONDS = 2.0  # that a runner sleeps in Redis: a stop is noticed within them
BEAT_SECONDS = 1.0
LOOK_SECONDS = 0.2  # after which a signal to stop is noticed
PAUSE_SECONDS = 1.0  # before a store that is away is asked again
POLL_SECONDS = 0.02  # while the only calls that wait are for models that are being loaded


class Server:
    """Serves until `stop`, which lets each runner finish the batch that it holds.

    `settle` charges the calls of a batch and returns the sources that were charged (`usage.settle_calls`).
    """

    def __init__(self, settle: Settle = usage.settle_calls) -> None:
        self.name = f"{os.uname().nodename}:{os.getpid()}:{uuid4().hex[:8]}"
        self.runners = [f"{self.name}/{number}" for number in range(settings.MAAS_RUNNERS)]
        self.settle = settle
        self.is_stopping = False  # no Event: a signal may come while this very thread is inside one
        self.is_warm = False
        self.loading: set[UUID] = set()  # versions that this process cannot run yet
        self.labels: dict[UUID, str] = {}  # what versions are called in figures

    def stop(self, signum: int = 0, frame: FrameType | None = None) -> None:
        """Take no more batches."""
        self.is_stopping = True

    def run(self) -> None:
        """Serve until told to stop. Lost connections are waited out."""
        threading.Thread(target=self._warm_up, name="warm-up", daemon=True).start()
        threads = [threading.Thread(target=self._serve, args=(runner,), name=runner, daemon=True) for runner in self.runners]
        for thread in threads:
            thread.start()
        self._beat_until_stopped()
        while any(thread.is_alive() for thread in threads):
            self._beat()
            self._wake()
            time.sleep(LOOK_SECONDS / 4)
        self._leave()

    # ---------- life ----------
    def _warm_up(self) -> None:
        """Nobody's first call should wait for a model to load. One that fails answers its callers with an error."""
        try:
            versions = list(catalog.shared_versions())
            self.labels |= {version.id: label_of(version) for version in versions}
            for version in versions:
                self._load(version)
        except DatabaseError as error:
            log.warning("models are loaded when they are called", error=str(error))
        finally:
            self.is_warm = True
            connections.close_all()

    def _load(self, version: catalog.Version) -> None:
        try:
            LOADED.get(version.id)
            log.info("model ready", model=version.model.name, version=version.number)
        except Exception:
            log.exception("model failed to load", model=version.model.name, version=version.number)

    def _beat_until_stopped(self) -> None:
        told = 0.0
        while not self.is_stopping:
            if time.monotonic() - told >= BEAT_SECONDS:
                self._beat()
                told = time.monotonic()
            time.sleep(LOOK_SECONDS)

    def _beat(self) -> None:
        try:
            if dead := queue.beat(self.name, self.runners, ready=self.is_warm):
                log.warning("calls of a server that died are in line again", runners=dead)
            queue.label(dict(self.labels))
            metrics.set_loaded_bytes(getattr(LOADED, "memory_bytes", int)())  # stand-in until it is there
        except redis.RedisError as error:
            log.warning("heartbeat failed", error=str(error))

    def _wake(self) -> None:
        """Runners that sleep in Redis see that it is time to stop. Another server's may wake instead, and find nothing."""
        try:
            queue.ring(len(self.runners))
        except redis.RedisError:
            return  # then they have noticed

    def _leave(self) -> None:
        try:
            queue.leave(self.name, self.runners)
        except redis.RedisError as error:
            log.warning("the others notice by themselves that this server has ended", error=str(error))

    # ---------- runners ----------
    def _serve(self, runner: str) -> None:
        while not self.is_stopping:
            try:
                self._turn(runner)
            except (redis.RedisError, DatabaseError) as error:
                log.warning("a store is away, trying again", error=str(error))
                close_old_connections()
                time.sleep(PAUSE_SECONDS)
            except Exception:
                log.exception("a runner failed and goes on", runner=runner)
                time.sleep(POLL_SECONDS)
        connections.close_all()

    def _turn(self, runner: str) -> None:
        """One batch if there is one, and a wait when no more are there."""
        self.loading -= {version_id for version_id in tuple(self.loading) if self._is_settled(version_id)}
        batch = queue.take(runner, settings.MAAS_BATCH_LIMIT, skip=tuple(self.loading))
        if batch.version_id:
            self._serve_batch(runner, batch.version_id, batch)
        elif batch.more:
            time.sleep(POLL_SECONDS)
        if not batch.more:  # whatever came meanwhile has rung the bell
            queue.listen(IDLE_SECONDS)

    def _serve_batch(self, runner: str, version_id: UUID, batch: queue.Batch) -> None:
        answers = self._answers(version_id, batch.calls)
        if answers is None:
            self.loading.add(version_id)
            queue.put_back(runner)
        else:
            queue.answer(runner, batch, answers)

    def _answers(self, version_id: UUID, calls: list[queue.Call]) -> Answers | None:
        """What to tell each caller, whatever went wrong: they make sure that nothing was charged. None: not loaded yet."""
        try:
            found = _ready(version_id)
            if found is None:
                return None
            self.labels.setdefault(version_id, label_of(found[0]))
            return answer_calls(*found, calls, self.settle)
        except errors.MaasError as error:
            failure = failed(error)
        except DatabaseError as error:
            log.warning("the database is away", error=str(error))
            close_old_connections()
            failure = failed(errors.Unavailable("The ledger cannot be reached. Nothing was charged; try again."))
        except Exception:
            log.exception("a batch failed", version_id=str(version_id), calls=len(calls))
            failure = failed(errors.Internal("The model server failed on this batch. Nothing was charged; try again."))
        return dict.fromkeys((call.id for call in calls), failure)

    def _is_settled(self, version_id: UUID) -> bool:
        """Whether a version has been loaded, or cannot be: its callers are told then."""
        try:
            return _ready(version_id) is not None
        except Exception:
            return True


def _ready(version_id: UUID) -> tuple[catalog.Version, Predictor] | None:
    """The version and its predictor, or None while it loads. Raises an error for its callers when it cannot be loaded."""
    ready = getattr(LOADED, "ready", LOADED.get)  # stand-in until LOADED.ready is there
    try:
        return ready(version_id)  # type: ignore[no-any-return]
    except errors.MaasError:
        raise
    except Exception as error:
        log.exception("model failed to load", version_id=str(version_id))
        raise errors.Unavailable("This model could not be loaded. Nothing was charged.", code="model_unavailable") from error
