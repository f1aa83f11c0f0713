"""The manifest of a model folder: what is in it, by sha256, and what was measured."""

import hashlib
import json
from pathlib import Path
from typing import Any

LISTED = ("model.safetensors", "config.json", "tokenizer.json", "samples.jsonl", "train.toml")


def write_manifest(folder: Path, metrics: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Renew sizes and digests, and the metrics if they are given; facts that only a person knows stay as they are."""
    path = folder / "manifest.json"
    manifest: dict[str, Any] = json.loads(path.read_text())
    manifest["files"] = {name: describe(folder / name) for name in LISTED if (folder / name).exists()}
    if metrics is not None:
        manifest["metrics"] = metrics
    path.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return manifest


def describe(path: Path) -> dict[str, Any]:
    """Size in bytes and sha256 of a file."""
    with path.open("rb") as body:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(body, "sha256").hexdigest()}
