"""How fast a batch is, beside what one would write by hand: python -m bench.batch --lines 50000

In each round the same texts become vectors by the same ONNX file: in a hand-written loop that sorts them by length, in one that
does not, by Hugging Face's pipeline over the same weights, and as a batch of the whole product. Vectors are compared. All have
the threads that one run of a batch worker has. The loops are measured over `--sample` texts of the batch, evenly spread.
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.batch import loops
from bench.batch.product import run_batch
from bench.batch.texts import read_texts
from bench.online.load import LoadError
from bench.online.stack import full_stack
from bench.online.subjects import ROOT, TEXTS, catalogue, open_subjects

FOLDER = ROOT / ".maas" / "bench"
ALIKE = 2e-3  # largest difference of a number of a vector; what the API shows is rounded
WANTED = {"sorted": 0.90, "naive": 2.0, "pipeline": 2.5}
MEMORY = 300.0  # MiB above an idle worker that has loaded the model


def main() -> int:
    """0 when every ratio and the memory are as wanted; 1 when one is not, or something failed."""
    options = _options()
    try:
        figures = measure(options)
    except (LoadError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0 if tell(figures) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.batch", description=__doc__)
    parser.add_argument("--lines", type=int, default=6000, help="of the batch")
    parser.add_argument("--sample", type=int, default=1500, help="texts of each hand-written loop")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of a run")
    parser.add_argument("--loops", default=",".join(loops.LOOPS), help=f"of {','.join(loops.LOOPS)}")
    parser.add_argument("--data", type=Path, help="a folder with ag-news-18k and squad; else the model's own samples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="exports and the home of maas; kept between runs")
    parser.add_argument("--json", type=Path, help="where every figure goes")
    return parser.parse_args()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every figure of every round."""
    folder = options.folder.resolve()
    models, home = catalogue(folder / "models"), folder / "home"
    (subject,) = open_subjects([TEXTS], models, home / "cache" / "exports", None, options.seed)
    texts = read_texts(options.data, options.lines, options.seed)
    sample = texts[:: max(1, len(texts) // options.sample)][: options.sample]
    rates: dict[str, list[float]] = defaultdict(list)
    memory: list[float] = []
    for number in range(options.rounds):
        for loop in options.loops.split(","):
            found = loops.measure(loop, subject, sample, options.threads)
            rates[loop].append(found["per_second"])
            _say(number, loop, found["per_second"])
        with full_stack(home, models, MAAS_THREADS=str(options.threads)) as stack:
            run_batch(stack, sample[:64])  # loads the model
            done = run_batch(stack, texts)
        _compare(done.vectors, loops.measure("sorted", subject, texts[: loops.BATCH], options.threads)["vectors"])
        rates["maas"].append(done.per_second)
        rates["maas, checked"].append(done.running_per_second)
        memory.append(done.peak_mib - done.idle_mib)
        _say(number, "maas", done.per_second)
    return {"lines": len(texts), "sample": len(sample), "threads": options.threads, "rates": dict(rates), "memory_mib": memory}


def _compare(ours: list[list[float]], theirs: list[list[float]]) -> None:
    difference = float(np.abs(np.array(ours) - np.array(theirs)).max())
    if difference > ALIKE:
        raise LoadError(f"Vectors differ by {difference:.2g}.")


def _say(number: int, what: str, rate: float) -> None:
    print(f"round {number + 1}: {what} {rate:.1f}/s", flush=True)


def tell(figures: dict[str, Any]) -> bool:
    """Print medians, their range and the ratios; whether all are as wanted."""
    rates, reached = figures["rates"], []
    for what, found in rates.items():
        print(f"{what:>14}: {statistics.median(found):8.1f} texts/s  ({min(found):.1f}..{max(found):.1f})")
    for loop, wanted in WANTED.items():
        if loop in rates:
            ratio = statistics.median(ours / theirs for ours, theirs in zip(rates["maas"], rates[loop], strict=True))
            reached.append(ratio >= wanted)
            print(f"maas / {loop}: {ratio:.2f} (wanted {wanted}) {'reached' if reached[-1] else 'MISSED'}")
    above = max(figures["memory_mib"])
    reached.append(above <= MEMORY)
    print(f"worker's memory: at most {above:.0f} MiB above an idle one that has loaded the model (wanted {MEMORY:.0f})")
    return all(reached)


if __name__ == "__main__":
    sys.exit(main())
