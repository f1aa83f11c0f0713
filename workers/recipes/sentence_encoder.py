"""Texts to vectors whose cosine says how alike they are: mean pooling over a BERT encoder (Reimers and Gurevych 2019).

The shipped weights are the published ones, so this family has no functions for training.
"""

import csv
import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maas.shipped import find_file
from workers.runtime.batching import buckets, masked, padded
from workers.runtime.graphs import Graph

SMALLEST = "a"
TRIAL = {"truncate": True}
DIGITS = 8  # after the point of a number that is sent: the resolution of float32 in a vector of length 1
NEIGHBOURS = 10
BLOCK = 500  # texts whose similarities to all others are held at a time


# ---------- export ----------
def load(folder: Path) -> Any:
    from workers.networks.encoder import load_encoder

    shape = json.loads((folder / "config.json").read_text())["encoder"]
    return load_encoder(find_file(folder, "model.safetensors"), shape).eval()


def drawings(model: Any) -> list[Any]:
    import torch

    from workers.networks.attention import fused
    from workers.runtime.onnx_files import Drawing

    ids = torch.tensor([[101, 7, 8, 9, 102], [101, 7, 102, 0, 0]])
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    axes = {name: {0: "batch", 1: "length"} for name in inputs}
    return [Drawing("encoder", fused(model), inputs, ["hidden"], axes)]


def parity(model: Any, graphs: dict[str, Graph], served: "Served", inputs: list[Any]) -> float:
    """Largest difference of a hidden value of a token that is there."""
    import torch

    feed = feeds([served.encode(value, {}) for value in inputs])
    with torch.inference_mode():
        ours = model(**{name: torch.from_numpy(part) for name, part in feed.items()}).numpy()
    there = feed["attention_mask"] == 1
    return float(np.abs(ours - graphs["encoder"](**feed)[0])[there].max())


def agreement(outputs: list[Any], others: list[Any]) -> float:
    """Mean cosine of a text's two vectors, to four digits: what differs in the fifth ranks alike."""
    pairs = zip(normalised(np.array(outputs)), normalised(np.array(others)), strict=True)
    return round(float(np.mean([a @ b for a, b in pairs])), 4)


# ---------- serving ----------
@dataclass(frozen=True)
class Text:
    """A text as tokens, its first and last mark included, and whether its vector is made one long."""

    ids: list[int]
    normalize: bool


class Served:
    """Texts to vectors. A text longer than the window is refused: what a vector leaves out, nobody can see in it."""

    def __init__(self, folder: Path, graphs: dict[str, Graph]) -> None:
        from tokenizers import Tokenizer

        self.window: int = json.loads((folder / "config.json").read_text())["window"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.graph = graphs.get("encoder")

    def tokens(self, values: list[str]) -> list[list[int]]:
        return [one.ids for one in self.tokenizer.encode_batch_fast(values)]

    def encode(self, value: str, parameters: dict[str, Any], tokens: list[int] | None = None) -> Text:
        ids = tokens or self.tokens([value])[0]
        if len(ids) > self.window and not parameters.get("truncate"):
            raise ValueError(f"The text has {len(ids):,} tokens; this model reads at most {self.window}. Split it.")
        if len(ids) > self.window:
            ids = [*ids[: self.window - 1], ids[-1]]
        return Text(ids, parameters.get("normalize", True))

    def run(self, encoded: list[Text]) -> list[tuple[Any, int]]:
        """A list of numbers for each text, and the tokens read."""
        assert self.graph is not None  # noqa: S101  # only tests that count tokens open none
        found: dict[int, list[float]] = {}
        for rows in buckets([len(text.ids) for text in encoded], self.graph.cut):
            found |= zip(rows, self._vectors(self.graph, [encoded[row] for row in rows]), strict=True)
        return [(found[row], len(text.ids)) for row, text in enumerate(encoded)]

    def _vectors(self, graph: Graph, texts: list[Text]) -> list[list[float]]:
        feed = feeds(texts)
        means = mean_pooled(graph(**feed)[0], feed["attention_mask"])
        long = normalised(means)
        kept = np.where(np.array([text.normalize for text in texts])[:, None], long, means)
        vectors: list[list[float]] = kept.astype(np.float64).round(DIGITS).tolist()
        return vectors


def feeds(texts: list[Text]) -> dict[str, np.ndarray]:
    """Ids and mask (rows, longest), int64."""
    rows = [text.ids for text in texts]
    return {"input_ids": padded(rows), "attention_mask": masked(rows)}


def mean_pooled(hidden: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(rows, length, size) to (rows, size): the mean over the tokens that are there."""
    there = mask.astype(hidden.dtype)
    summed: np.ndarray = np.einsum("rls,rl->rs", hidden, there)
    return summed / there.sum(1, keepdims=True)


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1, so that their products are cosines."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)  # type: ignore[no-any-return]


# ---------- evaluation ----------
def examples(settings: dict[str, Any], root: Path) -> list[tuple[Any, Any]]:
    """Texts and their topics, from a table with the columns `text` and `label`."""
    with gzip.open(root / settings["data"]["test"], "rt", encoding="utf-8", newline="") as lines:
        return [(row["text"], row["label"]) for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)]


def figures(outputs: list[Any], references: list[Any]) -> dict[str, float]:
    """Share of texts whose topic is that of most of the ten other texts nearest by cosine, 0..1; the nearest decides a tie."""
    vectors = normalised(np.array(outputs, np.float32))
    right = [vote([references[i] for i in near]) == mine for near, mine in zip(nearest(vectors), references, strict=True)]
    return {"knn_accuracy": round(sum(right) / len(right), 4)}


def nearest(vectors: np.ndarray) -> list[list[int]]:
    """The rows nearest to each row, itself left out, nearest first."""
    found: list[list[int]] = []
    for at in range(0, len(vectors), BLOCK):
        cosines = vectors[at : at + BLOCK] @ vectors.T
        cosines[np.arange(len(cosines)), np.arange(at, at + len(cosines))] = -np.inf
        found += np.argsort(-cosines, axis=1, kind="stable")[:, :NEIGHBOURS].tolist()
    return found


def vote(labels: list[Any]) -> Any:
    """The label that comes most often; of several, the one that comes first."""
    return max(labels, key=labels.count)
