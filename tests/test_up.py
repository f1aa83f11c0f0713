"""The supervisor, with small programs in place of the product; and the whole journey once."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from maas import processes

ROOT = Path(__file__).resolve().parent.parent
TINY = """
import os, pathlib, sys
from maas.processes import Program
from maas.supervisor import Stopped, Supervisor
home = pathlib.Path(sys.argv[1])
supervisor = Supervisor()
supervisor.run(Program("child", ["sleep", "1000"], home, dict(os.environ), home))
try:
    supervisor.wait(lambda: False)
except Stopped:
    supervisor.stop()
"""


@pytest.fixture
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="maas-up-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def tiny(place: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", TINY, str(place)], cwd=ROOT, stdout=subprocess.DEVNULL)
    eventually(lambda: child_of(place) is not None)
    yield process
    process.kill()
    process.wait()


def child_of(place: Path) -> int | None:
    return next(iter(processes.traced_processes(place / "run/child.pid")), None)


def eventually(holds: Callable[[], bool], seconds: float = 15) -> None:
    limit = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_a_killed_child_is_started_again(place: Path, tiny: subprocess.Popen[bytes]) -> None:
    first = child_of(place)
    assert first
    os.kill(first, signal.SIGKILL)
    eventually(lambda: child_of(place) not in {None, first})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_supervisor(place: Path, tiny: subprocess.Popen[bytes], number: signal.Signals) -> None:
    child = child_of(place)
    assert child
    tiny.send_signal(number)
    tiny.wait(15)
    eventually(lambda: not processes.is_running(child))


def test_a_second_start_says_that_it_runs(place: Path) -> None:
    (place / "run").mkdir()
    with (place / "run/supervisor.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (place / "run/state.json").write_text('{"url": "http://127.0.0.1:8765", "pid": 1}')
        done = subprocess.run(
            [sys.executable, "-m", "maas.up"], cwd=ROOT, env={**os.environ, "MAAS_HOME": str(place)}, capture_output=True, text=True
        )
    assert done.returncode == 0
    assert "already running at http://127.0.0.1:8765" in done.stdout


def test_the_main_job_survives_the_death_of_its_worker(place: Path) -> None:
    names = {"DATABASE_URL", "REDIS_URL", "MAAS_SECRET_KEY", "MAAS_URL", "MAAS_BIND"}
    env = {name: value for name, value in os.environ.items() if name not in names} | {"MAAS_HOME": str(place)}
    done = subprocess.run(
        [sys.executable, "-m", "maas.up", "--check", "--kill-worker"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the check passed" in done.stdout
