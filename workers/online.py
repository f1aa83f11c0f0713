"""The online model server: takes what is waiting, runs it as one batch, charges it, answers. `python -m workers.online`.

Any number of these run on any number of machines; Redis is the load balancer. A batch is charged in one transaction
before its answers go out, and a caller who gave up meanwhile is not charged.
"""

import os
import signal
import threading
import time
from collections import defaultdict
from types import FrameType
from typing import Any
from uuid import UUID, uuid4

import django
import redis
import structlog

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "maas.settings")
django.setup()

from django.conf import settings  # noqa: E402
from django.db import DatabaseError, close_old_connections  # noqa: E402

from apps.catalog import services as catalog  # noqa: E402
from apps.usage import services as usage  # noqa: E402
from maas import errors, queue  # noqa: E402
from workers.outcomes import outcome_of  # noqa: E402
from workers.predict import Predictor  # noqa: E402
from workers.versions import LOADED  # noqa: E402

log = structlog.get_logger("maas.online")
IDLE_SECONDS = 1.0
HEARTBEAT_SECONDS = 1.5


class Server:
    """One process that serves every model. `stop` lets it finish the batch that it holds."""

    def __init__(self) -> None:
        self.name = f"{os.uname().nodename}:{os.getpid()}:{uuid4().hex[:8]}"
        self.stopping = threading.Event()

    def stop(self, signum: int, frame: FrameType | None) -> None:
        self.stopping.set()

    def run(self) -> None:
        """Load the shared models, then serve until told to stop. Lost connections are waited out."""
        self._warm_up()
        threading.Thread(target=self._beat, daemon=True).start()
        while not self.stopping.is_set():
            try:
                self.serve_waiting()
                queue.listen(IDLE_SECONDS)
            except (redis.RedisError, DatabaseError) as error:
                log.warning("a store is away, trying again", error=str(error))
                close_old_connections()
                self.stopping.wait(IDLE_SECONDS)

    def serve_waiting(self) -> None:
        """Batch after batch, one of each version in turn, until nothing waits."""
        busy = True
        while busy and not self.stopping.is_set():
            busy = sum(map(self._serve_version, queue.waiting_versions())) > 0

    def _serve_version(self, version_id: UUID) -> bool:
        taken = queue.take(version_id, settings.MAAS_BATCH_LIMIT)
        calls = [call for call in taken if call.deadline > time.time()]  # the others have been told so already
        if calls:
            queue.reply(self._answer(version_id, calls))
        return bool(taken)

    def _answer(self, version_id: UUID, calls: list[queue.Call]) -> dict[UUID, queue.Answer]:
        """What to tell each caller, also when the database went away: then they make sure that nothing was charged."""
        try:
            return answer_calls(version_id, calls)
        except DatabaseError as error:
            log.warning("the database is away", error=str(error))
            close_old_connections()
            failure = _failure(errors.Unavailable("The ledger cannot be reached. Nothing was charged; try again."))
            return {call.id: failure for call in calls}

    def _warm_up(self) -> None:
        """Nobody's first call should wait for a model to load. One that fails answers its callers with an error."""
        for version in catalog.shared_versions():
            try:
                LOADED.get(version.id)
                log.info("model ready", model=version.model.name, version=version.number)
            except Exception:
                log.exception("model failed to load", model=version.model.name, version=version.number)

    def _beat(self) -> None:
        while not self.stopping.is_set():
            try:
                queue.beat(self.name)
            except redis.RedisError as error:
                log.warning("heartbeat failed", error=str(error))
            self.stopping.wait(HEARTBEAT_SECONDS)


def answer_calls(version_id: UUID, calls: list[queue.Call]) -> dict[UUID, queue.Answer]:
    """Run the calls of one version as one batch, charge what succeeded, and say what to tell each caller."""
    try:
        version, predictor = LOADED.get(version_id)
    except Exception as error:
        log.exception("model failed to load", version_id=str(version_id))
        return {call.id: _failure(_load_error(error)) for call in calls}
    return _settle(version, calls, _run(version, predictor, calls))


def _run(version: catalog.Version, predictor: Predictor, calls: list[queue.Call]) -> dict[UUID, tuple[queue.Answer, int]]:
    """The answer and the quantity of each call."""
    begun = time.time()
    inputs = [value for call in calls for value in call.inputs]
    parameters = [call.parameters for call in calls for _ in call.inputs]
    try:
        results = iter(predictor.predict(inputs, parameters))
    except Exception:
        log.exception("a batch failed", model=version.model.name, inputs=len(inputs))
        failure = _failure(errors.Internal("The model failed on this batch. Nothing was charged; try again."))
        return {call.id: (failure, 0) for call in calls}
    compute_ms = (time.time() - begun) * 1000
    mine = defaultdict(list)
    for call in calls:
        mine[call.id] = [next(results) for _ in call.inputs]
    return {call.id: _answer(version, call, mine[call.id], (begun - call.pushed) * 1000, compute_ms) for call in calls}


def _answer(version: catalog.Version, call: queue.Call, results: list[Any], queue_ms: float, compute_ms: float) -> tuple[queue.Answer, int]:
    """A call's outputs and their quantity, or its error."""
    try:
        outcome = outcome_of(version.rate, results, as_list=len(results) > 1)
    except errors.MaasError as error:
        return _failure(error), 0
    if outcome.units > call.units:  # then the task's bound is wrong: nobody pays more than was reserved
        log.error("more units than reserved", model=version.model.name, units=outcome.units, reserved=call.units)
    return queue.Answer(outcome.outputs, min(outcome.units, call.units), queue_ms, compute_ms), outcome.quantity


def _settle(version: catalog.Version, calls: list[queue.Call], answers: dict[UUID, tuple[queue.Answer, int]]) -> dict[UUID, queue.Answer]:
    """Charge the answered calls in one transaction; whoever gave up meanwhile is neither charged nor answered."""
    lines = [
        (call.tenant_id, _line(version, call, *answers[call.id])) for call in calls if answers[call.id][0].error is None
    ]  # fmt: skip
    charged = usage.settle_calls(lines)
    return {
        call_id: answer for call_id, (answer, _) in answers.items() if answer.error is not None or call_id.hex in charged
    }  # fmt: skip


def _line(version: catalog.Version, call: queue.Call, answer: queue.Answer, quantity: int) -> usage.UsageLine:
    return usage.UsageLine(
        source=call.id.hex, kind="prediction", model=version.model.name, version=version.number, unit=version.rate["unit"],
        quantity=quantity, units=answer.units, requests=1, key_id=call.key_id,
        reservation=call.reservation_id,
    )  # fmt: skip


def _failure(error: errors.MaasError) -> queue.Answer:
    fields = {"kind": type(error).__name__, "message": error.message, "param": error.param, "code": error.code}
    return queue.Answer([], 0, 0.0, 0.0, error=fields)


def _load_error(error: Exception) -> errors.MaasError:
    if isinstance(error, errors.MaasError):
        return error
    return errors.Unavailable("This model could not be loaded. Nothing was charged.", code="model_unavailable")


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    server = Server()
    signal.signal(signal.SIGTERM, server.stop)
    signal.signal(signal.SIGINT, server.stop)
    log.info("online server starts", server=server.name, device=settings.MAAS_DEVICE, threads=settings.MAAS_THREADS)
    server.run()


if __name__ == "__main__":
    main()
