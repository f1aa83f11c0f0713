"""BentoML: a service with adaptive batching. Its batched methods take and give lists, so a call holds a list of one."""

import os
from typing import Any

import bentoml
from served import load


@bentoml.service(workers=int(os.environ["BENCH_WORKERS"]), traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Served:
    def __init__(self) -> None:
        self.model = load()

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=int(os.environ["BENCH_WAIT_MS"]))
    def predict(self, inputs: list[Any]) -> list[Any]:
        return self.model.run(inputs)
