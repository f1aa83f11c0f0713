"""How much work the lines of a batch are, before anything of them is checked, and where its slices begin.

A slice is what a worker finishes before it looks up again, so its time bounds how long a cancelled batch runs on, how long
another tenant waits, and what a dead worker loses. Its number of inputs bounds what can be sorted by length at once.
"""

from dataclasses import dataclass, field
from typing import Any

from apps.jobs import stages
from workers.batch.lines import Line

SLICE_LINES = 512
SLICE_BYTES = 8 * 2**20  # what a worker holds of its input
SLICE_INPUTS = 512
SLICE_WORK = 2_000.0  # milliseconds of one core, as estimated below


@dataclass(frozen=True)
class Pace:
    """Milliseconds that one core takes for an input, and for each thousand characters of it."""

    each: float
    per_thousand: float


# Measured with the shipped models on one core of a small server, and rounded up. Pictures are characters of base64.
PACES = {
    "image-classification": Pace(4.0, 0.02),
    "question-answering": Pace(4.0, 40.0),
    "translation": Pace(3.0, 240.0),
    "feature-extraction": Pace(1.0, 64.0),
}
UNKNOWN = Pace(8.0, 100.0)  # of a task that is not listed
REFUSED = 0.2  # milliseconds for a line that no model will see


def work_of(task: str | None, inputs: Any) -> float:
    """Milliseconds that raw inputs of one line will likely take one core; `task` is None when no model will run them."""
    values = inputs if isinstance(inputs, list) else [inputs]
    if task is None:
        return REFUSED
    pace = PACES.get(task, UNKNOWN)
    return REFUSED + sum(pace.each + pace.per_thousand * _length(value) / 1000 for value in values)


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    return sum(len(one) for one in value.values() if isinstance(one, str)) if isinstance(value, dict) else 0


@dataclass
class Plan:
    """Slices as they grow: a line joins the last one until that holds enough."""

    runs: list[stages.Run] = field(default_factory=list)
    inputs: int = 0  # of the last one
    work: float = 0.0
    repeats: tuple[int, ...] = ()

    def add(self, line: Line, *, inputs: int, work: float, is_repeat: bool = False) -> None:
        """Put a line into a slice; `inputs` is how many its body has, `work` its milliseconds."""
        last = self.runs[-1] if self.runs else None
        if last is None or self._is_full(last, line, inputs, work):
            self.runs.append(stages.Run(line.start, line.number, 0))
            self.inputs, self.work, self.repeats = 0, 0.0, ()
        last = self.runs[-1]
        self.inputs, self.work = self.inputs + inputs, self.work + work
        self.repeats += (line.number,) if is_repeat else ()
        count = line.number - last.first_line + 1
        self.runs[-1] = stages.Run(last.start, last.first_line, count, max(1, round(self.work)), self.repeats)

    def _is_full(self, last: stages.Run, line: Line, inputs: int, work: float) -> bool:
        too_long = last.lines >= SLICE_LINES or line.start + len(line.raw) - last.start > SLICE_BYTES
        return too_long or self.inputs + inputs > SLICE_INPUTS or self.work + work > SLICE_WORK
