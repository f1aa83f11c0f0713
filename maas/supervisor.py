"""Runs the programs of one home as their parent: starts them, starts them again when they die, stops them in order.

One thread and one loop. It reaps whatever the kernel gives it, so it may be process 1 of a container.
"""

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from maas import processes
from maas.processes import Program
from maas.terminal import Step, say

FIRST_DELAY, LONGEST_DELAY = 0.2, 30.0  # seconds before a program is started again
STEADY_SECONDS = 30.0  # a program that lived this long starts over with the first delay
TRIES = 3  # deaths in a row that end the start of the whole
STOP_SECONDS = 10.0


class Stopped(Exception):
    """Somebody asked us to stop."""


class Failed(Exception):
    """It cannot go on; the message says why and what to do."""


@dataclass
class Part:
    """A program and what became of it."""

    program: Program
    process: subprocess.Popen[bytes]
    started: float
    deaths: int = 0  # in a row
    start_again: float | None = None  # when


class Supervisor:
    """The parent of every program that it was told to `run`."""

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}
        self.signals = 0
        self.is_starting = True
        self._own: set[int] = set()  # pids that we started, as against orphans that we adopted
        self._bell, bell = os.pipe()
        os.set_blocking(bell, False)
        os.set_blocking(self._bell, False)
        signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # only to wake the loop
        processes.adopt_orphans()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signals += 1

    def run(self, program: Program) -> None:
        """Start a program and keep it running. What an earlier life left of it is ended first."""
        processes.end(processes.traced_processes(program.trace), program.stop_signal, patience=5)
        self.parts[program.name] = Part(program, self._launch(program), time.monotonic())

    def wait(
        self, until: Callable[[], bool], step: Step | None = None, *, limit: float | None = None, detail: Callable[[], str] = str
    ) -> None:
        """Look after the parts until something holds. Stopped on a signal, Failed after `limit` seconds."""
        begun = time.monotonic()
        while not until():
            if self.signals:
                raise Stopped
            if limit and time.monotonic() - begun > limit:
                raise Failed(f"Not done after {limit:.0f} s.")
            if step:
                step.tick(detail())
            self._sleep(0.1 if step else 1.0)
            self.look_after()

    def wait_ready(self, name: str, limit: float = 60) -> None:
        """Until one program answers."""
        self.wait(self.parts[name].program.is_ready, limit=limit)

    def finish(self, program: Program, step: Step | None, detail: Callable[[], str] = str) -> int:
        """Run a program that ends by itself, and return its exit code. It is ended with us."""
        process = self._launch(program, shown=step is None)
        try:
            self.wait(lambda: process.poll() is not None, step, detail=detail)
        finally:
            processes.end([process.pid], signal.SIGTERM, patience=3)
            program.trace.unlink(missing_ok=True)
        return process.wait()

    def look_after(self) -> None:
        """Start again what died, reap what was orphaned."""
        now = time.monotonic()
        for part in self.parts.values():
            if part.start_again is None and part.process.poll() is not None:
                self._mourn(part, now)
            if part.start_again is not None and now >= part.start_again:
                self._start_again(part)
        self._reap_orphans()

    def _mourn(self, part: Part, now: float) -> None:
        """Say that a program died, end what it leaves behind, and plan its next start."""
        part.deaths = 1 if now - part.started > STEADY_SECONDS else part.deaths + 1
        processes.end(processes.traced_processes(part.program.trace), signal.SIGKILL, patience=0)
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** (part.deaths - 1))
        part.start_again = now + delay
        say(f"  ! {part.program.name} {_ending(part.process.returncode)}; it starts again in {delay:.1f} s.")
        say(f"    Its log, {part.program.log}, ends with:")
        for line in processes.last_lines(part.program.log, 5):
            say(f"      {line[:200]}")
        if self.is_starting and part.deaths >= TRIES:
            raise Failed(f"{part.program.name} does not start. Its log: {part.program.log}")

    def _start_again(self, part: Part) -> None:
        part.process, part.started, part.start_again = self._launch(part.program), time.monotonic(), None

    def _launch(self, program: Program, *, shown: bool = False) -> subprocess.Popen[bytes]:
        process = processes.launch(program, shown=shown)
        self._own.add(process.pid)
        return process

    def _reap_orphans(self) -> None:
        """Wait for adopted children that ended; those that we started are waited for by name."""
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid in self._own:
                return
            os.waitpid(found.si_pid, 0)

    def stop(self) -> None:
        """End everything: the product at once, then its stores one by one. A second signal hurries it."""
        parts = list(self.parts.values())
        self._stop_group([part for part in parts if not part.program.is_store])
        for part in reversed(parts):
            self._stop_group([part] if part.program.is_store else [])
        self.parts.clear()

    def _stop_group(self, group: list[Part]) -> None:
        before, limit = self.signals, time.monotonic() + STOP_SECONDS
        for part in group:
            if part.process.poll() is None:
                part.process.send_signal(part.program.stop_signal)
        while any(part.process.poll() is None for part in group) and time.monotonic() < limit and self.signals == before:
            self._sleep(0.05)
        for part in group:
            processes.end(processes.traced_processes(part.program.trace), signal.SIGKILL, patience=0)
            part.process.wait()
            part.program.trace.unlink(missing_ok=True)
        self._reap_orphans()

    def _sleep(self, seconds: float) -> None:
        """At most so long; a signal or the death of a child ends it early."""
        if select.select([self._bell], [], [], seconds)[0]:
            os.read(self._bell, 4096)


def _ending(code: int) -> str:
    """How a process ended, in words."""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
