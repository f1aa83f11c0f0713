"""Rows of unequal length as padded arrays, similar lengths together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cut:
    """How rows become runs: `budget` is the most tokens of one run, padding included, and `fixed` what another run costs
    by itself, in tokens' worth of work."""

    budget: int
    fixed: int


def padded(rows: Sequence[Sequence[int]], value: int = 0) -> np.ndarray:
    """Lists of ids as one array (rows, longest), int64, filled up with `value`."""
    out = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def masked(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """1 where `padded` holds an id of a row, 0 where it holds padding: (rows, longest), int64."""
    lengths = np.array([len(row) for row in rows])
    return (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)


def buckets(lengths: Sequence[int], cut: Cut) -> list[list[int]]:
    """Row numbers in runs of similar length, shortest first, whose cost together is the least there is.

    A run costs its padded size (rows x longest) and `cut.fixed`; it stays within `cut.budget` unless it is one row. The best
    cut of the first n sorted rows is the best over all last runs, each after the best cut of the rows before it.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    costs, begins = [0], [0]
    for end in range(1, len(order) + 1):
        longest = max(lengths[order[end - 1]], 1)
        least = max(end - max(cut.budget // longest, 1), 0)
        cost, begin = min((costs[begin] + (end - begin) * longest, begin) for begin in range(least, end))
        costs.append(cost + cut.fixed)
        begins.append(begin)
    runs: list[list[int]] = []
    end = len(order)
    while end:
        runs.append(order[begins[end] : end])
        end = begins[end]
    return runs[::-1]
