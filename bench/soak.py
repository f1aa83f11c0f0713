"""Does it hold, for as long as one likes: python -m bench.soak --minutes 10 --load 0.8

Measures what maas with everything on answers, then holds a share of that with all models in turn, and samples the memory of
every process. Prints latencies by minute, and memory by part at the end of the warm-up and at the end. Exit code 1 when a call failed,
the ledger is not what was answered, or memory grew by more than 5 % after the warm-up.
"""

import argparse
import signal
import statistics
import sys
import threading
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.online.answers import ask
from bench.online.cpu import private_bytes, tree
from bench.online.load import LoadError, Target, Window, press, write_bodies
from bench.online.stack import Stack, full_stack
from bench.online.subjects import NAMES, ROOT, Subject, catalogue, open_subjects

EVERY = 5.0  # seconds between samples
GROWTH = 0.05  # of the memory at the end of the warm-up
WARM_MINUTES = 2.0
MIB = 2**20


@dataclass
class Memory:
    """Samples of the private resident bytes of each part of the product, with the minute of each."""

    home: Path
    pid: int
    begun: float = field(default_factory=time.monotonic)
    minutes: list[float] = field(default_factory=list)
    parts: list[dict[str, int]] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Sample until told to stop."""
        while not self.stopping.is_set():
            self.sample()
            self.stopping.wait(EVERY)

    def sample(self) -> None:
        """One sample: every process below the supervisor, by the part that it or one above it is the first process of."""
        leaders = {int(trace.read_text().split()[0]): trace.stem for trace in (self.home / "run").glob("*.pid")}
        names, found = {self.pid: "supervisor"}, defaultdict[str, int](int)
        for process in tree(self.pid):  # parents come before their children
            with suppress(psutil.Error):
                names[process.pid] = leaders.get(process.pid) or names.get(process.pid) or names.get(process.ppid(), "supervisor")
                found[names[process.pid]] += private_bytes(process)
        self.minutes.append((time.monotonic() - self.begun) / 60)
        self.parts.append(dict(found))

    def near(self, minute: float) -> dict[str, float]:
        """MiB by part: the medians of the six samples that begin nearest to a minute, or the last six."""
        nearest = min(range(len(self.minutes)), key=lambda i: abs(self.minutes[i] - minute))
        rows = self.parts[max(0, min(nearest, len(self.parts) - 6)) :][:6]
        return {name: statistics.median(row.get(name, 0) for row in rows) / MIB for name in sorted({name for row in rows for name in row})}

    def slope(self, since: float) -> float:
        """MiB a minute of the total, by least squares over the samples from a minute on; 0 for fewer than two."""
        points = [(at, sum(parts.values()) / MIB) for at, parts in zip(self.minutes, self.parts, strict=True) if at >= since]
        return statistics.linear_regression(*zip(*points, strict=True)).slope if len(points) > 1 else 0.0


def main() -> int:
    """0 when nothing failed and memory stayed; else 1."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that what was started is ended
    models, home = catalogue(options.folder / "models"), options.folder / "home"
    subjects = open_subjects(options.models, models, home / "cache" / "exports", None, options.seed)
    try:
        with full_stack(home, models) as running:
            return soak(running, subjects, options)
    except LoadError as error:
        print(error, file=sys.stderr)
        return 1


def soak(running: Stack, subjects: list[Subject], options: argparse.Namespace) -> int:
    """Capacity first, then minute after minute at a share of it."""
    target, bodies = _target(running, subjects), _bodies(options.folder, subjects)
    press(target, bodies, concurrency=options.concurrency, seconds=options.warm)
    capacity = press(target, bodies, concurrency=options.concurrency, seconds=options.measure)
    rate = capacity.per_second * options.load
    print(f"capacity at {options.concurrency} connections: {capacity.per_second:.1f} calls/s; held: {rate:.1f} calls/s", flush=True)
    before = _charged(running, subjects)
    memory = Memory(running.home, running.pid)
    sampler = threading.Thread(target=memory.run, daemon=True)
    sampler.start()
    windows = [_minute(number, target, bodies, rate, options, memory) for number in range(_minutes(options.minutes))]
    memory.stopping.set()
    sampler.join()
    ledger = _settled(running, subjects, before + sum(window.answered for window in windows)) - before
    return judge(windows, memory, ledger, options.minutes)


