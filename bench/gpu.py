"""The batch path on a GPU beside bare ONNX Runtime: python -m bench.gpu

The same inputs through `Predictor.predict`, and by hand as fast as ONNX Runtime allows: tokenized in one call, padded to the
longest, run on CUDA with inputs and outputs bound. Alternating rounds; prints inputs a second, the ratio of the medians and
the spread. Fails below 0.8 of bare. Without a GPU it says what is missing and ends well.
Options: --device cuda:0 --batch 32 --rounds 7 --inputs 1024 --threads N --exports DIR
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from workers.predict import Predictor
from workers.recipes import image_cnn
from workers.recipes.samples import read_samples
from workers.runtime.batching import masked, padded
from workers.runtime.graphs import Graph

MODELS = Path(__file__).resolve().parent.parent / "models"
NAMES = ("minilm-embed", "minilm-squad", "cifar10-resnet9")
LEAST = 0.8  # of bare ONNX Runtime
Batch = list[Any]


def missing() -> str | None:
    """Why there is nothing to measure here; None where there is a GPU that ONNX Runtime can use."""
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "this ONNX Runtime was built without CUDA (pip install onnxruntime-gpu)"
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "no NVIDIA driver answers (nvidia-smi -L)"
    return None if listed else "the NVIDIA driver lists no GPU"


class Bare:
    """One graph on CUDA with bound inputs and outputs."""

    def __init__(self, graph: Graph, index: int) -> None:
        self.session, self.outputs, self.index = graph.session, graph.outputs, index

    def __call__(self, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        import onnxruntime

        binding = self.session.io_binding()
        for name, value in feed.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value, "cuda", self.index))
        for name in self.outputs:
            binding.bind_output(name, "cuda", self.index)
        self.session.run_with_iobinding(binding)
        found: list[np.ndarray] = binding.copy_outputs_to_cpu()
        return found


def feed_of(predictor: Predictor, batch: Batch) -> dict[str, np.ndarray]:
    """What the graph takes for a batch, padded to its longest input, as one would write it by hand."""
    if predictor.task == "image-classification":
        return {"pixels": image_cnn.normalise(np.stack([predictor.served.encode(value, {})[0] for value in batch]))}
    tokenizer = predictor.served.tokenizer
    if predictor.task == "feature-extraction":
        rows = [one.ids for one in tokenizer.encode_batch_fast(batch)]
        return {"input_ids": padded(rows), "attention_mask": masked(rows)}
    found = tokenizer.encode_batch_fast([(value["question"], value["context"]) for value in batch])
    rows, segments = [one.ids[:384] for one in found], [one.type_ids[:384] for one in found]
    return {"input_ids": padded(rows), "attention_mask": masked(rows), "token_type_ids": padded(segments)}


def seconds(work: Callable[[Batch], object], batches: list[Batch]) -> float:
    begun = time.perf_counter()
    for batch in batches:
        work(batch)
    return time.perf_counter() - begun


def measure(name: str, options: argparse.Namespace) -> float:
    """Print one model's figures; the ratio of ours to bare."""
    predictor = Predictor(MODELS / name, options.exports, device=options.device, threads=options.threads)
    inputs = list(islice(cycle(read_samples(MODELS / name)), options.inputs))
    batches = [inputs[at : at + options.batch] for at in range(0, len(inputs), options.batch)]
    bare = Bare(next(iter(open_graphs_of(predictor))), int(options.device.partition(":")[2]))
    ways: dict[str, Callable[[Batch], object]] = {
        "bare": lambda batch: bare(feed_of(predictor, batch)),
        "ours": lambda batch: predictor.predict(batch, [{}] * len(batch)),
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for work in ways.values():
        seconds(work, batches)  # kernels are chosen and memory is taken in the first runs
    for _ in range(options.rounds):
        for way, work in ways.items():
            rates[way].append(len(inputs) / seconds(work, batches))
    ratio = statistics.median(rates["ours"]) / statistics.median(rates["bare"])
    print(f"{name}: " + ", ".join(f"{way} {told(found)}" for way, found in rates.items()) + f", ratio {ratio:.2f}", flush=True)
    return ratio


def told(rates: list[float]) -> str:
    return f"{statistics.median(rates):,.0f}/s ({min(rates):,.0f} to {max(rates):,.0f})"


def open_graphs_of(predictor: Predictor) -> list[Graph]:
    """The one graph of a model that is run once for each batch."""
    return [value for value in vars(predictor.served).values() if isinstance(value, Graph)]


def main() -> int:
    """Measure every model; 1 if one of them is below the bar."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--exports", type=Path, default=Path(tempfile.gettempdir()) / "maas-exports")
    for name, default in (("batch", 32), ("rounds", 7), ("inputs", 1024), ("threads", os.cpu_count() or 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    if reason := missing():
        print(f"skipped: {reason}. This bench needs a GPU.")
        return 0
    ratios = {name: measure(name, options) for name in NAMES}
    low = [name for name, ratio in ratios.items() if ratio < LEAST]
    print(f"below {LEAST} of bare ONNX Runtime: {', '.join(low)}" if low else f"all at least {LEAST} of bare ONNX Runtime")
    return 1 if low else 0


if __name__ == "__main__":
    sys.exit(main())
