"""What a recipe reads and how rows become batches of similar length."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Data:
    """Training rows, held-out rows cut from the same files, and whatever turns a row into numbers."""

    train: list[Any]
    valid: list[Any]
    processor: Any = None
    extra: dict[str, Any] = field(default_factory=dict)


def shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    """The numbers 0..count-1 in the order of this epoch, the same in every run, int64."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def bucketed(lengths: np.ndarray, budget: int, seed: int, epoch: int, *, pool: int = 8192) -> list[list[int]]:
    """Batches whose padded size (rows x longest) stays within `budget`, rows of similar length together.

    Rows are shuffled, sorted by length within pools of `pool`, cut into batches, and the batches shuffled again.
    """
    order = shuffled(len(lengths), seed, epoch)
    batches = [batch for at in range(0, len(order), pool) for batch in _cut(order[at : at + pool], lengths, budget)]
    return [batches[i] for i in np.random.default_rng((seed, epoch, 1)).permutation(len(batches))]


def _cut(rows: np.ndarray, lengths: np.ndarray, budget: int) -> list[list[int]]:
    batches: list[list[int]] = []
    batch: list[int] = []
    for row in rows[np.argsort(lengths[rows], kind="stable")]:
        if batch and (len(batch) + 1) * lengths[row] > budget:
            batches.append(batch)
            batch = []
        batch.append(int(row))
    return [*batches, batch] if batch else batches
