"""Predictions of one model version: encode, run, decode. Shared by the online server and the batch worker.

`python -m workers.predict models/<name>` runs a few of its samples.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.export import ensure_exported, open_exported, read_manifest
from workers.recipes import recipe
from workers.recipes.samples import read_samples
from workers.runtime.graphs import out_of_memory


@dataclass(frozen=True)
class Prediction:
    """One answer. `output` is ready for JSON, in Hugging Face's shape of the task; `quantity` is what was worked on,
    tokens or images, before a rate is applied."""

    output: Any
    quantity: int


class Predictor:
    """One loaded version, for any number of threads at a time. ExportError when its weights cannot be exported.

    `least_bytes` is what it needs of memory at the least: the size of its networks' files.
    """

    def __init__(self, folder: Path, cache: Path, *, device: str = "cpu", threads: int = 1, gpu_bytes: int = 0) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true" if threads > 1 else "false")
        os.environ.setdefault("RAYON_NUM_THREADS", str(threads))  # of the tokenizers: the same budget
        manifest = read_manifest(folder)
        self.task: str = manifest["task"]
        exported = ensure_exported(folder, cache, lambda line: None)
        graphs = open_exported(exported, device=device, threads=threads, gpu_bytes=gpu_bytes)
        self.family = recipe(manifest["recipe"])
        self.served = self.family.Served(folder, graphs)
        self.least_bytes = sum(graph.bytes for graph in graphs.values())
        self.folder = folder

    def warm_up(self, batch: int) -> None:
        """Run one real sample, then `batch` of them, so that no caller pays for what a first run has to set up.

        A version without samples runs the smallest input of its recipe. Raises what went wrong if nothing can be answered.
        """
        samples = self._trials(_samples(self.folder)[:batch]) or [self.served.encode(self.family.SMALLEST, {})]
        for count in (1, batch):
            found = self._run([samples[i % len(samples)] for i in range(count)])
            failures = [one for one in found if isinstance(one, Exception)]
            if len(failures) == len(found):
                raise failures[0]

    def _trials(self, inputs: list[Any]) -> list[Any]:
        """The inputs that can be encoded, with the parameters that keep a trial short."""
        encoded = self._encoded(inputs, [self.family.TRIAL] * len(inputs))
        return [one for one in encoded if not isinstance(one, Exception)]

    def predict(self, inputs: list[Any], parameters: list[dict[str, Any]]) -> list[Prediction | Exception]:
        """One element for each input: its prediction, or what went wrong with it alone. A ValueError says what is
        wrong with the input; its neighbours are answered all the same."""
        encoded = self._encoded(inputs, parameters)
        good = [i for i, found in enumerate(encoded) if not isinstance(found, Exception)]
        results: list[Any] = list(encoded)
        for i, result in zip(good, self._run([encoded[i] for i in good]), strict=True):
            results[i] = result if isinstance(result, Exception) else Prediction(*result)
        return results

    def _encoded(self, inputs: list[Any], parameters: list[dict[str, Any]]) -> list[Any]:
        """What `run` takes, or what went wrong, for each input. All texts are tokenized at once: other threads go on meanwhile."""
        tokens = _attempt(self.served.tokens, inputs)
        if isinstance(tokens, Exception):  # one of them cannot be read at all: each is tried alone
            tokens = [None] * len(inputs)
        return [_attempt(self.served.encode, *one) for one in zip(inputs, parameters, tokens, strict=True)]

    def _run(self, encoded: list[Any]) -> list[Any]:
        """All at once. Without enough memory in two halves, and so on down to one; if it fails otherwise each alone, so
        that one input cannot spoil the others."""
        if not encoded:
            return []
        together = _attempt(self.served.run, encoded)
        if not isinstance(together, Exception):
            return list(together)
        if len(encoded) == 1:
            return [together]
        size = len(encoded) // 2 if out_of_memory(together) else 1
        return [found for at in range(0, len(encoded), size) for found in self._run(encoded[at : at + size])]


def _samples(folder: Path) -> list[Any]:
    """The samples of a version; none if it came without, or with some that cannot be read."""
    found = _attempt(read_samples, folder)
    return [] if isinstance(found, Exception) else list(found)


def _attempt(work: Callable[..., Any], *given: Any) -> Any:
    """What `work` returns, or what it raised."""
    try:
        return work(*given)
    except Exception as error:
        return error


def prepare(folder: Path, cache: Path, report: Callable[[str], None]) -> None:
    """Export a version if that has not been done; `report` gets a line for every step."""
    ensure_exported(folder, cache, report)


def main() -> None:
    """Load a model folder and show what it says about its first samples."""
    parser = argparse.ArgumentParser(description="Run the samples of a model.")
    parser.add_argument("folder", type=Path, help="models/<name>")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "maas-exports")
    parser.add_argument("--count", type=int, default=5)
    options = parser.parse_args()
    prepare(options.folder, options.cache, print)
    begun = time.perf_counter()
    predictor = Predictor(options.folder, options.cache)
    inputs = read_samples(options.folder)[: options.count]
    loaded = time.perf_counter()
    for value, found in zip(inputs, predictor.predict(inputs, [{}] * len(inputs)), strict=True):
        shown = f"{len(value)} bytes" if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False)[:200]
        print(shown, "->", found)  # noqa: T201
    seconds = (time.perf_counter() - loaded) / max(len(inputs), 1)
    print(f"loaded in {loaded - begun:.2f} s, {seconds * 1000:.1f} ms an input")  # noqa: T201


if __name__ == "__main__":
    main()
