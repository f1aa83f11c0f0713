"""From start and end logits to answers in the text they were read from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

CANDIDATES = 60  # spans of a window that are looked at; several may be the same words


@dataclass(frozen=True)
class Window:
    """The logits of the context tokens from `first` on, each (n,), float32."""

    first: int
    start: np.ndarray
    end: np.ndarray


def windows(count: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """Runs of at most `size` tokens that cover `count` tokens, neighbours sharing `overlap`."""
    firsts = range(0, max(count - overlap, 1), size - overlap)
    return [(first, min(first + size, count)) for first in firsts]


def spans(window: Window, longest: int, count: int = CANDIDATES) -> list[tuple[float, int, int]]:
    """(sum of logits, first token, last token) of the `count` best spans of at most `longest` tokens, best first; never empty."""
    ends = np.full(len(window.end) + longest - 1, -np.inf, np.float32)
    ends[: len(window.end)] = window.end
    totals = (window.start[:, None] + sliding_window_view(ends, longest)).ravel()  # (n x longest): each first token, each length
    best = [int(totals.argmax())] if count == 1 else _largest(totals, count)
    return [(float(totals[i]), window.first + i // longest, window.first + i // longest + i % longest) for i in best]


def _largest(totals: np.ndarray, count: int) -> list[int]:
    """The places of the largest numbers, largest first, those left out that are no span."""
    best = np.argpartition(-totals, min(count, len(totals) - 1))[:count]
    return [int(i) for i in best[np.argsort(-totals[best])] if np.isfinite(totals[i])]


def answers(read: Sequence[Window], context: str, encoding: Any, *, top_k: int, longest: int) -> list[dict[str, Any]]:
    """The best different answers. A score is the probability of start times that of end, over all windows together, so
    that the scores of windows can be compared; with one window it is what Hugging Face gives."""
    whole = _log_sum([window.start for window in read]) + _log_sum([window.end for window in read])
    found: dict[tuple[int, int], float] = {}
    count = 1 if top_k == 1 else CANDIDATES
    for total, first, last in sorted((span for window in read for span in spans(window, longest, count)), reverse=True):
        place = _whole_words(encoding, first, last)
        found.setdefault(place, float(np.exp(total - whole)))
        if len(found) == top_k:
            break
    return [{"answer": context[a:b], "score": score, "start": a, "end": b} for (a, b), score in found.items()]


def _log_sum(logits: list[np.ndarray]) -> float:
    every = np.concatenate(logits).astype(np.float64)
    return float(every.max() + np.log(np.exp(every - every.max()).sum()))


def _whole_words(encoding: Any, first: int, last: int) -> tuple[int, int]:
    """Characters from the beginning of the first token's word to the end of the last one's."""
    start = encoding.word_to_chars(encoding.token_to_word(first))
    end = encoding.word_to_chars(encoding.token_to_word(last))
    return start[0], end[1]
