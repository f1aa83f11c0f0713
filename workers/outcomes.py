"""What becomes of the inputs of one call, or of one line of a batch: answered and charged whole, or not at all."""

from dataclasses import dataclass
from typing import Any

import structlog

from apps.usage import services as usage
from maas import errors

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Outcome:
    """Outputs in the order of the inputs, what was worked on, and what is charged."""

    outputs: list[Any]
    quantity: int
    units: int


def outcome_of(rate: dict[str, Any], results: list[Any], *, as_list: bool) -> Outcome:
    """Add up the predictions of one call. Raises the error of the first input that failed; `as_list` numbers it."""
    for index, result in enumerate(results):
        if isinstance(result, Exception):
            raise input_error(result, f"inputs[{index}]" if as_list else "inputs")
    quantities = [result.quantity for result in results]
    return Outcome([result.output for result in results], sum(quantities), usage.units_for(rate, quantities))


def input_error(error: Exception, param: str) -> errors.MaasError:
    """What the caller reads of an input that failed: a ValueError is theirs, anything else is ours."""
    if isinstance(error, errors.MaasError):
        return error.at(param)
    if isinstance(error, ValueError):
        return errors.BadRequest(f"{param}: {error}", param=param, code="invalid_value")
    log.error("an input failed", error=repr(error))
    return errors.Internal(f"The model failed on {param}. Nothing was charged.", param=param)
