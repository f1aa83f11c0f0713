"""Data sets of a few rows, in the formats that the recipes read, and settings that train on them in seconds."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

LOOP = {"seed": 3, "warmup": 0.2, "validate_every": 4, "threads": 1, "clip": 1.0, "report_every": 1}


def pictures(root: Path, steps: int) -> dict[str, Any]:
    """Red pictures and blue pictures."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    rng, rows = np.random.default_rng(0), []
    for i in range(48):
        pixels = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
        pixels[..., 0 if i % 2 else 2] += 180
        body = io.BytesIO()
        Image.fromarray(pixels).save(body, "PNG")
        rows.append({"id": str(i), "label": i % 2, "image": body.getvalue()})
    table = arrow.Table.from_pylist(rows).replace_schema_metadata({b"class_names": b"blue,red"})
    parquet.write_table(table, root / "train.parquet")
    loop = {**LOOP, "steps": steps, "batch": 8, "optimiser": "sgd", "rate": 0.02}
    return {"recipe": "image_cnn", "data": {"train": "train.parquet", "valid": 8}, "model": {"width": 4}, "train": loop}


def pairs(root: Path, steps: int) -> dict[str, Any]:
    """Numbers in two languages."""
    words = [("one", "eins"), ("two", "zwei"), ("three", "drei"), ("four", "vier"), ("five", "fünf"), ("six", "sechs")]
    lines = [f"{a} {c} {e}\t{b} {d} {f}\n" for a, b in words for c, d in words for e, f in words]
    with gzip.open(root / "train.tsv.gz", "wt", encoding="utf-8") as file:
        file.writelines(lines)
    shape = {"vocabulary": 300, "width": 32, "heads": 2, "inner": 64, "encoders": 1, "decoders": 1, "dropout": 0.1, "longest": 64}
    loop = {**LOOP, "steps": steps, "tokens": 400, "optimiser": "adamw", "rate": 5e-3}
    data = {"train": "train.tsv.gz", "source": "en", "target": "de", "valid": 12}
    return {"recipe": "transformer_translation", "data": data, "model": shape, "train": loop}


def questions(root: Path, steps: int) -> dict[str, Any]:
    """Who is where, in four articles."""
    names, places = ["Anna", "Boris", "Carla", "David"], ["garden", "kitchen", "cellar", "attic"]
    articles = [{"title": name, "paragraphs": [_paragraph(name, place) for place in places]} for name in names]
    with gzip.open(root / "train.json.gz", "wt", encoding="utf-8") as file:
        json.dump({"version": "1.1", "data": articles}, file)
    loop = {**LOOP, "steps": steps, "tokens": 128, "optimiser": "adamw", "rate": 2e-4, "head": 5.0}
    data = {"train": "train.json.gz", "questions": 12, "valid_articles": 1, "valid": 4}
    shape = {"crop": 24, "question": 12, "dropout": 0.1, "attention_dropout": 0.0}
    return {"recipe": "bert_qa", "data": data, "model": shape, "train": loop}


def _paragraph(name: str, place: str) -> dict[str, Any]:
    context = f"{name} spent the whole day in the {place} and came back late."
    answer = {"text": f"the {place}", "answer_start": context.index(f"the {place}")}
    return {"context": context, "qas": [{"id": f"{name}-{place}", "question": f"Where was {name}?", "answers": [answer]}]}
