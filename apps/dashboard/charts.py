"""Charts as numbers: x in per cent of the width, y in pixels, so that text never scales. Templates only write them out.

The plot is 168 pixels high, from y = 8 to y = 176; axis labels stand at y = 196.
"""

import math
from dataclasses import dataclass

TOP, HEIGHT = 8, 168  # pixels
MOST_SERIES = 5
LABELS = 5  # about as many as fit under a narrow chart


@dataclass(frozen=True)
class Slot:
    """One column to be: its name in full, its short name under the axis, and a value a series."""

    name: str
    label: str
    values: dict[str, int]


@dataclass(frozen=True)
class Series:
    """One colour: `css` is c1 to c5 by rank, c6 for all others."""

    name: str
    css: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class Bar:
    css: str
    y: str
    height: str


@dataclass(frozen=True)
class Column:
    """A column with its hover text; `x` and `width` are its slot, `bar_x`, `bar_width` what is drawn, in per cent."""

    title: str
    x: str
    width: str
    bar_x: str
    bar_width: str
    bars: list[Bar]


@dataclass(frozen=True)
class Label:
    text: str
    x: str


@dataclass(frozen=True)
class Chart:
    """Stacked bars. `steps` label the axis from the top down; `rows` are the same figures for a table, newest first."""

    steps: list[str]
    columns: list[Column]
    labels: list[Label]
    series: list[Series]
    rows: list[tuple[str, list[int], int]]


def round_top(largest: float) -> int:
    """The top of the axis: the smallest of 4, 8, ... 20, then 40, 50, 100, 200, ... that holds the largest value."""
    if largest <= 20:
        return max(4, math.ceil(largest / 4) * 4)
    power = 1
    while True:
        for factor in (1, 2, 4, 5):
            top = factor * power
            if top >= largest:
                return top
        power *= 10


def short(value: float) -> str:
    """An axis label: 12500 is 12.5k."""
    for size, mark in ((1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:.4g}{mark}"
    return f"{value:.4g}"


def rank_series(slots: list[Slot], *, others: str) -> list[Series]:
    """The five largest series by total, then one for all others; `others` is its name with {n} in it."""
    totals: dict[str, int] = {}
    for slot in slots:
        for name, value in slot.values.items():
            totals[name] = totals.get(name, 0) + value
    names = sorted(totals, key=lambda name: (-totals[name], name))
    ranked = [Series(name, f"c{i}", (name,)) for i, name in enumerate(names[:MOST_SERIES], 1)]
    rest = tuple(names[MOST_SERIES:])
    return [*ranked, Series(others.format(n=len(rest)), "c6", rest)] if rest else ranked


def stacked_bars(slots: list[Slot], *, others: str = "{n} others", every: int | None = None, first: int = 0) -> Chart:
    """A chart of these columns, oldest first.

    Every `every`th column from the one at `first` on gets a label; by default about five do.
    """
    series = rank_series(slots, others=others)
    top = round_top(max((sum(slot.values.values()) for slot in slots), default=0))
    every = every or max(1, round(len(slots) / LABELS))
    width = 100 / max(len(slots), 1)
    columns = [_column(slot, series, i * width, width, top) for i, slot in enumerate(slots)]
    labels = [Label(slot.label, _number((i + 0.5) * width)) for i, slot in enumerate(slots) if i % every == first % every]
    rows = [(slot.name, [_value(slot, one) for one in series], sum(slot.values.values())) for slot in reversed(slots)]
    return Chart([short(top * step / 4) for step in (4, 3, 2, 1, 0)], columns, labels, series, rows)


def _column(slot: Slot, series: list[Series], x: float, width: float, top: int) -> Column:
    bars, bottom = [], float(TOP + HEIGHT)
    for one in series:
        pixels = _value(slot, one) / top * HEIGHT
        if pixels > 0:
            bars.append(Bar(one.css, _number(bottom - pixels), _number(max(pixels - 1, 0.5))))
        bottom -= pixels
    drawn = _number(x + 0.16 * width), _number(0.68 * width)
    return Column(_title(slot, series), _number(x), _number(width), *drawn, bars)


def _value(slot: Slot, series: Series) -> int:
    return sum(slot.values.get(name, 0) for name in series.members)


def _title(slot: Slot, series: list[Series]) -> str:
    lines = [f"{one.name} {_value(slot, one):,}" for one in series if _value(slot, one)]
    return "\n".join([f"{slot.name}: {sum(slot.values.values()):,}", *lines])


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
