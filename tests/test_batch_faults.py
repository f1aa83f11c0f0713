"""Batches under fire: real workers are killed, Redis is emptied, messages come twice, at random moments.

`MAAS_FAULT_RUNS=20 bin/test tests/test_batch_faults.py` runs more of them; each is seeded by its number.
"""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from apps.accounts.models import Tenant
from apps.files import services as files
from apps.jobs import services as jobs
from apps.jobs.models import Job
from apps.usage.models import UsageRecord
from maas import ids, queue
from maas.tenancy import as_tenant
from tests.conftest import HOME, ROOT
from tests.live import COMMANDS
from tests.tiny import NAME, load_tiny, picture

RUNS = int(os.environ.get("MAAS_FAULT_RUNS", "1"))
LINES = 1500
WORKERS = 2
PATIENCE = 300  # seconds
PRICE = 3


class Workers:
    """Celery workers and beat as processes of their own."""

    def __init__(self) -> None:
        self.launched, self.logs = 0, {}
        self.running = [self._start(number) for number in range(WORKERS)]
        self.light = self._launch(COMMANDS["light"])  # sweeps
        self.beat = self._launch([*COMMANDS["beat"], str(HOME / "faults-beat")])

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        command = [part.replace("batch@%h", f"fault{number}@%h") for part in COMMANDS["batch"]]
        return self._launch(command)

    def _launch(self, command: list[str]) -> subprocess.Popen[bytes]:
        self.launched += 1
        with (HOME / f"faults-{self.launched}.log").open("ab") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        self.logs[process.pid] = HOME / f"faults-{self.launched}.log"
        return process

    def said(self, process: subprocess.Popen[bytes]) -> str:
        """What a process has written."""
        return self.logs[process.pid].read_text(errors="replace")

    def kill(self, number: int) -> None:
        """SIGKILL a worker and start another in its place."""
        os.killpg(self.running[number].pid, signal.SIGKILL)
        self.running[number].wait()
        self.running[number] = self._start(number)

    def stop(self) -> list[int]:
        """SIGTERM everything; the exit codes. A worker that is still starting does not know how to end well yet."""
        for process in [*self.running, self.light]:
            while " ready." not in self.said(process) and process.poll() is None:
                time.sleep(0.1)
        everything = [*self.running, self.light, self.beat]
        for process in everything:
            process.terminate()
        return [process.wait(60) for process in everything]


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    load_tiny(HOME / "tiny")
    running = Workers()
    yield running
    assert running.stop() == [0] * (WORKERS + 2)


@pytest.mark.parametrize("seed", range(RUNS))
def test_every_line_is_answered_once_in_order_and_charged_to_the_unit(cast, workers, seed) -> None:
    dice = random.Random(seed)
    rows = [line(number, dice) for number in range(LINES)]
    job = start(cast.tenant, rows)
    wait_for(job, lambda: progress(job) > 0)
    for fault in dice.sample(["kill", "kill", "flush", "repeat"], 4):
        harm(fault, job, workers, dice)
        time.sleep(dice.random())
    wait_for(job, lambda: current(job).finished_at is not None)
    check_whole(job, rows)


def line(number: int, dice: random.Random) -> dict:
    body = {"model": NAME if dice.random() < 0.9 else "none", "inputs": picture(number), "parameters": {"top_k": 1}}
    return {"custom_id": f"line-{number}", "method": "POST", "url": "/v1/predictions", "body": body}


def start(tenant: Tenant, rows: list[dict]) -> Job:
    content = (json.dumps(row).encode() + b"\n" for row in rows)
    file = files.create_file(tenant, filename="lines.jsonl", purpose="batch", chunks=content)
    return jobs.create_batch(tenant, input_file_id=ids.encode(ids.FILE, file.id), endpoint="/v1/predictions", completion_window="24h")


def harm(fault: str, job: Job, workers: Workers, dice: random.Random) -> None:
    if fault == "kill":
        workers.kill(dice.randrange(WORKERS))
    if fault == "flush":
        queue.connect().flushall()
    if fault == "repeat":
        again = {"tenant_id": str(job.tenant_id), "job_id": str(job.id)}
        for name, arguments in (("validate_batch", again), ("finish_batch", again), ("run_slices", {}), ("run_slices", {})):
            queue.nudge(f"workers.tasks.{name}", queue="batch", **arguments)


def current(job: Job) -> Job:
    return jobs.get_job(Tenant(id=job.tenant_id), job.id)


def progress(job: Job) -> int:
    return current(job).completed


def wait_for(job: Job, condition) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, current(job).__dict__
        time.sleep(0.05)


def check_whole(job: Job, rows: list[dict]) -> None:
    tenant, job = Tenant(id=job.tenant_id), current(job)
    good = [row["custom_id"] for row in rows if row["body"]["model"] == NAME]
    bad = [row["custom_id"] for row in rows if row["body"]["model"] != NAME]
    assert (job.state, job.total, job.completed, job.failed) == ("succeeded", LINES, len(good), len(bad))
    found = [[json.loads(raw) for raw in files.open_file(tenant, file.id)] for file in (job.batch.output_file, job.batch.error_file)]
    assert [row["custom_id"] for row in found[0]] == good
    assert [row["custom_id"] for row in found[1]] == bad
    with as_tenant(tenant.id):
        records = list(UsageRecord.objects.filter(job_id=job.id))
    assert (sum(record.requests for record in records), sum(record.units for record in records)) == (len(good), len(good) * PRICE)
    assert sum(row["response"]["body"]["usage"]["units"] for row in found[0]) == job.units == len(good) * PRICE
