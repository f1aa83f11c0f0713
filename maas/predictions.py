"""The body of a prediction, the same from a call and from a line of a batch."""

import time
from typing import Any
from uuid import UUID

from maas import ids


def render_prediction(
    prediction_id: UUID, *, model: str, version: int, outputs: Any, units: int, unit: str, queue_ms: float, compute_ms: float
) -> dict[str, Any]:
    """`outputs` is one output or a list, as the inputs were; times are in milliseconds."""
    return {
        "id": ids.encode(ids.PREDICTION, prediction_id),
        "object": "prediction",
        "created": int(time.time()),
        "model": model,
        "version": version,
        "outputs": outputs,
        "usage": {"units": units, "unit": unit},
        "timing": {"queue_ms": round(queue_ms, 1), "compute_ms": round(compute_ms, 1)},
    }
