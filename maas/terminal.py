"""What the one-command default says: a line a step with the time it took; a spinner where somebody watches."""

import itertools
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

FRAMES = itertools.cycle("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
CLEAR = "\r\033[K"
QUIET_SECONDS = 10.0  # without a terminal a long step speaks this often


class Step:
    """A step that is being done. Call `tick` often; it shows what is cheap to show."""

    def __init__(self, out: TextIO, what: str) -> None:
        self.out, self.what, self.began = out, what, time.monotonic()
        self.spoke = self.began
        if not out.isatty():
            self._write(f"  {what} ...\n")

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def tick(self, detail: str = "") -> None:
        """Show that it goes on, and how far it is."""
        if self.out.isatty():
            self._write(f"{CLEAR}  {next(FRAMES)} {self.what}  {self.seconds:.0f} s  {detail}"[:120])
        elif time.monotonic() - self.spoke > QUIET_SECONDS:
            self.spoke = time.monotonic()
            self._write(f"    {self.seconds:.0f} s  {detail}\n")

    def done(self) -> None:
        """The line that stays."""
        before, mark = (CLEAR, "✓") if self.out.isatty() else ("", "-")
        self._write(f"{before}  {mark} {self.what}  {self.seconds:.1f} s\n")

    def _write(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()


@contextmanager
def step(what: str, out: TextIO | None = None) -> Iterator[Step]:
    """`with step("Loading") as it: it.tick("3 of 7")`; the last line appears only if nothing was raised."""
    it = Step(out or sys.stdout, what)
    yield it
    it.done()


def say(text: str = "") -> None:
    """A line of its own, also in the middle of a step."""
    before = CLEAR if sys.stdout.isatty() else ""
    sys.stdout.write(f"{before}{text}\n")
    sys.stdout.flush()


def table(header: list[str], rows: list[list[object]]) -> str:
    """Columns as wide as they need to be; numbers to the right."""
    cells = [header, *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numeric = [all(isinstance(row[index], int | float) for row in rows) for index in range(len(header))]
    pads = [str.rjust if number else str.ljust for number in numeric]
    lines = ["  ".join(pad(cell, width) for pad, cell, width in zip(pads, line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join(f"  {line}" for line in lines)