def judge(windows: list[Window], memory: Memory, ledger: int, minutes: float) -> int:
    """Print the memory and the verdict; the exit code."""
    warm = min(WARM_MINUTES, minutes / 3)
    early, late = memory.near(warm), memory.near(memory.minutes[-1])
    for name in sorted(early | late):
        print(f"  {name:<12} {early.get(name, 0):8.1f} MiB at minute {warm:.1f}, {late.get(name, 0):8.1f} MiB at the end")
    first, last = sum(early.values()), sum(late.values())
    growth = last / first - 1
    print(
        f"  {'all':<12} {first:8.1f} MiB at minute {warm:.1f}, {last:8.1f} MiB at the end: {growth:+.1%}, {memory.slope(warm):+.2f} MiB/min"
    )
    failed, answered = sum(window.failed for window in windows), sum(window.answered for window in windows)
    unanswered = sum(window.unanswered for window in windows)
    print(f"{answered} calls answered, {failed} failed, {ledger} in the ledger, {unanswered} cut off when a minute ended")
    is_good = failed == 0 and answered <= ledger <= answered + unanswered and growth <= GROWTH
    print("It held." if is_good else "It did NOT hold.")
    return 0 if is_good else 1


def _minute(number: int, target: Target, bodies: Path, rate: float, options: argparse.Namespace, memory: Memory) -> Window:
    window = press(target, bodies, concurrency=options.concurrency, seconds=min(60.0, options.minutes * 60), rate=rate)
    total = sum(memory.parts[-1].values()) / MIB
    print(
        f"minute {number + 1}: {window.per_second:.1f}/s, p50 {window.p50:.1f} ms, p95 {window.p95:.1f} ms, p99 {window.p99:.1f} ms, "
        f"longest {window.largest:.0f} ms, {window.failed} failed, {total:.0f} MiB", flush=True,
    )  # fmt: skip
    return window


def _minutes(minutes: float) -> int:
    return max(1, round(minutes))


def _target(running: Stack, subjects: list[Subject]) -> Target:
    """Every model is at the same address; each answers once before anything is measured."""
    for subject in subjects:
        ask(running.running(subject.name).target, subject.inputs[0])
    return running.running(subjects[0].name).target


def _bodies(folder: Path, subjects: list[Subject]) -> Path:
    """The models in turn."""
    rows = zip(*([{"model": subject.name, "inputs": value} for value in subject.inputs] for subject in subjects), strict=False)
    return write_bodies(folder / "soak.jsonl", [body for row in rows for body in row])


def _charged(running: Stack, subjects: list[Subject]) -> int:
    """Calls of all models in the ledger."""
    return sum(running.ledger(subject.name)[0] for subject in subjects)


def _settled(running: Stack, subjects: list[Subject], expected: int) -> int:
    """The same, once it is as expected or after some seconds."""
    for _ in range(10):
        if (found := _charged(running, subjects)) == expected:
            break
        time.sleep(0.5)
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--load", type=float, default=0.8, help="share of the capacity that is held")
    parser.add_argument("--concurrency", type=int, default=64, help="connections")
    parser.add_argument("--measure", type=float, default=20, help="seconds in which the capacity is measured")
    parser.add_argument("--warm", type=float, default=10, help="seconds of load before that")
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(NAMES), help=f"of {','.join(NAMES)}")
    parser.add_argument("--folder", type=Path, default=ROOT / ".maas" / "bench", help="as of bench.online; kept between runs")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the inputs")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
