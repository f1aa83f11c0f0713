"""The web server without anything else, with one process that answers: what it takes of memory, what a restart does to callers."""

import os
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from tests.conftest import HOME, ROOT
from tests.webhook_faults import Killable, free_port


@dataclass
class Web:
    """A running server; `most` is the memory that its process took at the most, in bytes, while it was watched."""

    port: int
    part: Killable
    most: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_until_alive(self, seconds: float = 60) -> None:
        """Until it answers."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"{self.url}/healthz", timeout=5).close()
                return
            except OSError:
                time.sleep(0.2)
        raise AssertionError(self.part.log.read_text(errors="replace")[-2000:])

    def worker(self) -> psutil.Process:
        return max(psutil.Process(self.part.process.pid).children(), key=lambda child: child.memory_info().rss)

    def watch(self, stop: threading.Event) -> None:
        worker = self.worker()
        while not stop.wait(0.01):
            self.most = max(self.most, worker.memory_info().rss)

    def growth(self, task: Callable[[], object]) -> int:
        """Bytes that the process grew by at the most while the task ran."""
        before, stop = self.worker().memory_info().rss, threading.Event()
        self.most = before
        thread = threading.Thread(target=self.watch, args=(stop,))
        thread.start()
        try:
            task()
        finally:
            stop.set()
            thread.join()
        return self.most - before


@contextmanager
def web_alone() -> Iterator[Web]:
    """Start it on a free port; kill it at the end."""
    port = free_port()
    ours = {"MAAS_BIND": f"127.0.0.1:{port}", "MAAS_URL": f"http://127.0.0.1:{port}", "MAAS_WEB_PROCESSES": "1", "PYTHONPATH": str(ROOT)}
    running = Web(port, Killable([sys.executable, "-m", "maas.web"], HOME / f"web-{port}.log", {**os.environ, **ours}))
    running.part.start()
    try:
        running.wait_until_alive()
        yield running
    finally:
        running.part.kill()
