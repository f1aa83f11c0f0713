"""Load by wrk: a window at one concurrency, what it answered, and the processor time that the server took for it."""

import json
import math
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("wrk.lua")
TIMEOUT = 60  # seconds that one answer may take
LEAD = 0.1  # seconds that wrk takes to start
STALL, TRIES = 3.0, 3  # seconds that wrk may end late, and how often a window is measured


class LoadError(RuntimeError):
    """The load could not be made; the message says why and what to do."""


@dataclass(frozen=True)
class Target:
    """Where calls go: an address, a key if one is needed, and how inputs become a body and an answer becomes outputs."""

    url: str
    path: str
    body: Callable[[Any], dict[str, Any]]
    read: Callable[[Any], Any]
    key: str = ""


@dataclass(frozen=True)
class Window:
    """One measured window: answers a second, latencies in milliseconds, processor milliseconds of one answered call.

    `answered` counts all answers, also those after the window's end, and `failed` whatever was not a 2xx. `unanswered` were sent
    and had no answer when wrk ended, so that nobody knows whether they were charged.
    """

    concurrency: int
    seconds: float
    per_second: float
    p50: float
    p95: float
    p99: float
    largest: float
    cpu_ms: float
    answered: int
    failed: int
    unanswered: int = 0


def find_wrk() -> str:
    """The program; LoadError where it is not installed."""
    found = shutil.which("wrk")
    if found is None:
        raise LoadError("wrk, the load generator, is not installed. On Debian or Ubuntu type: apt-get install wrk")
    return found


def write_bodies(path: Path, bodies: list[dict[str, Any]]) -> Path:
    """The file that the script reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(body) + "\n" for body in bodies))
    return path


def press(
    target: Target, bodies: Path, *, concurrency: int, seconds: float, cpu: Callable[[], float] = lambda: 0.0, rate: float = 0.0
) -> Window:
    """Keep `concurrency` connections busy for so long, or call `rate` times a second over them.

    `cpu` gives the seconds of processor time that the server has used so far. A window in which wrk itself stood still, as its
    late end shows, is measured again; what it had answered is counted. LoadError when wrk fails, or stands still thrice.
    """
    answered = unanswered = 0
    for _ in range(TRIES):
        window, late = _press(target, bodies, concurrency, seconds, cpu, rate)
        answered, unanswered = answered + window.answered, unanswered + window.unanswered
        if late < STALL:
            return replace(window, answered=answered, unanswered=unanswered)
    raise LoadError(f"wrk ended {late:.0f} s late {TRIES} times: this machine is too busy to measure on.")


def _press(target: Target, bodies: Path, concurrency: int, seconds: float, cpu: Callable[[], float], rate: float) -> tuple[Window, float]:
    """One window, and how many seconds too late wrk ended."""
    begun = time.monotonic()
    stop, duration = begun + LEAD + seconds, math.ceil(LEAD + seconds + _drain(concurrency))
    process = _start(target, bodies, concurrency, stop, rate, duration)
    before = cpu()
    time.sleep(max(0.0, stop - time.monotonic()))
    used = cpu() - before
    output, _ = process.communicate(timeout=duration + TIMEOUT + 60)
    return _read(output, process.returncode, concurrency, stop, used), time.monotonic() - begun - duration


def _drain(concurrency: int) -> float:
    """Seconds in which what was sent is answered: a slow server needs some for each open call."""
    return 1.5 + concurrency / 20


def _start(target: Target, bodies: Path, concurrency: int, stop: float, rate: float, duration: int) -> subprocess.Popen[str]:
    options = ["-t1", f"-c{concurrency}", f"-d{duration}s", f"--timeout={TIMEOUT}s", "-s", str(SCRIPT)]
    command = [find_wrk(), *options, target.url + target.path]
    ours = {"BENCH_BODIES": str(bodies), "BENCH_KEY": target.key, "BENCH_STOP": f"{stop:.6f}", "BENCH_RATE": str(rate)}
    ours["BENCH_CONNECTIONS"] = str(concurrency)
    return subprocess.Popen(command, env={**os.environ, **ours}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _read(output: str, code: int, concurrency: int, stop: float, used: float) -> Window:
    lines = [line.removeprefix("RESULT ") for line in output.splitlines() if line.startswith("RESULT ")]
    if code != 0 or not lines:
        raise LoadError(f"wrk failed with code {code}:\n{output[-2000:]}")
    found = json.loads(lines[0])
    if found["samples"] + found["late"] != found["answered"]:
        raise LoadError(f"wrk's latencies are not those of its answers; this script was written for wrk 4.1 and 4.2. It says {found}")
    failed = found["bad_status"] + found["broken"] + found["late"]
    inside, seconds = max(found["inside"] - concurrency, 0), stop - found["began"]  # each connection asks once before its first call
    return Window(
        concurrency, seconds, inside / seconds, found["p50"], found["p95"], found["p99"], found["max"],
        1000 * used / max(inside, 1), found["answered"], failed, max(found["sent"] - found["answered"], 0),
    )  # fmt: skip
