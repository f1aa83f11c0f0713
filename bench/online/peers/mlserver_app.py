"""MLServer: a custom runtime behind the V2 protocol, since its adaptive batching works on that alone.

A call holds the texts of one input as BYTES; the answer is FP32 for a vector and JSON in BYTES for the rest.
"""

from typing import Any

import orjson
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from served import Model, load


class Runtime(MLModel):
    """Batches come as one request with longer lists."""

    async def load(self) -> bool:
        self.served: Model = load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        columns = {value.name: _list(value.data) for value in payload.inputs}
        if "inputs" in columns:
            inputs: list[Any] = columns["inputs"]
        else:
            inputs = [{"question": q, "context": c} for q, c in zip(columns["question"], columns["context"], strict=True)]
        return InferenceResponse(model_name=self.name, outputs=[_output(self.served.run(inputs))])


def _list(data: Any) -> list[Any]:
    return getattr(data, "root", data)  # type: ignore[no-any-return]


def _output(found: list[Any]) -> ResponseOutput:
    if isinstance(found[0], list) and isinstance(found[0][0], float):
        flat = [number for row in found for number in row]
        return ResponseOutput(name="outputs", shape=[len(found), len(found[0])], datatype="FP64", data=flat)
    return ResponseOutput(name="outputs", shape=[len(found), 1], datatype="BYTES", data=[orjson.dumps(one).decode() for one in found])
