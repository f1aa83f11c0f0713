"""Predict now: check, put in line, wait for the answer, never charge for what was not answered."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from apps.accounts.services import Tenant
from apps.billing import allowances, rates
from apps.billing.plans import plan_of
from apps.catalog import services as catalog
from apps.files import services as files
from apps.usage import blocks
from apps.usage import services as usage
from maas import errors, ids, metrics, queue
from maas.actors import Permission, current_actor, require
from maas.limits import Limit, take
from maas.predictions import render_prediction
from maas.specs import TaskSpec, spec_for

INPUT_LIMIT = 128  # inputs of one call
WORK_LIMIT = 256  # short inputs that one call may weigh: a few seconds of a small machine
DEADLINE_MS = 30_000
GRACE_SECONDS = 1.0  # an answer that was charged at the last moment may still be on its way


def predict(
    tenant: Tenant, *, model: str, inputs: Any, parameters: Any = None, key_id: UUID | None = None, deadline_ms: int = DEADLINE_MS,
    call_id: UUID | None = None, instead_of: UUID | None = None, found: tuple[UUID | None, ...] = (),
) -> dict[str, Any]:  # fmt: skip
    """The body of /v1/predictions: one output for one input, a list for a list of 1 to 128.

    `instead_of` is an earlier call with the same meaning whose caller is gone: it will not be charged. `found` is what
    `catalog.resolve` takes.

    Raises BadRequest naming the field, NotFound for the model, RateLimited past a limit a minute, PaymentRequired when plan,
    budget or credit have no room for it, Overloaded when too many
    calls wait and DeadlineExceeded when no answer came in time; none of these is charged.
    """
    asked = ask(
        tenant, model=model, inputs=inputs, parameters=parameters, key_id=key_id, deadline_ms=deadline_ms,
        call_id=call_id, instead_of=instead_of, found=found,
    )  # fmt: skip
    return _render(*asked, as_list=isinstance(inputs, list))


def ask(
    tenant: Tenant, *, model: str, inputs: Any, parameters: Any, key_id: UUID | None, deadline_ms: int,
    call_id: UUID | None, instead_of: UUID | None, found: tuple[UUID | None, ...] = (),
    check: Callable[[catalog.Version], None] = lambda version: None,
) -> tuple[queue.Call, catalog.Version, queue.Answer]:  # fmt: skip
    """What `predict` does, before its answer is put into a body. `check` refuses a version that will not do."""
    started = time.time()
    require(tenant.id, Permission.PREDICT)
    version = catalog.resolve(tenant, model, allowed=current_actor().models, found=found)
    check(version)
    spec = spec_for(version.model.task)
    clean, options = check_inputs(tenant, spec, inputs), spec.check_parameters(parameters)
    work = check_work(spec, clean)
    limits: Sequence[Limit] = rates.due(tenant, model=version.model.name, units=likely_units(version, spec, clean))
    if instead_of and not _void(tenant, instead_of, key_id, version):
        usage.reverse_call(tenant, instead_of.hex)
    most = most_units(version, spec, clean, options)
    limits = _count_first(tenant, key_id, version, most, deadline_ms / 1000, limits)
    with _granted(tenant, key_id, version, most, deadline_ms / 1000) as pay:
        call = queue.Call(
            call_id or ids.uuid7(), tenant.id, key_id, version.id, clean, options, started, started + deadline_ms / 1000, work,
            pay.grant.reservation_id, most, plan_of(tenant.plan).weight,
        )  # fmt: skip
        _push(tenant, call, version, pay, limits)
        try:
            answer = _await(tenant, call, version, pay)
        finally:
            queue.forget(call.id)
    return call, version, answer


@dataclass
class _Payment:
    """Units granted to a call. `used` is what of them was charged; None while that is not known."""

    grant: blocks.Grant
    used: int | None = 0


@contextmanager
def _granted(tenant: Tenant, key_id: UUID | None, version: catalog.Version, units: int, seconds: float) -> Iterator[_Payment]:
    pay = _Payment(allowances.grant_call(tenant, key_id=key_id, model=version.model.name, units=units, seconds=seconds))
    try:
        yield pay
    finally:
        blocks.finish(pay.grant, used=pay.used)


def _count_first(
    tenant: Tenant, key_id: UUID | None, version: catalog.Version, units: int, seconds: float, limits: Sequence[Limit]
) -> Sequence[Limit]:  # fmt: skip
    """The limits that are left to be counted on the way into the queue.

    That is all of them while units are at hand. A call that has to ask the database for its units is counted before: who
    calls too often should not keep the database busy.
    """
    if allowances.is_at_hand(tenant, key_id=key_id, model=version.model.name, units=units, seconds=seconds):
        return limits
    rates.note(take(limits))
    return ()


def _push(tenant: Tenant, call: queue.Call, version: catalog.Version, pay: _Payment, limits: Sequence[Limit]) -> None:
    """Put the call in line. When the connection broke it may stand there all the same: then it is made sure that nobody pays."""
    try:
        queue.push(call, counted=limits, note=rates.note)
    except errors.Overloaded:
        _count(version, "refused")
        raise
    except errors.Unavailable:
        pay.used = None
        _take_back(tenant, call, version, pay)
        raise


def _count(version: catalog.Version, outcome: str) -> None:
    label = metrics.label_of(version.model.name, is_shared=version.model.tenant_id is None)
    metrics.of_model(label).count(outcome)


def _await(tenant: Tenant, call: queue.Call, version: catalog.Version, pay: _Payment) -> queue.Answer:
    """The answer of a call that was pushed, or its error; on the way it is known for certain what was charged."""
    pay.used = None
    answer = queue.wait(call.id, call.deadline - time.time()) or _give_up(tenant, call, version, pay)
    if answer.error:
        # A server that lost the database may not know whether its charge was written.
        _take_back(tenant, call, version, pay)
        raise _raised(answer.error)
    pay.used = answer.units
    return answer


def check_inputs(tenant: Tenant, spec: TaskSpec, inputs: Any) -> list[Any]:
    """Clean inputs as a list, whether one came or several."""
    if not isinstance(inputs, list):
        return [_check(tenant, spec, inputs, "inputs")]
    if not 1 <= len(inputs) <= INPUT_LIMIT:
        raise errors.BadRequest(f"'inputs' holds {len(inputs)} items; send 1 to {INPUT_LIMIT}.", param="inputs", code="invalid_length")
    return [_check(tenant, spec, value, f"inputs[{index}]") for index, value in enumerate(inputs)]


def check_work(spec: TaskSpec, clean: list[Any]) -> int:
    """What the inputs weigh together; BadRequest when one call should not keep everybody else waiting for so long."""
    work = sum(map(spec.work, clean))
    if work > WORK_LIMIT:
        message = f"inputs: These are about {work / WORK_LIMIT:.1f} times what one call may hold. Split the call, or send a batch."
        raise errors.BadRequest(message, param="inputs", code="too_long")
    return work


def likely_units(version: catalog.Version, spec: TaskSpec, clean: list[Any]) -> int:
    """What a call will be charged, roughly: rate limits count before the model has counted."""
    return usage.units_for(version.rate, [spec.likely_quantity(value) for value in clean])


def estimate_units(version: catalog.Version, inputs: Any) -> int:
    """What unchecked inputs of a batch's line will be charged, roughly; 0 for what will be refused."""
    spec = spec_for(version.model.task)
    try:
        return likely_units(version, spec, inputs if isinstance(inputs, list) else [inputs])
    except (TypeError, KeyError, AttributeError, ValueError):  # a text that is none, half of a surrogate pair
        return 0


