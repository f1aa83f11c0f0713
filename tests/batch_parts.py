"""The processes that run batches, for runs that kill, stop, drain and flush them."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from django.db import connection

from apps.accounts.models import Tenant
from maas import embedded, questions
from maas.tenancy import SystemUse, as_system
from tests.conftest import HOME, ROOT
from tests.live import COMMANDS
from tests.tiny import NAME, load_tiny

WORKERS = ("batch-0", "batch-1")
START_SECONDS = 90.0
DRAIN_SECONDS = 60.0
HELD = "SELECT id, fence FROM jobs_slice WHERE state = 'open' AND lease_until > now() AND holder LIKE %s"
EXPIRE = """
UPDATE jobs_slice SET lease_until = now() - interval '1 second'
WHERE id IN (SELECT id FROM jobs_slice WHERE state = 'open' AND lease_until > now() AND holder LIKE %s FOR UPDATE SKIP LOCKED)
RETURNING id, fence
"""
STUCK = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND state_change < now() - interval '0.1 second'"
WAITING = "SELECT count(*) FROM jobs_slice WHERE state = 'open' AND (lease_until IS NULL OR lease_until < now()) AND tenant_id = ANY(%s)"


@dataclass
class Part:
    """One process; what it says since its last start lies in a file of its own."""

    name: str
    command: list[str]
    env: dict[str, str]
    starts: int = 0
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def log(self) -> Path:
        return HOME / f"parts-{self.name}-{self.starts}.log"

    def start(self) -> None:
        """Start it, in a session of its own."""
        self.starts += 1
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env=self.env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def is_ready(self) -> bool:
        """Whether a worker takes messages by now; beat says nothing of the kind."""
        return self.name == "beat" or " ready." in self.log.read_text(errors="replace")

    def is_ready_or_over(self) -> bool:
        """Whether there is nothing to wait for."""
        return self.is_ready or self.process.poll() is not None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and to everything that it started."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.signal(signal.SIGKILL)
        self.process.wait()

    def drain(self) -> tuple[int, float]:
        """SIGTERM; its exit code and the seconds that it took. One that does not end is killed."""
        begun = time.monotonic()
        self.process.terminate()
        try:
            return self.process.wait(DRAIN_SECONDS), time.monotonic() - begun
        except subprocess.TimeoutExpired:
            self.kill()
            return -9, time.monotonic() - begun


@contextmanager
def batch_parts(*, workers: int = 2, inputs: int | None = 12, **settings: str) -> Iterator[dict[str, Part]]:
    """So many batch workers (`batch-0`, ...) that cut slices of so many inputs (None: as always), the light worker that sweeps,
    and beat; `settings` are environment variables."""
    load_tiny(HOME / "catalogue" / NAME)
    env = {**os.environ, "PYTHONPATH": str(ROOT), **settings, **({"MAAS_TEST_SLICE": str(inputs)} if inputs else {})}
    parts = {name: Part(name, command, env) for name, command in _commands(workers).items()}
    for part in parts.values():
        part.start()
    try:
        for part in parts.values():
            wait_until(part.is_ready_or_over, START_SECONDS, f"{part.name} is ready")
        yield parts
    finally:
        for part in parts.values():
            if part.process.poll() is None:
                part.kill()


def _commands(workers: int) -> dict[str, list[str]]:
    """As `tests.live.COMMANDS`, with batch workers whose slices may be small."""
    batch = [word.replace("maas.celery", "tests.small_slices") for word in COMMANDS["batch"]]
    named = {f"batch-{number}": [word.replace("batch@%h", f"batch-{number}@%h") for word in batch] for number in range(workers)}
    return named | {"light": COMMANDS["light"], "beat": [*COMMANDS["beat"], str(HOME / "parts-beat")]}


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """AssertionError that names `what` when it does not come true in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"after {seconds:.0f} s this is not so: {what}"
        time.sleep(0.05)


# ---------- stores ----------
def crash_postgres(seconds: float) -> None:
    """End PostgreSQL as a crash would (immediate mode: no checkpoint), leave it down for so long, start it at the same address."""
    _program, process = embedded._running[HOME.resolve(), "postgres"]
    process.send_signal(signal.SIGQUIT)
    process.wait(30)
    time.sleep(seconds)
    assert embedded.start_postgres(HOME) == os.environ["DATABASE_URL"]
    _forget_connections()


def _forget_connections() -> None:
    """This process's own connections died with the server; each is made anew when it is used."""
    connection.close()
    for shared in (questions._shared, questions._system):
        for line in shared.idle:
            line.close()


def end_slice_leases(worker: str, *, only_look: bool = False) -> dict[UUID, int]:
    """As if the lease of what a worker has in hand had run out; the slices and their fences. `only_look`: leave it to time."""
    with as_system(SystemUse.SWEEP), connection.cursor() as cursor:
        cursor.execute(HELD if only_look else EXPIRE, [f"{worker}@%"])
        return dict(cursor.fetchall())


def is_stuck() -> bool:
    """Whether some process stands still inside of a transaction, and what it has written or locked waits with it."""
    time.sleep(0.15)
    with connection.cursor() as cursor:
        cursor.execute(STUCK)
        return bool(cursor.fetchone()[0])


def count_waiting(tenants: list[Tenant]) -> int:
    """Slices of these tenants that any worker may take."""
    with as_system(SystemUse.SWEEP), connection.cursor() as cursor:
        cursor.execute(WAITING, [[tenant.id for tenant in tenants]])
        return int(cursor.fetchone()[0])


def count_taken(held: dict[UUID, int]) -> int:
    """How many of these slices another claim has, or had, by now."""
    return sum(fence > held[slice_id] for slice_id, fence, _state in _look_at(held))


def is_waiting(held: dict[UUID, int]) -> bool:
    """Whether one of these slices is still what it was."""
    return any(state == "open" and fence == held[slice_id] for slice_id, fence, state in _look_at(held))


def _look_at(held: dict[UUID, int]) -> list[tuple[UUID, int, str]]:
    with as_system(SystemUse.SWEEP), connection.cursor() as cursor:
        cursor.execute("SELECT id, fence, state FROM jobs_slice WHERE id = ANY(%s)", [list(held)])
        return cursor.fetchall()
