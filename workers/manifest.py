"""The manifest of a model folder: what is in it, by sha256, and what was measured."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maas.shipped import locate

LISTED = ("model.safetensors", "config.json", "tokenizer.json", "samples.jsonl", "train.toml")


def write_manifest(folder: Path, metrics: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Renew sizes and digests, and the metrics if they are given; facts that only a person knows stay as they are."""
    path = folder / "manifest.json"
    manifest: dict[str, Any] = json.loads(path.read_text())
    manifest["files"] = dict(_entries(folder, manifest["files"]))
    if metrics is not None:
        manifest["metrics"] = metrics
    path.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return manifest


def _entries(folder: Path, known: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What lies in the folder, and what a package carries for it."""
    for name in LISTED:
        source = {"source": known[name]["source"]} if "source" in known.get(name, {}) else {}
        if source or (folder / name).exists():
            yield name, {**describe(locate(folder, name, source)), **source}


def describe(path: Path) -> dict[str, Any]:
    """Size in bytes and sha256 of a file."""
    with path.open("rb") as body:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(body, "sha256").hexdigest()}
