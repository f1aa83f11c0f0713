"""Rows of unequal length as padded arrays, similar lengths together."""

from collections.abc import Sequence

import numpy as np


def padded(rows: Sequence[Sequence[int]], value: int = 0) -> np.ndarray:
    """Lists of ids as one array (rows, longest), int64, filled up with `value`."""
    out = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def buckets(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Row numbers in batches whose padded size (rows x longest) stays within `budget`, shortest rows first.

    A row longer than the budget is a batch of its own.
    """
    batches: list[list[int]] = [[]]
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batches[-1] and (len(batches[-1]) + 1) * lengths[row] > budget:
            batches.append([])
        batches[-1].append(row)
    return [batch for batch in batches if batch]
