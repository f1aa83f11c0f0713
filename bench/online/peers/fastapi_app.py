"""Bare FastAPI: a synchronous endpoint, which Starlette runs in its pool of threads. No batching. Started by uvicorn.

ONNX Runtime lets go of the interpreter while it runs, so two calls use two cores. The answer is written by orjson, the
fastest way out of FastAPI; its own encoder would cost more than the model for a vector.
"""

from typing import Any

import orjson
from fastapi import FastAPI, Response
from pydantic import BaseModel
from served import load

app = FastAPI(openapi_url=None)
model = load()


class Body(BaseModel):
    inputs: Any


@app.post("/predict")
def predict(body: Body) -> Response:
    return Response(orjson.dumps({"outputs": model.run([body.inputs])[0]}), media_type="application/json")
