"""One batch: run it, charge what succeeded, say what to tell each caller."""

import time
from collections.abc import Callable, Collection
from typing import Any
from uuid import UUID

import structlog

from apps.catalog import services as catalog
from apps.usage import services as usage
from maas import errors, metrics, queue
from workers.outcomes import outcome_of
from workers.predict import Predictor

log = structlog.get_logger("maas.online")
Settle = Callable[[list[tuple[UUID, usage.UsageLine]]], Collection[str]]
Answers = dict[UUID, queue.Answer]


def answer_calls(version: catalog.Version, predictor: Predictor, calls: list[queue.Call], settle: Settle) -> Answers:
    """Run the calls of one version as one batch and charge what succeeded by `settle`. Raises what that raises."""
    answers = _settled(version, calls, _run(version, predictor, calls), settle)
    _count(version, calls, answers)
    return answers


def _run(version: catalog.Version, predictor: Predictor, calls: list[queue.Call]) -> Answers:
    """What the model says to each call, before anything is charged."""
    begun = time.time()
    inputs = [value for call in calls for value in call.inputs]
    parameters = [call.parameters for call in calls for _ in call.inputs]
    try:
        results = iter(predictor.predict(inputs, parameters))
    except Exception:
        log.exception("a batch failed", model=version.model.name, inputs=len(inputs))
        failure = failed(errors.Internal("The model failed on this batch. Nothing was charged; try again."))
        return dict.fromkeys((call.id for call in calls), failure)
    compute_ms = (time.time() - begun) * 1000
    metrics.observe_batch(label_of(version), (begun - call.pushed for call in calls), seconds=compute_ms / 1000, inputs=len(inputs))
    found = {}
    for call in calls:
        mine = [next(results) for _ in call.inputs]
        found[call.id] = _answer(version, call, mine, (begun - call.pushed) * 1000, compute_ms, len(inputs))
    return found


def _answer(
    version: catalog.Version, call: queue.Call, results: list[Any], queue_ms: float, compute_ms: float, batch: int
) -> queue.Answer:  # fmt: skip
    """A call's outputs and their quantity, or its error."""
    try:
        outcome = outcome_of(version.rate, results, as_list=len(results) > 1)
    except errors.MaasError as error:
        return failed(error)
    if outcome.units > call.units:  # then the task's bound is wrong: nobody pays more than was reserved
        log.error("more units than reserved", model=version.model.name, units=outcome.units, reserved=call.units)
    return queue.Answer(outcome.outputs, min(outcome.units, call.units), queue_ms, compute_ms, None, outcome.quantity, batch)


def _settled(version: catalog.Version, calls: list[queue.Call], answers: Answers, settle: Settle) -> Answers:
    """Charge the answered calls in one transaction; whoever gave up meanwhile is neither charged nor answered.

    A call that came back from a server that died may have been charged by that one, whose answer is lost: its caller is
    told of a failure, and makes sure that nothing is charged.
    """
    charged = settle([(call.tenant_id, _line(version, call, answers[call.id])) for call in calls if answers[call.id].error is None])
    for call in calls:
        if answers[call.id].error is None and call.id.hex not in charged:
            answers.pop(call.id)
            if call.again:
                answers[call.id] = failed(errors.Unavailable("The model server died. Nothing was charged; try again."))
    return answers


def _count(version: catalog.Version, calls: list[queue.Call], answers: Answers) -> None:
    failures = sum(answer.error is not None for answer in answers.values())
    mine = metrics.of_model(label_of(version))
    for outcome, number in (("answered", len(answers) - failures), ("failed", failures), ("given_up", len(calls) - len(answers))):
        mine.count(outcome, number)


def label_of(version: catalog.Version) -> str:
    """What a version is called in figures: by its model, when that is everybody's."""
    return metrics.label_of(version.model.name, is_shared=version.model.tenant_id is None)


def _line(version: catalog.Version, call: queue.Call, answer: queue.Answer) -> usage.UsageLine:
    return usage.UsageLine(
        source=call.id.hex, kind="prediction", model=version.model.name, version=version.number, unit=version.rate["unit"],
        quantity=answer.quantity, units=answer.units, requests=1, key_id=call.key_id,
        reservation=call.reservation_id,
    )  # fmt: skip


def failed(error: errors.MaasError) -> queue.Answer:
    """An error as the answer to a call."""
    fields = {"kind": type(error).__name__, "message": error.message, "param": error.param, "code": error.code}
    return queue.Answer([], 0, 0.0, 0.0, error=fields)
