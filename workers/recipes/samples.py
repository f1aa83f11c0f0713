"""The inputs that are shipped with a model: for a first look, for the parity check, for the choice of int8."""

import base64
import json
from pathlib import Path
from typing import Any


def read_samples(folder: Path) -> list[Any]:
    """Inputs as `Served.encode` takes them; a picture's data URL becomes its bytes. FileNotFoundError without the file."""
    with (folder / "samples.jsonl").open(encoding="utf-8") as lines:
        return [_unpacked(json.loads(line)["inputs"]) for line in lines]


def _unpacked(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("data:image/"):
        return base64.b64decode(value.partition(",")[2])
    return value
