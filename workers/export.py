"""Trained weights to ONNX files, checked against the weights: `python -m workers.export models/<name> CACHE`.

The export runs in a process of its own, so that a server never holds torch. Its result is kept in the cache by what it
depends on, with `export.json` beside the files that says what was measured and decided.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workers.recipes import recipe
from workers.recipes.samples import read_samples
from workers.runtime import cache
from workers.runtime.graphs import Graph

EXPORTER = 3  # raise it when the same weights would give other files
TOLERANCE = 1e-4  # largest difference of an output in fp32
PARITY_INPUTS = 8
SERVED_FILES = ("model.safetensors", "config.json", "tokenizer.json")  # what an export depends on
Report = Callable[[str], None]


class ExportError(RuntimeError):
    """The export failed or its numbers differ from those of the trained network; the message says which."""


def ensure_exported(folder: Path, exports: Path, report: Report) -> Path:
    """The folder with the ONNX files of a model folder, made now if it is not there. ExportError if that fails."""
    target = exported_folder(folder, exports)
    if not target.is_dir():
        _run_export(folder.resolve(), exports.resolve(), report)
    return target


def exported_folder(folder: Path, exports: Path) -> Path:
    """Where the export of these weights belongs."""
    manifest = read_manifest(folder)
    served = {name: entry["sha256"] for name, entry in manifest["files"].items() if name in SERVED_FILES}
    return exports / f"{manifest['name'].replace('/', '-')}-{cache.key(EXPORTER, manifest['recipe'], served)}"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a model folder. FileNotFoundError without one."""
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return manifest


def _run_export(folder: Path, exports: Path, report: Report) -> None:
    """The command below, its lines passed on; the last ones are the error's message."""
    command = [sys.executable, "-m", "workers.export", str(folder), str(exports)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    lines: list[str] = []
    root = Path(__file__).resolve().parent.parent
    with subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            lines.append(line.rstrip())
            if line.startswith(folder.name):
                report(line.rstrip())
    if process.returncode != 0:
        raise ExportError(f"The export of {folder.name} failed: " + "\n".join(lines[-5:]))


# ---------- inside the export process ----------
def export(folder: Path, target: Path, report: Report) -> None:
    """Write the ONNX files of a model folder into `target`, check them, choose between fp32 and int8.

    ExportError when the numbers differ from torch's; FileNotFoundError without samples.jsonl, which the checks need.
    """
    from workers.runtime.onnx_files import write_onnx

    begun = time.monotonic()
    family, inputs = recipe(read_manifest(folder)["recipe"]), read_samples(folder)
    model = family.load(folder)
    names = []
    for drawing in family.drawings(model):
        write_onnx(drawing, target / f"{drawing.name}.onnx")
        names.append(drawing.name)
    difference = check_parity(family, model, folder, target, names, inputs)
    report(f"exported to ONNX, largest difference {difference:.1e}")
    choice = choose_int8(family, folder, target, names, inputs)
    if choice:
        figures = "agrees with fp32 to {agreement:.1%} (at least {least:.1%}), in a batch with alone to {steady:.1%} (100.0%)"
        report(f"int8 {choice['used']}: " + figures.format(**choice))
    seconds = round(time.monotonic() - begun, 1)
    facts = {"exporter": EXPORTER, "graphs": names, "parity": difference, "int8": choice, "seconds": seconds}
    (target / "export.json").write_text(json.dumps(facts, indent=1) + "\n")


def check_parity(family: Any, model: Any, folder: Path, target: Path, names: list[str], inputs: list[Any]) -> float:
    """The largest difference between torch and ONNX on real inputs; ExportError above TOLERANCE."""
    graphs = open_graphs(target, names)
    difference: float = family.parity(model, graphs, family.Served(folder, graphs), inputs[:PARITY_INPUTS])
    if not difference <= TOLERANCE:
        raise ExportError(f"ONNX and torch differ by {difference:.2e}; at most {TOLERANCE:.0e} is allowed.")
    return difference


def choose_int8(family: Any, folder: Path, target: Path, names: list[str], inputs: list[Any]) -> dict[str, Any] | None:
    """Quantise if the model's config names a bound, and keep the files only if the answers stay within it.

    An answer must not change with its neighbours, which may be another tenant's inputs: `steady` compares answers in one
    batch with answers one by one, and has to be perfect.
    """
    least = json.loads((folder / "config.json").read_text()).get("int8")
    if least is None:
        return None
    from workers.runtime.rounding import round_products

    for name in names:
        round_products(target / f"{name}.onnx", target / f"{name}.int8.onnx")
    exact, rounded = (_answers(family, folder, open_graphs(target, names, ending), inputs) for ending in ("", ".int8"))
    graphs = open_graphs(target, names, ".int8")
    alone = [answer for value in inputs for answer in _answers(family, folder, graphs, [value])]
    agreement, steady = family.agreement(exact, rounded), family.agreement(rounded, alone)
    is_used = agreement >= least and steady == 1.0
    if not is_used:
        for name in names:
            (target / f"{name}.int8.onnx").unlink()
    return {"used": "used" if is_used else "refused", "agreement": agreement, "least": least, "steady": steady}


def _answers(family: Any, folder: Path, graphs: dict[str, Graph], inputs: list[Any]) -> list[Any]:
    served = family.Served(folder, graphs)
    return [output for output, _ in served.run([served.encode(value, {}) for value in inputs])]


# ---------- opening ----------
def open_graphs(target: Path, names: list[str], ending: str = "", **budget: Any) -> dict[str, Graph]:
    """The ONNX files by name; `ending` is `.int8` for the quantised ones, `budget` what `Graph` takes."""
    return {name: Graph(target / f"{name}{ending}.onnx", **budget) for name in names}


def open_exported(target: Path, *, device: str = "cpu", threads: int = 1, gpu_bytes: int = 0) -> dict[str, Graph]:
    """What was decided for this device: int8 has kernels for the CPU only. The graphs of a version share `gpu_bytes`."""
    facts = json.loads((target / "export.json").read_text())
    rounded = device == "cpu" and facts["int8"] is not None and facts["int8"]["used"] == "used"
    share = gpu_bytes // len(facts["graphs"])
    return open_graphs(target, facts["graphs"], ".int8" if rounded else "", device=device, threads=threads, gpu_bytes=share)


def main() -> None:
    """Export one model folder if that has not been done. Two such processes do it once."""
    folder, exports = Path(sys.argv[1]), Path(sys.argv[2])
    import torch

    torch.set_num_threads(min(torch.get_num_threads(), 2))

    def report(line: str) -> None:
        print(f"{folder.name}: {line}", flush=True)  # noqa: T201  # a command speaks

    cache.made_once(exported_folder(folder, exports), lambda new: export(folder, new, report))


if __name__ == "__main__":
    main()
