"""What a batch embeds: headlines, questions and whole paragraphs mixed, as a search index over real documents would hold them."""

import csv
import gzip
import json
import random
from pathlib import Path

from bench.online.subjects import ROOT

LONGEST = 1000  # characters: within the encoder's window


def read_texts(data: Path | None, lines: int, seed: int) -> list[str]:
    """So many texts in a seeded order. Without the public data sets the samples of the model are taken again and again."""
    found = _from_data(data) if data else _samples()
    random.Random(seed).shuffle(found)
    return [found[number % len(found)] for number in range(lines)]


def _from_data(data: Path) -> list[str]:
    with gzip.open(data / "squad" / "train-v1.1.json.gz", "rt", encoding="utf-8") as file:
        parts = [part for article in json.load(file)["data"] for part in article["paragraphs"]]
    contexts = [part["context"] for part in parts if len(part["context"]) <= LONGEST]
    questions = [qa["question"].strip() for part in parts for qa in part["qas"]]
    with gzip.open(data / "ag-news-18k" / "train.tsv.gz", "rt", encoding="utf-8", newline="") as lines:
        news = [row["text"] for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)]
    each = min(len(contexts), len(questions), len(news))
    return [*contexts[:each], *questions[:: max(1, len(questions) // each)][:each], *news[:each]]


def _samples() -> list[str]:
    lines = (ROOT / "models" / "minilm-embed" / "samples.jsonl").read_text().splitlines()
    return [json.loads(line)["inputs"] for line in lines if line.strip()]
