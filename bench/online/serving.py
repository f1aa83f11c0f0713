"""Starts a peer with one model, alone on the machine, and stops all of it again."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.online import answers
from bench.online.comparison import Peer, Settings
from bench.online.cpu import seconds_of, tree
from bench.online.environments import ensure_environment
from bench.online.load import LoadError, Target
from bench.online.subjects import Subject
from maas.homes import PORTS, is_free
from maas.processes import end, last_lines

APPS = Path(__file__).with_name("peers")
START_SECONDS = 120.0


@dataclass(frozen=True)
class Running:
    """A server that answers, and the process above all of its processes."""

    target: Target
    pid: int

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        return seconds_of(self.pid)


def free_port() -> int:
    """A port that no other program has, below those that the kernel gives to clients."""
    return next(port for port in random.sample(PORTS, len(PORTS)) if is_free("127.0.0.1", port))


@contextmanager
def serving(peer: Peer, subject: Subject, cache: Path, settings: Settings | None = None) -> Iterator[Running]:
    """A peer that serves this model. LoadError with its log when it does not answer."""
    python = ensure_environment(cache / "venvs" / peer.name, peer.requirements)
    settings, port = settings or peer.settings(subject.task), free_port()
    folder, log = _folder(peer, subject, cache, settings, port), cache / f"{peer.name}.log"
    target = Target(
        f"http://127.0.0.1:{port}", peer.path, lambda value: peer.body(subject.task, value), lambda found: peer.read(subject.task, found)
    )
    with log.open("wb") as output:
        process = subprocess.Popen(
            peer.command(python, port, settings), cwd=folder, env=_environment(folder, settings), stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        _wait(target, subject, process, log)
        yield Running(target, process.pid)
    finally:
        stop(process)


def _folder(peer: Peer, subject: Subject, cache: Path, settings: Settings, port: int) -> Path:
    """Where it runs: its program beside the model's facts, and the files that MLServer reads."""
    folder = cache / "peers" / peer.name
    folder.mkdir(parents=True, exist_ok=True)
    for source in APPS.glob("*.py"):
        shutil.copy(source, folder)
    (folder / "model.json").write_text(json.dumps(subject.facts))
    server = {
        "host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "metrics_port": free_port(), "debug": False,
        "parallel_workers": settings.workers,
    }  # fmt: skip
    batches = {"max_batch_size": 32, "max_batch_time": (settings.wait_ms or 0) / 1000}
    (folder / "settings.json").write_text(json.dumps(server))
    (folder / "model-settings.json").write_text(json.dumps({"name": "bench", "implementation": "mlserver_app.Runtime", **batches}))
    return folder


def _environment(folder: Path, settings: Settings) -> dict[str, str]:
    """Without what would send a peer to the packages or the settings of maas."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAAS_", "PYTHON", "DJANGO", "BENCH_"))}
    ours = {
        "BENCH_MODEL": str(folder / "model.json"), "BENCH_THREADS": str(settings.threads), "BENCH_WORKERS": str(settings.workers),
        "BENCH_WAIT_MS": str(settings.wait_ms or 0), "BENCH_QUEUE": "zmq" if settings.is_fast else "mp", "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(folder), "BENTOML_HOME": str(folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "true",
        "DO_NOT_TRACK": "1", "MALLOC_ARENA_MAX": "2",
    }  # fmt: skip
    return {**kept, **ours}


def _wait(target: Target, subject: Subject, process: subprocess.Popen[bytes], log: Path) -> None:
    limit = time.monotonic() + START_SECONDS
    while True:
        try:
            answers.ask(target, subject.inputs[0])
            return
        except (OSError, answers.Refused) as error:
            if process.poll() is not None or time.monotonic() > limit:
                raise LoadError("\n".join([f"A peer does not answer ({error}); the end of {log}:", *last_lines(log, 25)])) from None
            time.sleep(0.2)


def stop(process: subprocess.Popen[bytes], patience: float = 10.0) -> None:
    """End a server and everything below it, so that the next has the machine to itself."""
    below = [one.pid for one in tree(process.pid)]
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    end(below, signal.SIGKILL, patience=1)
    process.wait()
