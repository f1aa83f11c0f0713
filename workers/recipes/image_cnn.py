"""Image classification with a convolutional network."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from workers.recipes.data import Data, shuffled
from workers.runtime.graphs import Graph

MEAN = np.array([0.4914, 0.4822, 0.4465], np.float32)  # of CIFAR-10, channels RGB, 0..1
STD = np.array([0.2470, 0.2435, 0.2616], np.float32)
TRIAL: dict[str, Any] = {}
BATCH = 16  # pictures in one run: more take memory and save no time


def _smallest() -> bytes:
    body = io.BytesIO()
    Image.new("RGB", (1, 1)).save(body, "PNG")
    return body.getvalue()


SMALLEST = _smallest()


# ---------- training ----------
def read(settings: dict[str, Any], root: Path) -> Data:
    """Pictures (32, 32, 3) uint8 with a label each, from a parquet file of encoded pictures."""
    import pyarrow.parquet as parquet

    table = parquet.read_table(root / settings["data"]["train"])
    names = (table.schema.metadata or {})[b"class_names"].decode().split(",")
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(body.as_py())).convert("RGB")) for body in table["image"]])
    labels = np.array(table["label"].to_pylist(), np.int64)
    held_out = set(_stratified(labels, settings["data"]["valid"], settings["train"]["seed"]))
    train = [i for i in range(len(labels)) if i not in held_out]
    return Data(train, sorted(held_out), extra={"pixels": pixels, "labels": labels, "names": names})


def _stratified(labels: np.ndarray, count: int, seed: int) -> list[int]:
    """`count` row numbers, the same number of each class."""
    order = shuffled(len(labels), seed, 0)
    classes = np.unique(labels)
    return [int(i) for label in classes for i in order[labels[order] == label][: count // len(classes)]]


def build(settings: dict[str, Any], data: Data) -> Any:
    import torch

    from workers.networks.resnet import ResNet9

    model: Any = ResNet9(settings["model"]["width"], len(data.extra["names"]))
    return model.to(memory_format=torch.channels_last)  # convolutions on a CPU are faster so


def groups(model: Any, settings: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"params": list(model.parameters()), "scale": 1.0}]


def batches(settings: dict[str, Any], data: Data, epoch: int) -> list[list[int]]:
    size = settings["train"]["batch"]
    order = shuffled(len(data.train), settings["train"]["seed"], epoch)
    return [[data.train[i] for i in order[at : at + size]] for at in range(0, len(order) - size + 1, size)]


def collate(settings: dict[str, Any], data: Data, rows: list[int], seed: int | None) -> tuple[Any, ...]:
    """Pixels (batch, 3, 32, 32) float32 normalised, and labels (batch,) int64; shifted and mirrored when training."""
    import torch

    pixels = data.extra["pixels"][rows]
    if seed is not None:
        pixels = _augment(pixels, np.random.default_rng((settings["train"]["seed"], seed)))
    images = torch.from_numpy(normalise(pixels)).contiguous(memory_format=torch.channels_last)
    return images, torch.from_numpy(data.extra["labels"][rows])


def _augment(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each picture shifted by up to 4 pixels (edges mirrored) and mirrored half of the time."""
    wide = np.pad(pixels, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="reflect")
    out = np.empty_like(pixels)
    down, right = rng.integers(0, 9, len(pixels)), rng.integers(0, 9, len(pixels))
    mirrored = rng.random(len(pixels)) < 0.5
    for i, (y, x, mirror) in enumerate(zip(down, right, mirrored, strict=True)):
        crop = wide[i, y : y + 32, x : x + 32]
        out[i] = crop[:, ::-1] if mirror else crop
    return out


def loss(model: Any, batch: list[Any]) -> tuple[Any, int]:
    from torch.nn import functional as F

    pixels, labels = batch
    return F.cross_entropy(model(pixels), labels, label_smoothing=0.1), len(labels)


def validate(model: Any, settings: dict[str, Any], data: Data) -> dict[str, float]:
    import torch

    right = 0
    with torch.inference_mode():
        for at in range(0, len(data.valid), 500):
            pixels, labels = collate(settings, data, data.valid[at : at + 500], None)
            right += int((model(pixels).argmax(1) == labels).sum())
    return {"score": right / len(data.valid), "accuracy": right / len(data.valid)}


def save(settings: dict[str, Any], data: Data, folder: Path) -> None:
    config = {"width": settings["model"]["width"], "labels": data.extra["names"], "size": 32}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


