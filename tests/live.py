"""The product as it runs: web, online server, Celery workers and beat as processes of their own."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cast import PASSWORD, Key, make_key, make_tenant, make_user

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
COMMANDS = {
    "web": [sys.executable, "-m", "maas.web"],
    "online": [sys.executable, "-m", "workers.online"],
    "batch": [
        str(BIN / "celery"), "-A", "maas.celery", "worker", "-Q", "batch", "-P", "solo", "-n", "batch@%h",
        "--without-gossip", "--without-mingle", "-l", "INFO",
    ],
    "light": [
        str(BIN / "celery"), "-A", "maas.celery", "worker", "-Q", "default,webhooks", "-P", "threads", "-c", "12", "-n", "light@%h",
        "--without-gossip", "--without-mingle", "-l", "INFO",
    ],
    "beat": [str(BIN / "celery"), "-A", "maas.celery", "beat", "-s"],
}  # fmt: skip


@dataclass
class Live:
    """A running system. `email` and `password` sign in as the owner of the tenant that `key` belongs to."""

    url: str
    key: Key
    email: str
    password: str
    home: Path
    env: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Start a part; its output goes to a file beside the others."""
        command = [*COMMANDS[name], str(self.home / "beat")] if name == "beat" else COMMANDS[name]
        log = (self.home / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(
            command, cwd=ROOT, env=self.env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )

    def kill(self, name: str) -> None:
        """SIGKILL a part and all that it started."""
        process = self.processes[name]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """End everything in good order."""
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)

    def log(self, name: str) -> str:
        """What a part has written so far."""
        return (self.home / f"{name}.log").read_text(errors="replace")


@contextmanager
def start_live(home: Path) -> Iterator[Live]:
    """Load the catalogue, start all parts, wait until calls would be answered."""
    user = make_user("live")
    key = make_key(make_tenant(user, "live"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    ours = {"MAAS_URL": url, "MAAS_BIND": f"127.0.0.1:{port}", "MAAS_WEBHOOK_ALLOW": "127.0.0.0/8,::1"}
    env = {**os.environ, **ours, "PYTHONPATH": str(ROOT)}
    for command in (["manage.py", "load_catalogue"], ["-m", "workers.prepare"]):
        subprocess.run([sys.executable, *command], cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
    running = Live(url, key, user.email, PASSWORD, home, env)
    try:
        for name in COMMANDS:
            running.start(name)
        wait_until_ready(running)
        yield running
    finally:
        running.stop()


def wait_until_ready(running: Live, seconds: float = 90) -> None:
    """Until /readyz says so; shows the logs when it never does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{running.url}/readyz", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.3)
    raise AssertionError("not ready\n" + "\n".join(f"== {name}\n{running.log(name)[-2000:]}" for name in COMMANDS))
