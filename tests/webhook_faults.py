"""Webhooks under fire: the receiver and the worker that delivers are killed at random moments.

Used by tests/test_webhook_faults.py in short and by `python -m bench.webhook_faults` in full.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from standardwebhooks import Webhook

from apps.accounts.models import Tenant
from apps.webhooks import services
from apps.webhooks.models import Attempt, Delivery, Message
from maas import queue
from maas.events import KeyCreated, publish
from maas.ids import uuid7
from maas.tenancy import as_tenant
from tests.conftest import HOME, ROOT
from tests.live import COMMANDS

PATIENCE = 400  # seconds
RETRIES = ",".join(["1"] * 200)


@dataclass
class Report:
    """What came of a run. `repeats` are calls that arrived beyond the first of an event."""

    events: int = 0
    attempts: int = 0  # noted
    arrived: int = 0
    repeats: int = 0
    receiver_kills: int = 0
    worker_kills: int = 0
    seconds: float = 0.0


@dataclass
class Killable:
    """A process that is started again each time it is killed."""

    command: list[str]
    log: Path
    env: dict[str, str]
    kills: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env=self.env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def kill(self) -> None:
        assert self.process
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.kills += 1


@contextmanager
def running(*parts: Killable) -> Iterator[None]:
    for part in parts:
        part.start()
    try:
        yield
    finally:
        for part in parts:
            part.kill()


def run(tenant: Tenant, *, events: int, receiver_kills: int, worker_kills: int, seed: int) -> Report:
    """Publish events, kill at random, wait until all have arrived, and check every one. AssertionError says what is off."""
    dice, begun = random.Random(seed), time.monotonic()
    port, log = free_port(), HOME / f"received-{uuid7().hex}.jsonl"
    env = {**os.environ, "MAAS_WEBHOOK_ALLOW": "127.0.0.0/8", "MAAS_WEBHOOK_RETRIES": RETRIES, "PYTHONPATH": str(ROOT)}
    receiver = Killable([sys.executable, "-m", "tests.receiver", str(port), str(log)], HOME / "receiver.log", env)
    worker = Killable(COMMANDS["light"], HOME / "webhook-worker.log", env)
    beat = Killable([*COMMANDS["beat"], str(HOME / "webhook-beat")], HOME / "webhook-beat.log", env)
    _endpoint, secret = services.create_endpoint(
        tenant, url=f"https://hooks.example:{port}/", events=["*"], resolve=lambda _host, _port: ["1.1.1.1"]
    )
    with as_tenant(tenant.id):  # what the check at creation refuses in this process, the worker's settings allow
        type(_endpoint).objects.filter(pk=_endpoint.pk).update(url=f"http://127.0.0.1:{port}/hook")
    with running(receiver, worker, beat):
        schedule = ["event"] * events + ["receiver"] * receiver_kills + ["worker"] * worker_kills
        dice.shuffle(schedule)
        for step in schedule:
            _do(step, tenant, receiver, worker, dice)
        _wait(tenant, events)
    return _check(tenant, secret, log, Report(receiver_kills=receiver_kills, worker_kills=worker_kills, seconds=time.monotonic() - begun))


def _do(step: str, tenant: Tenant, receiver: Killable, worker: Killable, dice: random.Random) -> None:
    if step == "event":
        with as_tenant(tenant.id):
            publish(KeyCreated(tenant_id=tenant.id, key_id=uuid7()))
        time.sleep(dice.random() * 0.08)
        return
    target = receiver if step == "receiver" else worker
    target.kill()
    time.sleep(dice.random() * (1.5 if step == "receiver" else 0.3))
    target.start()


def _wait(tenant: Tenant, events: int) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        with as_tenant(tenant.id):
            states = Counter(Delivery.objects.filter(tenant=tenant).values_list("state", flat=True))
        if states == {"delivered": events}:
            return
        assert time.monotonic() < end, states
        time.sleep(0.2)


def _check(tenant: Tenant, secret: str, log: Path, report: Report) -> Report:
    calls = [json.loads(line) for line in log.read_bytes().splitlines()]
    with as_tenant(tenant.id):
        sent = {f"evt_{message.id.hex}": message.body for message in Message.objects.filter(tenant=tenant)}
        report.attempts = Attempt.objects.filter(tenant=tenant).count()
    for headers, body in calls:
        assert sent[headers["webhook-id"]] == body
        assert len(headers["webhook-signature"].split()) == 1
    Webhook(secret).verify(calls[-1][1], calls[-1][0])
    assert {headers["webhook-id"] for headers, _body in calls} == set(sent)
    report.events, report.arrived, report.repeats = len(sent), len(calls), len(calls) - len(sent)
    return report


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def drain() -> None:
    """Forget messages that earlier tests left in the queues."""
    for name in ("webhooks", "default"):
        queue.connect().delete(name)
