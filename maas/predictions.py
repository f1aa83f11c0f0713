"""The bodies of answers, the same from a call and from a line of a batch."""

import base64
import struct
import time
from typing import Any
from uuid import UUID

from maas import ids


def render_prediction(
    prediction_id: UUID,
    *,
    model: str,
    version: int,
    outputs: Any,
    units: int,
    unit: str,
    queue_ms: float,
    compute_ms: float,
    batch: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """`outputs` is one output or a list, as the inputs were; times are in milliseconds, `batch` inputs were run together."""
    return {
        "id": ids.encode(ids.PREDICTION, prediction_id),
        "object": "prediction",
        "created": int(time.time()),
        "model": model,
        "version": version,
        "outputs": outputs,
        "usage": {"units": units, "unit": unit},
        "timing": {"queue_ms": round(queue_ms, 1), "compute_ms": round(compute_ms, 1), "batch_size": batch},
    }


def render_embeddings(vectors: list[list[float]], *, model: str, tokens: int, encoding: str) -> dict[str, Any]:
    """OpenAI's answer to /v1/embeddings; `encoding` is `float`, or `base64` for the bytes of little-endian float32."""
    shown: list[Any] = [_packed(vector) for vector in vectors] if encoding == "base64" else vectors
    data = [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(shown)]
    return {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
