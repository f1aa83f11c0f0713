"""Tenants that ask one model for much and for little at once, through the real queue and real online servers.

Used by tests/test_fairness.py in short and by `python -m bench.fairness` in full.
"""

import multiprocessing
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from apps.accounts.models import Tenant
from apps.billing import allowances
from apps.catalog.services import Version
from maas import ids, queue
from tests.cast import Key, make_key, make_tenant, make_user
from tests.conftest import HOME, ROOT

PATIENCE = 60.0  # seconds
UNITS = 40  # that one of these calls may cost at most


@dataclass
class Flow:
    """One tenant that keeps `open_calls` calls in the queue, and pauses for `pause` seconds after each answer."""

    key: Key
    version: Version
    inputs: list[Any]
    weight: int = 1
    open_calls: int = 1
    pause: float = 0.0
    answers: list[tuple[float, float]] = field(default_factory=list)  # when, and the seconds that it took
    reservation: UUID | None = None

    @property
    def tenant(self) -> Tenant:
        return self.key.row.tenant

    def pay(self) -> None:
        """Reserve units for all calls of a run."""
        grant = allowances.grant_call(self.tenant, key_id=self.key.row.id, model=self.version.model.name, units=4_000_000, seconds=900)
        self.reservation = grant.reservation_id

    def push(self) -> queue.Call:
        """One more call in line."""
        now = time.time()
        call = queue.Call(
            ids.uuid7(), self.tenant.id, self.key.row.id, self.version.id, self.inputs, {}, now, now + PATIENCE, len(self.inputs),
            self.reservation or ids.uuid7(), UNITS, self.weight,
        )  # fmt: skip
        queue.push(call)
        return call

    def run(self, until: float) -> None:
        """Ask until the monotonic clock says `until`; every call has to be answered."""
        waiting = deque(self.push() for _ in range(self.open_calls))
        while waiting:
            call = waiting.popleft()
            answer = queue.wait(call.id, PATIENCE)
            assert answer and not answer.error, answer
            self.answers.append((time.monotonic(), time.time() - call.pushed))
            if self.pause:
                time.sleep(self.pause)
            if time.monotonic() < until:
                waiting.append(self.push())

    def latencies(self, since: float, until: float) -> list[float]:
        """Seconds of each call that was answered between two moments, the shortest first."""
        return sorted(took for moment, took in self.answers if since <= moment < until)


def flow(name: str, version: Version, inputs: list[Any], **how: Any) -> Flow:
    """A new tenant with a paid flow."""
    made = Flow(make_key(make_tenant(make_user(name), name)), version, inputs, **how)
    made.pay()
    return made


def run_together(flows: list[Flow], seconds: float) -> tuple[float, float]:
    """All at once for so long; the moments between which each of them was asking, without the beginning.

    Each runs in a process of its own, as clients do: threads of one would wait for each other.
    """
    begun = time.monotonic()
    with ProcessPoolExecutor(len(flows), mp_context=multiprocessing.get_context("fork")) as pool:
        asking = [pool.submit(_run, one, begun + seconds) for one in flows]
        for one, found in zip(flows, asking, strict=True):
            one.answers = found.result()
    return begun + seconds / 4, begun + seconds


def _run(one: Flow, until: float) -> list[tuple[float, float]]:
    one.run(until)
    return one.answers


@contextmanager
def online_server(**settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """A real online server that has loaded its models."""
    log = (HOME / "fairness-online.log").open("ab")
    env = {**os.environ, "PYTHONPATH": str(ROOT), **settings}
    process = subprocess.Popen([sys.executable, "-m", "workers.online"], cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + 120
        while not queue.alive():
            assert process.poll() is None and time.monotonic() < end, (HOME / "fairness-online.log").read_text()[-2000:]
            time.sleep(0.2)
        yield process
    finally:
        process.terminate()
        process.wait(30)
        log.close()
