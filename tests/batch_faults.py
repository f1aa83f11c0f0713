"""Batches under fire: workers are killed, drained and stopped, stores crash and are emptied, messages come again and again.

Used by tests/test_batch_faults.py in short and by `python -m bench.batch_faults` in full.
"""

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from apps.accounts.models import Tenant
from apps.files import services as files
from apps.jobs import services as jobs
from maas import errors, ids, queue
from tests import batch_whole
from tests.batch_parts import WORKERS, Part, count_taken, count_waiting, crash_postgres, end_slice_leases, is_stuck, is_waiting, wait_until
from tests.batch_whole import Batch
from tests.cast import Key, make_key, make_tenant, make_user
from tests.tiny import NAME, picture

ENDPOINT = "/v1/predictions"
AT_ONCE = 3  # unfinished batches at every fault
WAITING = 40  # slices that nobody holds
LINES = (150, 600)
PATIENCE = 240.0  # seconds that batches may take after the last fault
# Dealt in an order of its own each round.
DECK = ("kill", "kill", "kill", "drain", "stall", "postgres", "flush", "repeat", "cancel", "beat")
BAD_BODIES: tuple[Any, ...] = (
    {"model": "none", "inputs": "aGVsbG8="}, {"model": NAME}, {"model": NAME, "inputs": "no base64!"}, None, "text",
    {"model": NAME, "inputs": picture(), "parameters": {"top_k": 0}},
)  # fmt: skip


