"""A picture model of a few kilobytes for tests of batches: shipped, exported and served as the real ones are."""

import base64
import io
import json
from pathlib import Path

from PIL import Image

from apps.catalog import shipping
from apps.catalog.services import Version
from workers.manifest import write_manifest

NAME = "tiny-shades"
MANIFEST = {
    "name": NAME, "task": "image-classification", "recipe": "image_cnn", "description": "For tests.", "licence": "none",
    "rate": {"unit": "image", "per": 1, "units": 3}, "files": {}, "metrics": [],
}  # fmt: skip


def picture(shade: int = 128) -> str:
    """A grey picture as base64."""
    return base64.b64encode(picture_bytes(shade)).decode()


def picture_bytes(shade: int) -> bytes:
    """The same as a PNG file."""
    body = io.BytesIO()
    Image.new("RGB", (8, 8), (shade % 256, shade // 256 % 256, 0)).save(body, "PNG")
    return body.getvalue()


def load_tiny(folder: Path) -> Version:
    """Make the model's folder and load it; another call finds the same version."""
    if not (folder / "manifest.json").exists():
        _make(folder)
    return shipping.load_model(folder)[0]


def _make(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from workers.networks.resnet import ResNet9

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    weights = {name: value.half() if value.is_floating_point() else value for name, value in ResNet9(4, 3).state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"width": 4, "labels": ["dark", "grey", "light"], "size": 32}))
    (folder / "samples.jsonl").write_text(
        "".join(json.dumps({"inputs": "data:image/png;base64," + picture(n * 8)}) + "\n" for n in range(8))
    )
    (folder / "card.md").write_text("# For tests\n")
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    write_manifest(folder)
