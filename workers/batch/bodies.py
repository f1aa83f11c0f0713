"""The body of a line and of its answer, by the batch's endpoint."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from apps.catalog import services as catalog
from apps.inference import embeddings
from maas import errors
from maas.predictions import render_embeddings, render_prediction
from workers.outcomes import Outcome

EMBEDDINGS = "/v1/embeddings"
FIELDS = ("model", "inputs", "parameters")


@dataclass(frozen=True)
class Body:
    """What a line asks for. `wanted` is there when it asks in OpenAI's words for embeddings."""

    model: str
    inputs: Any
    parameters: Any = None
    wanted: embeddings.Wanted | None = None

    @property
    def as_list(self) -> bool:
        return isinstance(self.inputs, list)

    def check(self, version: catalog.Version) -> None:
        """BadRequest for a model that cannot answer at this endpoint."""
        if self.wanted:
            self.wanted.check(version)

    def named(self) -> AbstractContextManager[None]:
        """A block whose errors name the field as the endpoint does."""
        return embeddings.named_input() if self.wanted else nullcontext()

    def render(
        self, identity: UUID, version: catalog.Version, outcome: Outcome, *, units: int, queue_ms: float, compute_ms: float
    ) -> dict[str, Any]:
        """What a call of the endpoint would have answered."""
        name = version.model.name
        if self.wanted:
            return render_embeddings(outcome.outputs, model=name, tokens=outcome.quantity, encoding=self.wanted.encoding)
        return render_prediction(
            identity, model=name, version=version.number, outputs=outcome.outputs if self.as_list else outcome.outputs[0],
            units=units, unit=version.rate["unit"], queue_ms=queue_ms, compute_ms=compute_ms,
        )  # fmt: skip


def raw_inputs(endpoint: str, body: Any) -> Any:
    """The inputs of a body that was not checked; None where there are none."""
    return body.get("input" if endpoint == EMBEDDINGS else "inputs") if isinstance(body, dict) else None


def read_body(endpoint: str, body: Any) -> Body:
    """The body of a line; BadRequest that names what does not fit."""
    if endpoint == EMBEDDINGS:
        wanted = embeddings.read_body(body)
        return Body(wanted.model, wanted.inputs, wanted=wanted)
    return _read_prediction(body)


def _read_prediction(body: Any) -> Body:
    if not isinstance(body, dict):
        code = "missing_field" if body is None else "invalid_type"
        raise errors.BadRequest("'body' must be an object with 'model' and 'inputs'.", param="body", code=code)
    for name in body:
        if name not in FIELDS:
            raise errors.BadRequest(f"Unknown field '{name[:100]}'. Known: {', '.join(FIELDS)}.", param=name[:100], code="unknown_field")
    for name in ("model", "inputs"):
        if body.get(name) is None:
            raise errors.BadRequest(f"{name}: This field is required.", param=name, code="missing_field")
    if not isinstance(body["model"], str):
        raise errors.BadRequest("model: Must be a text.", param="model", code="invalid_type")
    return Body(body["model"], body["inputs"], body.get("parameters"))
