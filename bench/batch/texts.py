"""What a batch embeds: headlines, questions and whole paragraphs mixed, as a search index over real documents would hold them."""

import csv
import gzip
import json
import random
from pathlib import Path

from tokenizers import Tokenizer

from bench.online.subjects import ROOT

WINDOW = 256  # tokens that the encoder reads; it refuses longer texts


def read_texts(data: Path | None, lines: int, seed: int) -> list[str]:
    """So many texts in a seeded order. Without the public data sets the samples of the model are taken again and again."""
    found = _from_data(data) if data else _samples()
    random.Random(seed).shuffle(found)
    found = _readable(found[:lines])
    return [found[number % len(found)] for number in range(lines)]


def _readable(texts: list[str]) -> list[str]:
    """Those that fit the window."""
    tokenizer = Tokenizer.from_file(str(ROOT / "models" / "minilm-embed" / "tokenizer.json"))
    return [text for text, one in zip(texts, tokenizer.encode_batch_fast(texts), strict=True) if len(one.ids) <= WINDOW]


def _from_data(data: Path) -> list[str]:
    with gzip.open(data / "squad" / "train-v1.1.json.gz", "rt", encoding="utf-8") as file:
        parts = [part for article in json.load(file)["data"] for part in article["paragraphs"]]
    contexts = [part["context"] for part in parts]
    questions = [qa["question"].strip() for part in parts for qa in part["qas"]]
    with gzip.open(data / "ag-news-18k" / "train.tsv.gz", "rt", encoding="utf-8", newline="") as lines:
        news = [row["text"] for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)]
    each = min(len(contexts), len(questions), len(news))
    return [*contexts[:each], *questions[:: max(1, len(questions) // each)][:each], *news[:each]]


def _samples() -> list[str]:
    lines = (ROOT / "models" / "minilm-embed" / "samples.jsonl").read_text().splitlines()
    return [json.loads(line)["inputs"] for line in lines if line.strip()]