@dataclass
class Report:
    """What a round saw. `taken`: slices that another worker took while theirs was stopped; `wrong`: every promise that was not kept."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    batches: int = 0
    lines: int = 0
    answered: int = 0
    cancelled: int = 0
    taken: int = 0
    longest_drain: float = 0.0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        return (
            f"seed {self.seed}: {self.faults.total()} faults ({faults}); {self.batches} batches, {self.lines:,} lines, "
            f"{self.answered:,} answered, {self.cancelled} cancelled, {self.taken} slices taken over, "
            f"longest drain {self.longest_drain:.1f} s; {self.seconds:.0f} s: {'WRONG' if self.wrong else 'whole'}"
        )


class Round:
    """Three organisations with batches, and faults one after the other."""

    def __init__(self, running: dict[str, Part], seed: int) -> None:
        self.running, self.dice, self.report = running, random.Random(seed), Report(seed)
        self.keys: list[Key] = [make_key(make_tenant(make_user("faults"), "faults")) for _ in range(3)]
        self.batches: list[Batch] = []

    @property
    def tenants(self) -> list[Tenant]:
        return [key.row.tenant for key in self.keys]

    # ---------- work ----------
    def feed(self) -> None:
        """Begin batches until enough of them are unfinished and enough slices wait: every fault lands in the middle of work."""
        while len(self.unfinished()) < AT_ONCE or (self._all_run() and count_waiting(self.tenants) < WAITING):
            self.begin()
        wait_until(lambda: count_waiting(self.tenants) or len(self.unfinished()) < AT_ONCE, PATIENCE, "a batch runs")

    def unfinished(self) -> list[Batch]:
        return [batch for batch in self.batches if not batch_whole.is_over(batch)]

    def _all_run(self) -> bool:
        return all(batch.now.started_at for batch in self.unfinished())

    def begin(self) -> Batch:
        """Start a batch of the next organisation; some hold a line that fails them, or that is skipped."""
        key, is_broken, skips = self.keys[len(self.batches) % len(self.keys)], self.dice.random() < 0.2, self.dice.random() < 0.5
        wanted, content = self._content()
        wanted |= {None: 0} if is_broken and skips else {}
        chunks = [*content, b"{nonsense\n"] if is_broken else content
        file = files.create_file(key.row.tenant, filename="lines.jsonl", purpose="batch", chunks=chunks)
        name = ids.encode(ids.FILE, file.id)
        metadata = {"on_invalid": "skip"} if skips else {}
        job = jobs.create_batch(
            key.row.tenant, input_file_id=name, endpoint=ENDPOINT, completion_window="24h", metadata=metadata, key=key.row
        )
        self.batches.append(Batch(job, wanted, is_broken and not skips))
        return self.batches[-1]

    def _content(self) -> tuple[dict[str | None, int], list[bytes]]:
        """Lines with one to four pictures, with bad bodies, and blank ones; what each custom_id asks for."""
        wanted: dict[str | None, int] = {}
        content = []
        for number in self.dice.sample(range(10_000), self.dice.randint(*LINES)):
            pictures = 0 if self.dice.random() < 0.1 else self.dice.randint(1, 4)
            wanted[f"line-{number}"] = pictures
            row = {"custom_id": f"line-{number}", "method": "POST", "url": ENDPOINT, "body": self._body(number, pictures)}
            content.append(json.dumps(row).encode() + (b"\n\n" if self.dice.random() < 0.02 else b"\n"))
        return wanted, content

    def _body(self, number: int, pictures: int) -> Any:
        if not pictures:
            return self.dice.choice(BAD_BODIES)
        inputs = [picture(number + n) for n in range(pictures)]
        return {"model": NAME, "inputs": inputs if pictures > 1 else inputs[0], "parameters": {"top_k": 1}}

    # ---------- faults ----------
    def harm(self, kind: str) -> None:
        """One fault at a random moment of running batches."""
        self.feed()
        time.sleep(self.dice.uniform(0, 0.7))
        getattr(self, f"_{kind}")()
        self.report.faults[kind] += 1

    def _worker(self) -> Part:
        """One of the workers that run slices by now."""
        wait_until(lambda: any(self.running[name].is_ready for name in WORKERS), PATIENCE, "a worker is ready")
        return self.dice.choice([self.running[name] for name in WORKERS if self.running[name].is_ready])

    def _kill(self) -> None:
        worker = self._worker()
        worker.kill()
        worker.start()

    def _drain(self) -> None:
        worker = self._worker()
        code, seconds = worker.drain()
        self.report.longest_drain = max(self.report.longest_drain, seconds)
        if code:
            self.report.wrong.append(f"{worker.name} ended with {code} after SIGTERM and {seconds:.1f} s")
        worker.start()

    def _flush(self) -> None:
        queue.connect().flushall()

    def _postgres(self) -> None:
        crash_postgres(self.dice.uniform(0, 1))

    def _repeat(self) -> None:
        """Every message about a batch again, whether it still runs or not."""
        job = self.dice.choice(self.batches).job
        named = {"tenant_id": str(job.tenant_id), "job_id": str(job.id)}
        for _ in range(self.dice.randint(2, 5)):
            for name, arguments in (("validate_batch", named), ("finish_batch", named), ("run_slices", {})):
                queue.nudge(f"workers.tasks.{name}", queue="batch", **arguments)

    def _stall(self) -> None:
        """A worker stands still until its lease has run out and another one has its slice; then it goes on."""
        worker = self._worker()
        try:
            self._stop(worker)
            held, end = end_slice_leases(worker.name, only_look=self.dice.random() < 0.05), time.monotonic() + 20
            while is_waiting(held) and time.monotonic() < end:
                time.sleep(0.05)
            self.report.taken += count_taken(held)
        finally:
            worker.signal(signal.SIGCONT)

    def _stop(self, worker: Part) -> None:
        """Stop it with a slice in hand and while it blocks nobody, if there is such a moment soon; others are a slow database."""
        for _ in range(30):
            worker.signal(signal.SIGSTOP)
            if not is_stuck() and end_slice_leases(worker.name, only_look=True):
                return
            worker.signal(signal.SIGCONT)
            time.sleep(self.dice.uniform(0, 0.1))
        worker.signal(signal.SIGSTOP)

    def _cancel(self) -> None:
        batch = self.dice.choice(self.unfinished() or self.batches)
        try:
            jobs.cancel_batch(Tenant(id=batch.job.tenant_id), batch.job.id)
            batch.is_cancelled = True
        except errors.BadRequest:
            return  # it has ended, or is being assembled

    def _beat(self) -> None:
        """No sweep for a moment, now and then without the worker that sweeps."""
        parts = [self.running["beat"], *([self.running["light"]] if self.dice.random() < 0.3 else [])]
        for part in parts:
            part.kill()
        time.sleep(self.dice.uniform(0, 2))
        for part in parts:
            part.start()

    # ---------- the end ----------
    def end(self) -> Report:
        """No more faults: everything comes to its end, and then it is compared."""
        report = self.report
        try:
            wait_until(lambda: not self.unfinished(), PATIENCE, "every batch has ended")
        except AssertionError:
            report.wrong += [f"{batch.job.id} has not ended: {batch.now.__dict__}" for batch in self.unfinished()]
            return report
        report.wrong += [f"{part.name} ended by itself" for part in self.running.values() if part.process.poll() is not None]
        self._compare()
        return report

    def _compare(self) -> None:
        report = self.report
        for batch in self.batches:
            report.wrong += batch_whole.what_is_wrong(batch)
            found = batch_whole.find(batch)
            report.answered += len(found.output)
        for tenant in self.tenants:
            report.wrong += batch_whole.what_is_wrong_with_tenant(tenant, self.batches)
        report.wrong += batch_whole.what_is_wrong_with_roll_ups(self.tenants)
        report.wrong += batch_whole.tidy(self.batches)
        report.batches, report.lines = len(self.batches), sum(len(batch.lines) for batch in self.batches)
        report.cancelled = sum(batch.is_cancelled for batch in self.batches)


def run(running: dict[str, Part], *, faults: int, seed: int) -> Iterator[Report]:
    """Rounds of ten faults until there were so many; the report of each. The seed of a round is `seed` and its number."""
    for number in range(0, faults, len(DECK)):
        begun = time.monotonic()
        mine = Round(running, seed + number // len(DECK))
        for kind in mine.dice.sample(DECK, len(DECK))[: faults - number]:
            mine.harm(kind)
        report = mine.end()
        report.seconds = time.monotonic() - begun
        yield report
