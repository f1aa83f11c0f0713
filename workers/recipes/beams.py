"""Beam search over the two graphs of an encoder-decoder, many sources at once. One beam is greedy decoding."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workers.runtime.batching import padded
from workers.runtime.graphs import Graph

PAD, BEGIN, END = 0, 1, 2
MOST_BEAMS = 8  # as many as the writing graph gives candidates


@dataclass(frozen=True)
class Written:
    """Tokens without BEGIN and END, and whether the network came to an end by itself rather than to its limit."""

    ids: list[int]
    is_whole: bool


class Writer:
    """What has been written so far for each row: keys and values of every decoder layer (layers, rows, heads, m, n)."""

    def __init__(self, graphs: dict[str, Graph], source: np.ndarray, beams: int) -> None:
        """`source` is (rows, n), int64, padded with 0; each row is written `beams` times."""
        self.graph, self.position = graphs["writing"], 0
        keys, values = graphs["reading"](source=source)
        self.read = [part.repeat(beams, axis=axis) for part, axis in ((source, 0), (keys, 1), (values, 1))]
        layers, rows, heads, _, width = self.read[1].shape
        self.past = [np.zeros((layers, rows, heads, 0, width), np.float32)] * 2

    def step(self, token: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """After one more token (rows, 1): log-probabilities and ids (rows, 8) of the likeliest next ones."""
        source, keys, values = self.read
        scores, tokens, *self.past = self.graph(
            token=token, position=np.array([self.position]), source=source, source_keys=keys, source_values=values,
            past_keys=self.past[0], past_values=self.past[1],
        )  # fmt: skip
        self.position += 1
        return scores, tokens

    def keep(self, rows: np.ndarray) -> None:
        """Go on with these rows, in this order; a row may be taken twice."""
        if len(rows) == len(self.read[0]) and (rows == np.arange(len(rows))).all():
            return
        source, keys, values = self.read
        self.read = [source[rows], keys[:, rows], values[:, rows]]
        self.past = [part[:, rows] for part in self.past]


def beam_search(
    graphs: dict[str, Graph], sources: Sequence[Sequence[int]], limits: Sequence[int], beams: int, *, power: float = 1.0
) -> list[Written]:
    """The best continuation found for each source, at most `limits[i]` tokens long.

    Hypotheses are ranked by log-probability over length ** `power` (Wu et al. 2016, section 7, simplified). A row ends
    when its best hypothesis has ended.
    """
    if not 1 <= beams <= MOST_BEAMS:
        raise ValueError(f"num_beams must be from 1 to {MOST_BEAMS}.")
    found = [Written([], True) for _ in sources]
    rows, most = np.arange(len(sources)), np.array(limits)
    writer = Writer(graphs, padded(list(sources)), beams)
    text = np.full((len(rows), beams, 1), BEGIN)
    total = np.where(np.arange(beams) == 0, 0.0, -1e9) + np.zeros((len(rows), 1))
    ended = np.zeros((len(rows), beams), bool)
    while len(rows):
        scores, tokens = (part.reshape(len(rows), beams, -1) for part in writer.step(text[:, :, -1:].reshape(-1, 1)))
        scores, tokens = _after_end(scores, tokens, ended)
        parent, choice = _best(total[:, :, None] + scores, (text != PAD).sum(2)[:, :, None] - 1 + ~ended[:, :, None], power)
        total = np.take_along_axis(total, parent, 1) + scores[np.arange(len(rows))[:, None], parent, choice]
        token = tokens[np.arange(len(rows))[:, None], parent, choice]
        text = np.concatenate([np.take_along_axis(text, parent[:, :, None], 1), token[:, :, None]], axis=2)
        ended = np.take_along_axis(ended, parent, 1) | (token == END) | (text.shape[2] > most[:, None])
        for i in np.flatnonzero(ended[:, 0]):
            ids = text[i, 0, 1:].tolist()
            found[rows[i]] = Written([id for id in ids if id not in (PAD, END)], END in ids)
        on = np.flatnonzero(~ended[:, 0])
        writer.keep((on[:, None] * beams + parent[on]).reshape(-1))
        rows, most, text, total, ended = rows[on], most[on], text[on], total[on], ended[on]
    return found


def _after_end(scores: np.ndarray, tokens: np.ndarray, ended: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A hypothesis that has ended goes on with padding, at no cost, and in no other way."""
    padding = np.where(np.arange(scores.shape[2]) == 0, 0.0, -1e9)
    return np.where(ended[:, :, None], padding, scores), np.where(ended[:, :, None], PAD, tokens)


def _best(totals: np.ndarray, lengths: np.ndarray, power: float) -> tuple[np.ndarray, np.ndarray]:
    """For each row the beams to go on from and which of their candidates, both (rows, beams), best first."""
    rows, beams, candidates = totals.shape
    ranked = (totals / lengths**power).reshape(rows, -1)
    chosen = np.argsort(-ranked, axis=1, kind="stable")[:, :beams]
    return chosen // candidates, chosen % candidates