def most_units(version: catalog.Version, spec: TaskSpec, clean: list[Any], options: dict[str, Any]) -> int:
    """What clean inputs can be charged at most: that much is reserved before they are run."""
    return usage.units_for(version.rate, [spec.upper_quantity(value, options) for value in clean])


def _check(tenant: Tenant, spec: TaskSpec, value: Any, param: str) -> Any:
    try:
        return spec.check_input(value, lambda file_id: files.read_bytes(tenant, files.parse_id(file_id)))
    except errors.MaasError as error:
        located = error.at(param)
        located.message = f"{located.param}: {located.message}"
        raise located from None


def _give_up(tenant: Tenant, call: queue.Call, version: catalog.Version, pay: _Payment) -> queue.Answer:
    """The deadline has passed: nobody pays, unless the answer is on its way already."""
    queue.cancel(call)
    if _void(tenant, call.id, call.key_id, version):
        pay.used = 0
    elif late := queue.wait(call.id, GRACE_SECONDS):
        return late
    else:
        usage.reverse_call(tenant, call.id.hex)
    _count(version, "timed_out")
    waited = round((call.deadline - call.pushed) * 1000)
    raise errors.DeadlineExceeded(f"'{version.model.name}' gave no answer within {waited} ms. Nothing was charged; try again.")


def _take_back(tenant: Tenant, call: queue.Call, version: catalog.Version, pay: _Payment) -> None:
    """Make sure that a call is not charged. What was and is taken back stays out of the block: its month has it again."""
    if _void(tenant, call.id, call.key_id, version):
        pay.used = 0
    else:
        usage.reverse_call(tenant, call.id.hex)


def _void(tenant: Tenant, call_id: UUID, key_id: UUID | None, version: catalog.Version) -> bool:
    """Usage and this void compete for one row, so one of the two is true for good; True when it was this."""
    unit = version.rate["unit"]
    line = usage.UsageLine(call_id.hex, "void", version.model.name, version.number, unit, 0, 0, 0, key_id)
    return usage.void_call(tenant, line)


def _render(call: queue.Call, version: catalog.Version, answer: queue.Answer, *, as_list: bool) -> dict[str, Any]:
    return render_prediction(
        call.id, model=version.model.name, version=version.number, outputs=answer.outputs if as_list else answer.outputs[0],
        units=answer.units, unit=version.rate["unit"], queue_ms=answer.queue_ms, compute_ms=answer.compute_ms, batch=answer.batch,
    )  # fmt: skip


def _raised(fields: dict[str, Any]) -> errors.MaasError:
    kinds = {kind.__name__: kind for kind in (errors.BadRequest, errors.Unavailable, errors.Internal, errors.NotFound)}
    return kinds.get(fields["kind"], errors.Internal)(fields["message"], param=fields.get("param"), code=fields.get("code"))
