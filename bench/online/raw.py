"""Raw ONNX Runtime in a process of its own: what the machine can do with this file, before any server.

`calibrate` measures batch 1 and batch 32 of the same inputs, already tokenised, padded to the longest of their batch in
the order in which they arrive and once more with similar lengths together. Throughput is that of the better of two ways
to keep every core busy: one session whose runs use all cores, or one run a core with one thread each.
"""

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnxruntime

from bench.online.peers.served import Model, feed_of, pixels_of
from bench.online.subjects import ROOT, Subject

BATCH = 32
CORES = os.cpu_count() or 1
Feed = dict[str, np.ndarray]


@dataclass(frozen=True)
class Raw:
    """Median milliseconds of one input alone, with one thread and with all; inputs a second in batches of 32 as they arrive and
    sorted by length; which way of using the cores was best; processor milliseconds of an input alone and in those batches."""

    one_thread_ms: float
    all_threads_ms: float
    per_second: float
    sorted_per_second: float
    best: str
    alone_cpu_ms: float
    cpu_ms: float
    sorted_cpu_ms: float

    @property
    def alone_ms(self) -> float:
        """The better of the two for one input."""
        return min(self.one_thread_ms, self.all_threads_ms)


def calibrate(subject: Subject, seconds: float) -> Raw:
    """Measure in a new process. `seconds` is the length of each of the measurements."""
    given = json.dumps({"facts": subject.facts, "inputs": subject.inputs, "seconds": seconds})
    command = [sys.executable, "-m", "bench.online.raw"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment, input=given, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"The calibration failed:\n{done.stderr[-2000:]}")
    return Raw(**json.loads(done.stdout))


# ---------- inside its process ----------
def _main() -> None:
    given = json.load(sys.stdin)
    facts, inputs, seconds = given["facts"], given["inputs"], given["seconds"]
    print(json.dumps(asdict(_measure(facts, inputs, seconds))))


def _measure(facts: dict[str, Any], inputs: list[Any], seconds: float) -> Raw:
    model = Model(facts, threads=1)
    lengths = [_length(model, facts["task"], value) for value in inputs]
    arrived = _batches(model, facts["task"], inputs)
    ordered = _batches(model, facts["task"], [inputs[i] for i in sorted(range(len(inputs)), key=lengths.__getitem__)])
    singles = [_encode(model, facts["task"], [value]) for value in inputs]
    narrow, wide = _session(facts, 1), _session(facts, CORES)
    (one_ms, one_cpu), (all_ms, _) = (_alone(session, singles, seconds) for session in (narrow, wide))
    ways = {f"{CORES} runs of 1 thread": (narrow, CORES), f"1 run of {CORES} threads": (wide, 1)}
    rates = {name: _rate(*way, arrived, seconds) for name, way in ways.items()}
    best = max(rates, key=lambda name: rates[name][0])
    (rate, cpu), (sorted_rate, sorted_cpu) = rates[best], _rate(*ways[best], ordered, seconds)
    return Raw(one_ms, all_ms, rate, sorted_rate, best, one_cpu, cpu, sorted_cpu)


def _session(facts: dict[str, Any], threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(facts["onnx"], options, providers=["CPUExecutionProvider"])


def _batches(model: Model, task: str, inputs: list[Any]) -> list[tuple[int, Feed]]:
    """Batches of 32 with the number of inputs in each; a last one that is not full is left out unless it is the only one."""
    parts = [inputs[at : at + BATCH] for at in range(0, len(inputs), BATCH)]
    return [(len(part), _encode(model, task, part)) for part in parts if len(part) == BATCH or len(parts) == 1]


def _encode(model: Model, task: str, inputs: list[Any]) -> Feed:
    if task == "image-classification":
        return {"pixels": np.ascontiguousarray(np.stack([pixels_of(value) for value in inputs]).transpose(0, 3, 1, 2))}
    if task == "question-answering":
        pairs = model.tokenizer.encode_batch([(value["question"], value["context"]) for value in inputs])
        return feed_of(pairs, "input_ids", "attention_mask", "token_type_ids")
    return feed_of(model.tokenizer.encode_batch(inputs), "input_ids", "attention_mask")


def _length(model: Model, task: str, value: Any) -> int:
    return next(iter(_encode(model, task, [value]).values())).shape[1]


def _alone(session: onnxruntime.InferenceSession, feeds: list[Feed], seconds: float) -> tuple[float, float]:
    """Median milliseconds of one run, and mean milliseconds of processor time."""
    session.run(None, feeds[0])
    times: list[float] = []
    limit, used = time.perf_counter() + seconds, time.process_time()
    while time.perf_counter() < limit:
        begun = time.perf_counter()
        session.run(None, feeds[len(times) % len(feeds)])
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1000, (time.process_time() - used) * 1000 / len(times)


def _rate(session: onnxruntime.InferenceSession, runners: int, batches: list[tuple[int, Feed]], seconds: float) -> tuple[float, float]:
    """Inputs a second while so many threads run whole batches one after the other, and processor milliseconds of one."""
    session.run(None, batches[0][1])
    used = time.process_time()
    counts, limit, begun = [0] * runners, time.perf_counter() + seconds, time.perf_counter()

    def run(mine: int) -> None:
        at = mine
        while time.perf_counter() < limit:
            size, feed = batches[at % len(batches)]
            session.run(None, feed)
            counts[mine] += size
            at += 1

    threads = [threading.Thread(target=run, args=(mine,)) for mine in range(runners)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begun), 1000 * (time.process_time() - used) / sum(counts)


if __name__ == "__main__":
    _main()