# ---------- export ----------
def load(folder: Path) -> Any:
    """The network as it is served: it looks at each picture and at its mirror image."""
    from workers.networks.resnet import Mirrored, ResNet9
    from workers.networks.weights import load_weights

    config = json.loads((folder / "config.json").read_text())
    model = ResNet9(config["width"], len(config["labels"]))
    load_weights(model, folder / "model.safetensors")
    return Mirrored(model).eval()


def drawings(model: Any) -> list[Any]:
    import torch

    from workers.runtime.onnx_files import Drawing

    return [Drawing("classifier", model, {"pixels": torch.zeros(2, 3, 32, 32)}, ["logits"], {"pixels": {0: "batch"}})]


def parity(model: Any, graphs: dict[str, Graph], served: "Served", inputs: list[Any]) -> float:
    """Largest difference of a logit."""
    import torch

    pixels = normalise(np.stack([served.encode(value, {})[0] for value in inputs]))
    with torch.inference_mode():
        ours = model(torch.from_numpy(pixels)).numpy()
    return float(np.abs(ours - graphs["classifier"](pixels=pixels)[0]).max())


def agreement(outputs: list[Any], others: list[Any]) -> float:
    """Share of pictures with the same first label."""
    same = [a[0]["label"] == b[0]["label"] for a, b in zip(outputs, others, strict=True)]
    return sum(same) / len(same)


# ---------- serving ----------
class Served:
    """Pictures to labels with probabilities."""

    def __init__(self, folder: Path, graphs: dict[str, Graph]) -> None:
        self.labels: list[str] = json.loads((folder / "config.json").read_text())["labels"]
        self.graph = graphs["classifier"]

    def tokens(self, values: list[bytes]) -> list[None]:
        return [None] * len(values)  # a picture is read by itself

    def encode(self, value: bytes, parameters: dict[str, Any], tokens: None = None) -> tuple[np.ndarray, int]:
        """Pixels (32, 32, 3) uint8 of a PNG, JPEG or WebP file, and how many labels are asked for."""
        try:
            with Image.open(io.BytesIO(value), formats=("PNG", "JPEG", "WEBP")) as picture:
                return _fitted(picture), parameters.get("top_k", 5)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError("Is not a readable PNG, JPEG or WebP picture.") from error

    def run(self, encoded: list[tuple[np.ndarray, int]]) -> list[tuple[Any, int]]:
        pixels = normalise(np.stack([picture for picture, _ in encoded]))
        parts = [self.graph(pixels=pixels[at : at + BATCH])[0] for at in range(0, len(pixels), BATCH)]
        shares = softmax(np.concatenate(parts))
        return [(self._named(row, top_k), 1) for row, (_, top_k) in zip(shares, encoded, strict=True)]

    def _named(self, shares: np.ndarray, top_k: int) -> list[dict[str, Any]]:
        return [{"label": self.labels[i], "score": float(shares[i])} for i in np.argsort(-shares)[:top_k]]


def _fitted(picture: Image.Image) -> np.ndarray:
    """Upright, on white where it is transparent, squeezed to 32 x 32."""
    picture.draft("RGB", (64, 64))  # lets the JPEG decoder skip detail that is thrown away anyway
    upright = ImageOps.exif_transpose(picture)
    if not upright.has_transparency_data:
        return np.asarray(upright.convert("RGB").resize((32, 32), Image.Resampling.BICUBIC))
    small = upright.convert("RGBA").resize((32, 32), Image.Resampling.BICUBIC)
    return np.asarray(Image.alpha_composite(Image.new("RGBA", small.size, "white"), small).convert("RGB"))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Shares that sum to 1 over the last axis."""
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    shares: np.ndarray = raised / raised.sum(-1, keepdims=True)
    return shares


def normalise(pixels: np.ndarray) -> np.ndarray:
    """(batch, 32, 32, 3) uint8 to (batch, 3, 32, 32) float32 with mean 0 and deviation 1 per channel."""
    return np.ascontiguousarray(((pixels.astype(np.float32) / 255 - MEAN) / STD).transpose(0, 3, 1, 2))


# ---------- evaluation ----------
def examples(settings: dict[str, Any], root: Path) -> list[tuple[Any, Any]]:
    """Encoded pictures and the names of their classes."""
    import pyarrow.parquet as parquet

    table = parquet.read_table(root / settings["data"]["test"])
    names = (table.schema.metadata or {})[b"class_names"].decode().split(",")
    return [(body.as_py(), names[label.as_py()]) for body, label in zip(table["image"], table["label"], strict=True)]


def figures(outputs: list[Any], references: list[Any]) -> dict[str, float]:
    """Share of pictures whose first label is right, 0..1."""
    right = [output[0]["label"] == name for output, name in zip(outputs, references, strict=True)]
    return {"accuracy": round(sum(right) / len(right), 4)}
