"""What the figures were measured on and with."""

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from bench.online.comparison import PEERS
from bench.online.environments import installed
from bench.online.rounds import Plan


def describe(plan: Plan) -> dict[str, Any]:
    """Date, machine, versions, the settings of each server, and what was asked for."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "cpu": _cpu_name(), "cores": os.cpu_count(), "memory_gib": round(psutil.virtual_memory().total / 2**30),
            "system": platform.system(), "python": platform.python_version(),
        },
        "versions": {name: _version(name) for name in ("onnxruntime", "onnxruntime-gpu", "tokenizers", "django", "granian")},
        "peers": {peer.name: _peer(peer.name, plan) for peer in PEERS if peer.name in plan.servers},
        "maas": {name: value for name, value in sorted(os.environ.items()) if name in TELLING},
        "options": {
            "rounds": plan.rounds, "seconds": plan.seconds, "concurrency": plan.concurrency, "servers": plan.servers,
            "inputs": {subject.name: len(subject.inputs) for subject in plan.subjects},
        },
    }  # fmt: skip


TELLING = {"MAAS_RUNNERS", "MAAS_THREADS", "MAAS_WEB_PROCESSES", "MAAS_WEB_THREADS", "MAAS_BATCH_LIMIT"}  # the rest may be secret


def _peer(name: str, plan: Plan) -> dict[str, Any]:
    peer = next(peer for peer in PEERS if peer.name == name)
    python = plan.cache / "venvs" / name / "bin" / "python"
    chosen = {task or "every task": settings.told() for task, settings in peer.chosen.items()}
    packages = [requirement.partition("==")[0].partition("[")[0] for requirement in peer.requirements]
    return {"settings": chosen, "versions": installed(python, *packages, "onnxruntime", "tokenizers")}


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
