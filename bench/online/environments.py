"""A virtual environment for each peer, made once: none of them shares packages with maas or with another."""

import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

SHARED = ("tokenizers", "pillow", "numpy", "orjson")  # in the versions that maas has
LOOSE = "certifi"  # its newest version may not be offered yet where packages are mirrored; no figure depends on it


class InstallError(RuntimeError):
    """An environment could not be made; the message holds what pip said."""


def ensure_environment(folder: Path, requirements: list[str]) -> Path:
    """The interpreter of an environment that has these packages and the ONNX Runtime and tokenizers of maas."""
    wanted = [*requirements, *shared_versions()]
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    if python.exists() and stamp.exists() and stamp.read_text().split("\n") == wanted:
        return python
    print(f"Making the environment {folder} ...", flush=True)
    venv.create(folder, with_pip=True, clear=True)
    if _pip(python, *wanted).returncode != 0:
        _install_loosely(python, requirements, wanted)
    stamp.write_text("\n".join(wanted))
    return python


def shared_versions() -> list[str]:
    """Exact requirements of what all servers share."""
    runtime = next(name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name))
    return [f"onnxruntime=={_version(runtime)}", *(f"{name}=={_version(name)}" for name in SHARED)]


def installed(python: Path, *names: str) -> dict[str, str]:
    """Versions of packages in an environment; those that it lacks are left out."""
    code = "import importlib.metadata as m; [print(d.name.lower(), d.version) for d in m.distributions()]"
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    every = dict(line.split() for line in done.stdout.splitlines())
    return {name: every[name] for name in names if name in every}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _install_loosely(python: Path, requirements: list[str], wanted: list[str]) -> None:
    """The packages without what they need, then what they need with no bound on LOOSE."""
    _must(_pip(python, "--no-deps", *requirements))
    names = [requirement.partition("==")[0] for requirement in requirements]
    code = "import sys, importlib.metadata as m\nfor n in sys.argv[1:]:\n  for r in m.requires(n.partition('[')[0]) or []: print(r)"
    listed = subprocess.run([python, "-c", code, *names], check=True, capture_output=True, text=True).stdout.splitlines()
    needed = [LOOSE if line.startswith(LOOSE) else line for line in listed if "extra ==" not in line]
    _must(_pip(python, *needed, *wanted[len(requirements) :]))


def _pip(python: Path, *wanted: str) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "-q", *wanted]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def _must(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode != 0:
        raise InstallError(f"pip could not install what a peer needs ({sys.executable} made the environment):\n{done.stderr[-2000:]}")
