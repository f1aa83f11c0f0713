"""LitServe: requests batched in worker processes behind its FastAPI server, ZeroMQ between them (`fast_queue`).

`encode_response` gives a finished response, which FastAPI sends as it is: encoding a dictionary costs it more.
"""

import os
import sys
from typing import Any

import litserve
import orjson
from fastapi import Response
from served import load


class Api(litserve.LitAPI):
    """Batches of inputs as they came."""

    def setup(self, device: str) -> None:
        self.model = load()

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # an annotation would be taken for the schema of the body
        return request["inputs"]

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, inputs: list[Any]) -> list[Any]:
        return self.model.run(inputs)

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output):  # type: ignore[no-untyped-def]
        return Response(orjson.dumps({"outputs": output}), media_type="application/json")


if __name__ == "__main__":
    api = Api(max_batch_size=32, batch_timeout=float(os.environ["BENCH_WAIT_MS"]) / 1000)
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=int(os.environ["BENCH_WORKERS"]), fast_queue=os.environ["BENCH_QUEUE"] == "zmq"
    )
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, log_level="warning", generate_client_file=False)
