"""Write the samples.jsonl of every model: `python models/samples.py --data DIR`. The same data give the same samples."""

import argparse
import base64
import gzip
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pictures import KINDS

HERE = Path(__file__).resolve().parent
COUNT, SEED = 100, 2


def pictures() -> Iterator[dict[str, Any]]:
    """Pictures as data URLs, the ten kinds in turn."""
    for number in range(COUNT):
        body = KINDS[number % len(KINDS)](random.Random(SEED * 1000 + number))  # noqa: S311
        yield {"inputs": "data:image/png;base64," + base64.b64encode(body).decode()}


def questions(root: Path) -> Iterator[dict[str, Any]]:
    """Questions about short passages of different articles."""
    with gzip.open(root / "squad/dev-v1.1-public.json.gz", "rt", encoding="utf-8") as file:
        articles = json.load(file)["data"]
    rows = [
        (article["title"], {"question": qa["question"], "context": paragraph["context"]})
        for article in articles for paragraph in article["paragraphs"] for qa in paragraph["qas"]
        if len(paragraph["context"]) < 900
    ]  # fmt: skip
    for title, inputs in random.Random(SEED).sample(rows, COUNT):  # noqa: S311
        source = f"SQuAD v1.1 (Rajpurkar et al. 2016), from the Wikipedia article {title.replace('_', ' ')}, CC BY-SA 4.0"
        yield {"inputs": inputs, "attribution": source}


def passages(root: Path) -> Iterator[dict[str, Any]]:
    """A question, then a passage that answers it, and so on: texts that are alike and texts that are not."""
    found = (row for row in questions(root) if len(row["inputs"]["context"]) < 750)
    for _, row in zip(range(COUNT // 2), found, strict=False):
        for part in ("question", "context"):
            yield {"inputs": row["inputs"][part].strip(), "attribution": row["attribution"]}


def sentences(root: Path) -> Iterator[dict[str, Any]]:
    """Different English sentences of some length."""
    with gzip.open(root / "tatoeba-eng-deu/test-public.tsv.gz", "rt", encoding="utf-8") as lines:
        found = sorted({line.split("\t")[0] for line in lines})
    for text in random.Random(SEED).sample([text for text in found if 15 <= len(text) <= 60], COUNT):  # noqa: S311
        yield {"inputs": text, "attribution": "tatoeba.org, by way of manythings.org/anki, CC BY 2.0 FR"}


def write(name: str, rows: Iterator[dict[str, Any]]) -> None:
    """One JSON object a line."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (HERE / name / "samples.jsonl").write_text("".join(lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the samples of every model.")
    parser.add_argument("--data", type=Path, default=os.environ.get("MAAS_DATA"), help="data sets (or MAAS_DATA)")
    root = parser.parse_args().data
    if root is None:
        parser.error("say where the data sets are: --data DIR or MAAS_DATA")
    write("cifar10-resnet9", pictures())
    write("minilm-squad", questions(Path(root)))
    write("minilm-embed", passages(Path(root)))
    write("tatoeba-en-de", sentences(Path(root)))


if __name__ == "__main__":
    main()
