"""The models that are measured, and real inputs for them: the catalogue's question answering and sentence encoder, and a CNN
of a few kilobytes whose own work is next to nothing, so that the server's shows."""

import base64
import csv
import gzip
import io
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from workers.export import ensure_exported
from workers.manifest import write_manifest

ROOT = Path(__file__).resolve().parents[2]
TINY, TEXTS, QUESTIONS = "tiny-cnn", "minilm-embed", "minilm-squad"
NAMES = (TINY, TEXTS, QUESTIONS)
COUNT = 96  # bodies that take turns: three batches of 32
LABELS = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
MANIFEST = {
    "name": TINY, "task": "image-classification", "recipe": "image_cnn", "description": "Random weights, to measure servers with.",
    "licence": "none", "rate": {"unit": "image", "per": 1, "units": 3}, "files": {}, "metrics": [],
}  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A model folder, its exported files, and inputs of at least 64 different calls."""

    name: str
    task: str
    folder: Path
    exported: Path
    inputs: list[Any]

    @property
    def facts(self) -> dict[str, Any]:
        """What a server has to know: the ONNX file that maas serves, its tokenizer, its labels."""
        config, tokenizer = json.loads((self.folder / "config.json").read_text()), self.folder / "tokenizer.json"
        return {
            "task": self.task, "onnx": str(onnx_file(self.exported)), "tokenizer": str(tokenizer) if tokenizer.exists() else None,
            "labels": config.get("labels", []),
        }  # fmt: skip


def open_subjects(names: list[str], models: Path, exports: Path, data: Path | None, seed: int) -> list[Subject]:
    """The named models, exported, with inputs in an order that the seed decides."""
    found = []
    for name in names:
        folder = models / name
        manifest = json.loads((folder / "manifest.json").read_text())
        exported = ensure_exported(folder, exports, print)
        inputs = list(dict.fromkeys(map(json.dumps, _inputs(name, folder, data))))
        random.Random(seed).shuffle(inputs)
        found.append(Subject(name, manifest["task"], folder, exported, [json.loads(text) for text in inputs[:COUNT]]))
    return found


def catalogue(folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    """A catalogue folder that holds these models alone: links to the shipped ones, and the tiny one made now if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name == TINY:
            make_tiny(folder / TINY)
        elif not (folder / name).exists():
            (folder / name).symlink_to(ROOT / "models" / name)
    return folder


def onnx_file(exported: Path) -> Path:
    """The graph that maas serves on a CPU, from what the export decided."""
    facts = json.loads((exported / "export.json").read_text())
    used = (facts.get("int8") or {}).get("used") == "used"
    return exported / f"{facts['graphs'][0]}{'.int8' if used else ''}.onnx"


# ---------- inputs ----------
def _inputs(name: str, folder: Path, data: Path | None) -> list[Any]:
    """From the larger public sets if there are any, else what is shipped with the model."""
    if data and name == TEXTS:
        return _news(data / "ag-news-18k" / "train.tsv.gz")
    if data and name == QUESTIONS:
        return _questions(data / "squad" / "dev-v1.1-public.json.gz")
    return [json.loads(line)["inputs"] for line in (folder / "samples.jsonl").read_text().splitlines() if line.strip()]


def _news(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        return [row["text"] for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)][: 10 * COUNT]


def _questions(path: Path) -> list[dict[str, str]]:
    """Those whose context fits one window, which is nearly all: peers are spared the reading in windows."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        articles = json.load(file)["data"]
    pairs = [(qa["question"], part["context"]) for article in articles for part in article["paragraphs"] for qa in part["qas"]]
    return [{"question": asked, "context": told} for asked, told in pairs if len(told) < 1200][:: max(1, len(pairs) // (10 * COUNT))]


# ---------- the tiny model ----------
def make_tiny(folder: Path) -> None:
    """A ResNet-9 of width 4 with seeded random weights, and the pictures shipped with cifar10-resnet9 at 32 x 32."""
    if (folder / "manifest.json").exists():
        return
    import torch
    from safetensors.torch import save_file

    from workers.networks.resnet import ResNet9

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    weights = ResNet9(4, len(LABELS)).state_dict()
    save_file({name: value.half() if value.is_floating_point() else value for name, value in weights.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"width": 4, "labels": LABELS, "size": 32}))
    lines = (ROOT / "models" / "cifar10-resnet9" / "samples.jsonl").read_text().splitlines()
    pictures = [_small(json.loads(line)["inputs"]) for line in lines]
    (folder / "samples.jsonl").write_text("".join(json.dumps({"inputs": picture}) + "\n" for picture in pictures))
    (folder / "card.md").write_text("# Random weights, to measure servers with\n")
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    write_manifest(folder)


def _small(picture: str) -> str:
    """A data URI of the same picture as a PNG of 32 x 32."""
    with Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))) as found:
        body = io.BytesIO()
        found.convert("RGB").resize((32, 32), Image.Resampling.BICUBIC).save(body, "PNG")
    return "data:image/png;base64," + base64.b64encode(body.getvalue()).decode()
