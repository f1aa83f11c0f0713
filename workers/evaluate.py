"""A model as it is served, on its public test split: `python -m workers.evaluate models/<name> --data DIR --write`.

Nothing else reads the test splits. `--write` puts the figures into manifest.json and into the card.
"""

import argparse
import os
import re
import tempfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workers.manifest import write_manifest
from workers.predict import Prediction, Predictor
from workers.recipes import recipe

BATCH = 128
Report = Callable[[str], None]
TITLES = {
    "accuracy": "accuracy", "knn_accuracy": "10-nearest-neighbour accuracy", "f1": "F1", "exact_match": "exact match",
    "bleu": "BLEU", "chrf": "chrF",
}  # fmt: skip


def evaluate(folder: Path, root: Path, predictor: Predictor, *, limit: int | None, report: Report) -> list[dict[str, Any]]:
    """Every measure of the recipe with value, data set, split and sample size. The first `limit` examples if given.

    RuntimeError if an input cannot be answered: figures over the rest would flatter.
    """
    settings = tomllib.loads((folder / "train.toml").read_text())
    family = recipe(settings["recipe"])
    pairs = family.examples(settings, root)[:limit]
    outputs = _outputs(predictor, [value for value, _ in pairs], report)
    figures = family.figures(outputs, [reference for _, reference in pairs])
    dataset, split = Path(settings["data"]["test"]).parts[0], "test-public"
    return [{"metric": name, "value": value, "dataset": dataset, "split": split, "n": len(pairs)} for name, value in figures.items()]


def _outputs(predictor: Predictor, inputs: list[Any], report: Report) -> list[Any]:
    outputs: list[Any] = []
    for at in range(0, len(inputs), BATCH):
        part = inputs[at : at + BATCH]
        for found in predictor.predict(part, [{}] * len(part)):
            if not isinstance(found, Prediction):
                raise RuntimeError(f"Input {len(outputs)} was not answered.") from found
            outputs.append(found.output)
        report(f"{len(outputs)} of {len(inputs)}")
    return outputs


def write_card(path: Path, metrics: list[dict[str, Any]]) -> None:
    """Renew the table under the card's heading Results."""
    rows = [f"| {TITLES[m['metric']]} | {m['value']} | {m['dataset']} | {m['split']} | {m['n']:,} |" for m in metrics]
    table = "\n".join(["| measure | value | data set | split | examples |", "| --- | --- | --- | --- | --- |", *rows])
    text = re.sub(r"(?s)(?<=\n## Results\n\n)\|.*?\n(?=\n)", lambda _: f"{table}\n", path.read_text())
    path.write_text(text)


def main() -> None:
    """Measure one model folder and print its figures."""
    options = parse_options()
    begun = time.perf_counter()
    predictor = Predictor(options.folder, options.cache, device=options.device, threads=options.threads)
    loaded = time.perf_counter()
    metrics = evaluate(options.folder, options.data, predictor, limit=options.limit, report=_show)
    seconds = time.perf_counter() - loaded
    for metric in metrics:
        _show("{metric} {value}  {dataset} {split}  n={n}".format(**metric))
    _show(f"loaded in {loaded - begun:.1f} s, {seconds:.1f} s in all, {1000 * seconds / metrics[0]['n']:.1f} ms an example")
    if options.write:
        write_card(options.folder / "card.md", metrics)
        write_manifest(options.folder, metrics)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure a model on its public test split, the way it is served.")
    parser.add_argument("folder", type=Path, help="models/<name>")
    parser.add_argument("--data", type=Path, default=os.environ.get("MAAS_DATA"), help="folder of data sets (or MAAS_DATA)")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "maas-exports", help="exports are kept here")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=int, help="only the first N examples")
    parser.add_argument("--write", action="store_true", help="put the figures into manifest.json and card.md")
    options = parser.parse_args()
    if options.data is None:
        parser.error("say where the data sets are: --data DIR or MAAS_DATA")
    if options.write and options.limit:
        parser.error("figures of a part of the test split are not written down: leave out --limit or --write")
    options.data = Path(options.data)
    return options


def _show(line: str) -> None:
    print(line, flush=True)  # noqa: T201  # a command speaks


if __name__ == "__main__":
    main()
