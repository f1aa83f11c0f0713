"""Batches as large as they may be, through the real web server: what they cost the memory of web and worker.

Used by tests/test_batch_sizes.py in short and by `python -m bench.batch_memory` in full.
"""

import base64
import http.client
import io
import json
import os
import random
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from tests.batch_parts import START_SECONDS, Part, batch_parts, wait_until
from tests.cast import Key, make_key, make_tenant, make_user
from tests.conftest import HOME, ROOT
from tests.tiny import NAME
from tests.webhook_faults import free_port

ENDPOINT = "/v1/predictions"
MIB = 2**20
SIDE = 31  # pixels of a picture of noise: 50,000 lines with one are just below 200 MB
PICTURES = 256  # different ones
PATIENCE = 1800.0
HEAD = (
    b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="lines.jsonl"\r\nContent-Type: application/jsonl\r\n\r\n'
)
TAIL = b"\r\n--x--\r\n"


class Resident:
    """The resident memory of a process and of all below it, with the kernel's own mark of the most since `begin`."""

    def __init__(self, pid: int) -> None:
        self.pids = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        self.before: dict[int, int] = {}

    def begin(self) -> None:
        """Forget the peaks; what is there now is what growth counts from."""
        for pid in self._there():
            Path(f"/proc/{pid}/clear_refs").write_text("5")
            self.before[pid] = self._read(pid, "VmRSS")

    def growth(self) -> int:
        """Bytes by which the process that grew most was larger at its peak."""
        return max(self._read(pid, "VmHWM") - self.before[pid] for pid in self._there())

    def now(self) -> int:
        """Bytes of all of them."""
        return sum(self._read(pid, "VmRSS") for pid in self._there())

    def _there(self) -> list[int]:
        """Those that have not ended: a process that starts runs small programs."""
        return [pid for pid in self.pids if Path(f"/proc/{pid}/status").exists()]

    def _read(self, pid: int, name: str) -> int:
        rows = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(row.split()[1]) * 1024 for row in rows if row.startswith(f"{name}:"))


@dataclass
class Site:
    """A web server with a key, and a worker."""

    address: str
    key: Key
    web: Part
    worker: Part

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The answer of a call as JSON, whatever its status."""
        connection, headers = http.client.HTTPConnection(self.address, timeout=120), self._headers("application/json")
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        return json.load(connection.getresponse())

    def upload(self, chunks: Iterable[bytes], length: int) -> tuple[int, Any]:
        """Send a file of so many bytes as they come; the status and the answer."""
        connection = http.client.HTTPConnection(self.address, timeout=300)
        headers = {**self._headers("multipart/form-data; boundary=x"), "Content-Length": str(len(HEAD) + length + len(TAIL))}
        with suppress(BrokenPipeError, ConnectionResetError):  # the server has answered and hung up
            connection.request("POST", "/v1/files", _joined(chunks), headers)
        answer = connection.getresponse()
        return answer.status, json.load(answer)

    def download(self, file_id: str) -> Iterator[bytes]:
        """The lines of a file."""
        request = urllib.request.Request(f"http://{self.address}/v1/files/{file_id}/content", headers=self._headers("text/plain"))
        with urllib.request.urlopen(request, timeout=300) as answer:
            yield from answer

    def _headers(self, kind: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key.secret}", "Content-Type": kind}


def _joined(chunks: Iterable[bytes]) -> Iterator[bytes]:
    yield HEAD
    yield from chunks
    yield TAIL


@contextmanager
def site() -> Iterator[Site]:
    """The real web server, one batch worker that has loaded the tiny model, what sweeps, and beat."""
    address = f"127.0.0.1:{free_port()}"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MAAS_BIND": address, "MAAS_URL": f"http://{address}"}
    web = Part("web", [sys.executable, "-m", "maas.web"], env)
    with batch_parts(workers=1, inputs=None) as running:
        web.start()
        try:
            wait_until(lambda: _answers(address), START_SECONDS, "the web server answers")
            running_site = Site(address, make_key(make_tenant(make_user("sizes"), "sizes")), web, running["batch-0"])
            run(running_site, begin(running_site, 64, seed=0))
            yield running_site
        finally:
            web.kill()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/healthz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


# ---------- a batch ----------
def write_lines(path: Path, count: int, seed: int) -> Path:
    """A file of so many lines, each with a picture of noise; nobody holds more than a line of it."""
    dice = random.Random(seed)
    pictures = [_noise(dice) for _ in range(min(count, PICTURES))]
    with path.open("wb") as body:
        for number in range(count):
            asked = {"model": NAME, "inputs": pictures[number % len(pictures)], "parameters": {"top_k": 1}}
            body.write(json.dumps({"custom_id": f"line-{number}", "method": "POST", "url": ENDPOINT, "body": asked}).encode() + b"\n")
    return path


def _noise(dice: random.Random) -> str:
    body = io.BytesIO()
    Image.frombytes("RGB", (SIDE, SIDE), dice.randbytes(3 * SIDE * SIDE)).save(body, "PNG")
    return base64.b64encode(body.getvalue()).decode()


def begin(where: Site, count: int, *, seed: int) -> str:
    """Upload and start a batch of so many lines; its id."""
    path = write_lines(HOME / f"sizes-{count}.jsonl", count, seed)
    with path.open("rb") as body:
        status, file = where.upload(iter(lambda: body.read(MIB), b""), path.stat().st_size)
    assert status == 200, file
    made = where.ask("POST", "/v1/batches", {"input_file_id": file["id"], "endpoint": ENDPOINT, "completion_window": "24h"})
    return str(made["id"])


def run(where: Site, batch_id: str) -> dict[str, Any]:
    """Wait until a batch is completed."""
    end = time.monotonic() + PATIENCE
    while (batch := where.ask("GET", f"/v1/batches/{batch_id}"))["status"] in {"validating", "in_progress", "finalizing"}:
        assert time.monotonic() < end, batch
        time.sleep(0.2)
    assert batch["status"] == "completed", batch
    return dict(batch)


@dataclass
class Growth:
    """Bytes that each part grew by at its peak: web at the upload, the worker at the check and afterwards, web at the download."""

    file: int
    idle_worker: int
    upload: int
    check: int
    run: int
    download: int
    lines: int


def measure(where: Site, count: int, *, seed: int = 1) -> Growth:
    """Upload, check, run and download a batch of so many lines. AssertionError when a line is missing or out of place."""
    web, worker = Resident(where.web.process.pid), Resident(where.worker.process.pid)
    web.begin()
    worker.begin()
    idle = worker.now()
    batch_id = begin(where, count, seed=seed)
    upload = web.growth()
    wait_until(lambda: where.ask("GET", f"/v1/batches/{batch_id}")["status"] != "validating", PATIENCE, "the file is checked")
    check = worker.growth()
    batch = run(where, batch_id)
    web.begin()
    ids = (json.loads(line)["custom_id"] for line in where.download(batch["output_file_id"]))
    lines = sum(found == f"line-{number}" for number, found in enumerate(ids))
    assert lines == count, f"{lines} of {count} lines are in their place"
    size = (HOME / f"sizes-{count}.jsonl").stat().st_size
    return Growth(size, idle, upload, check, worker.growth(), web.growth(), lines)
