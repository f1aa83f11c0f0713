"""The body of /v1/predictions."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from apps.catalog import services as catalog
from maas import errors, queue
from maas.predictions import render_prediction
from maas.wire import check_names

FIELDS = ("model", "inputs", "parameters")
LONGEST_NAME = 200  # characters of a model's name


@dataclass(frozen=True)
class Wanted:
    """A body that was read: inputs for a model."""

    model: str
    inputs: Any  # one or a list, as it came
    parameters: Any = None

    def check(self, version: catalog.Version) -> None:
        """Every model makes predictions."""

    def render(self, identity: UUID, version: catalog.Version, answer: queue.Answer) -> dict[str, Any]:
        """The body of the answer: one output, or a list when `inputs` was one."""
        return render_prediction(
            identity, model=version.model.name, version=version.number, unit=version.rate["unit"], units=answer.units,
            outputs=answer.outputs if isinstance(self.inputs, list) else answer.outputs[0],
            queue_ms=answer.queue_ms, compute_ms=answer.compute_ms, batch=answer.batch,
        )  # fmt: skip

    def told(self, error: errors.MaasError) -> errors.MaasError:
        """An error, naming the field as the caller knows it."""
        return error


def read_body(body: Any) -> Wanted:
    """Model, inputs and parameters of a prediction; BadRequest that names what does not fit."""
    if not isinstance(body, dict):
        code = "missing_field" if body is None else "invalid_type"
        raise errors.BadRequest("The body must be an object with 'model' and 'inputs'.", param="body", code=code)
    check_names(body, FIELDS)
    for name in ("model", "inputs"):
        if name not in body:
            raise errors.BadRequest(f"{name}: This field is required.", param=name, code="missing_field")
        if body[name] is None:
            raise errors.BadRequest(f"{name}: Must not be null.", param=name, code="invalid_value")
    model = body["model"]
    if not isinstance(model, str) or not 1 <= len(model) <= LONGEST_NAME:
        message = f"model: Must be a text of 1 to {LONGEST_NAME} characters."
        raise errors.BadRequest(message, param="model", code="invalid_value")
    return Wanted(model, body["inputs"], body.get("parameters"))
