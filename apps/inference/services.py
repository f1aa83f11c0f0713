"""Predict now: check, put in line, wait for the answer, never charge for what was not answered."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from apps.accounts.services import Tenant
from apps.billing import allowances, rates
from apps.billing.plans import plan_of
from apps.catalog import services as catalog
from apps.files import services as files
from apps.inference import endings
from apps.inference.endings import Payment
from apps.usage import blocks
from apps.usage import services as usage
from maas import errors, ids, queue
from maas.actors import Permission, current_actor, require
from maas.limits import Limit, take
from maas.specs import TaskSpec, spec_for

INPUT_LIMIT = 128  # inputs of one call
WORK_LIMIT = 256  # short inputs that one call may weigh: a few seconds of a small machine
DEADLINE_MS = 30_000


class Wanted(Protocol):
    """A body that was read: inputs for a model, and how the answer is told."""

    @property
    def model(self) -> str: ...
    @property
    def inputs(self) -> Any: ...
    @property
    def parameters(self) -> Any: ...
    def check(self, version: catalog.Version) -> None:
        """Refuse a version that will not do."""

    def render(self, identity: UUID, version: catalog.Version, answer: queue.Answer) -> dict[str, Any]:
        """The body of the answer, whose identifier this is."""

    def told(self, error: errors.MaasError) -> errors.MaasError:
        """An error, naming the field as the caller knows it."""


def predict(
    tenant: Tenant, wanted: Wanted, *, key_id: UUID | None = None, deadline_ms: int = DEADLINE_MS,
    call_id: UUID | None = None, instead_of: UUID | None = None, found: tuple[UUID | None, ...] = (),
) -> dict[str, Any]:  # fmt: skip
    """The answer of a model: one output for one input, a list for a list of 1 to 128.

    `instead_of` is an earlier call with the same meaning whose caller is gone: it will not be charged. `found` is what
    `catalog.resolve` takes.

    Raises BadRequest naming the field, NotFound for the model, RateLimited past a limit a minute, PaymentRequired when plan,
    budget or credit have no room for it, Overloaded when too many
    calls wait and DeadlineExceeded when no answer came in time; none of these is charged.
    """
    try:
        call, version, answer = _ask(
            tenant, wanted, key_id=key_id, deadline_ms=deadline_ms, call_id=call_id, instead_of=instead_of, found=found
        )
        return wanted.render(call.id, version, answer)
    except errors.MaasError as error:
        raise wanted.told(error) from None


def _ask(
    tenant: Tenant, wanted: Wanted, *, key_id: UUID | None, deadline_ms: int, call_id: UUID | None, instead_of: UUID | None,
    found: tuple[UUID | None, ...],
) -> tuple[queue.Call, catalog.Version, queue.Answer]:  # fmt: skip
    started = time.time()
    require(tenant.id, Permission.PREDICT)
    version = catalog.resolve(tenant, wanted.model, allowed=current_actor().models, found=found)
    wanted.check(version)
    work = check(tenant, version, wanted.inputs, wanted.parameters)
    limits: Sequence[Limit] = rates.due(tenant, model=version.model.name, units=work.likely)
    if instead_of and not endings.void(tenant, instead_of, key_id, version):
        usage.reverse_call(tenant, instead_of.hex)
    limits = _count_first(tenant, key_id, version, work.most, deadline_ms / 1000, limits)
    with _granted(tenant, key_id, version, work.most, deadline_ms / 1000) as pay:
        call = make_call(
            tenant, version, work, key_id=key_id, pay=pay, started=started, seconds=deadline_ms / 1000, call_id=call_id
        )  # fmt: skip
        _push(tenant, call, version, pay, limits)
        try:
            answer = _await(tenant, call, version, pay)
        finally:
            queue.forget(call.id)
    return call, version, answer


@contextmanager
def _granted(tenant: Tenant, key_id: UUID | None, version: catalog.Version, units: int, seconds: float) -> Iterator[Payment]:
    pay = Payment(allowances.grant_call(tenant, key_id=key_id, model=version.model.name, units=units, seconds=seconds))
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


def _push(tenant: Tenant, call: queue.Call, version: catalog.Version, pay: Payment, limits: Sequence[Limit]) -> None:
    """Put the call in line. When the connection broke it may stand there all the same: then it is made sure that nobody pays."""
    try:
        queue.push(call, counted=limits, note=rates.note)
    except errors.Overloaded:
        endings.count(version, "refused")
        raise
    except errors.Unavailable:
        endings.take_back(tenant, call, version, pay)
        raise


def _await(tenant: Tenant, call: queue.Call, version: catalog.Version, pay: Payment) -> queue.Answer:
    """The answer of a call that was pushed, or its error; on the way it is known for certain what was charged."""
    pay.used = None
    answer = queue.wait(call.id, call.deadline - time.time())
    if answer is None:
        queue.cancel(call)
        answer = endings.give_up(tenant, call, version, pay, late=lambda: queue.wait(call.id, endings.GRACE_SECONDS))
    if answer.error:
        endings.take_back(tenant, call, version, pay)
        raise endings.raised(answer.error)
    pay.used = answer.units
    return answer


@dataclass(frozen=True, slots=True)
class Checked:
    """A checked call: clean inputs, parameters, what they weigh in short inputs, and the units that they cost likely and at most."""

    inputs: list[Any]
    options: dict[str, Any]
    weight: int
    likely: int
    most: int


def check(tenant: Tenant, version: catalog.Version, inputs: Any, parameters: Any) -> Checked:
    """What a call asks of a version; BadRequest names what does not fit."""
    spec = spec_for(version.model.task)
    clean, options = check_inputs(tenant, spec, inputs), spec.check_parameters(parameters)
    return Checked(clean, options, check_work(spec, clean), likely_units(version, spec, clean), most_units(version, spec, clean, options))


def make_call(
    tenant: Tenant, version: catalog.Version, work: Checked, *, key_id: UUID | None, pay: Payment, started: float, seconds: float,
    call_id: UUID | None = None,
) -> queue.Call:  # fmt: skip
    """A call as the queue takes it: paid by `pay`, begun at `started` (Unix seconds), to be answered within `seconds`."""
    return queue.Call(
        call_id or ids.uuid7(), tenant.id, key_id, version.id, work.inputs, work.options, started, started + seconds, work.weight,
        pay.grant.reservation_id, work.most, plan_of(tenant.plan).weight,
    )  # fmt: skip


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
