"""The body of a line: what the same call of its endpoint would hold."""

from typing import Any

from apps.inference import embeddings, predictions
from apps.inference.services import Wanted

EMBEDDINGS = "/v1/embeddings"


def raw_inputs(endpoint: str, body: Any) -> Any:
    """The inputs of a body that was not checked; None where there are none."""
    return body.get("input" if endpoint == EMBEDDINGS else "inputs") if isinstance(body, dict) else None


def read_body(endpoint: str, body: Any) -> Wanted:
    """The body of a line; BadRequest that names what does not fit."""
    return embeddings.read_body(body) if endpoint == EMBEDDINGS else predictions.read_body(body)
