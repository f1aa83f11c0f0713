"""One exported model as a user of a serving framework would write it: tokenise, pad to the longest, run, read the outputs.

Imported by every peer, inside its own environment; it knows nothing of maas. `BENCH_MODEL` names a JSON file with `task`,
`onnx`, `tokenizer` and `labels`, `BENCH_THREADS` the threads of one run.
"""

import base64
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

LONGEST = 30  # tokens of an answer
MEAN = np.array([0.4914, 0.4822, 0.4465], np.float32)  # of CIFAR-10, channels RGB, 0..1
STD = np.array([0.2470, 0.2435, 0.2616], np.float32)


class Model:
    """A session and what stands before and after it. `run` takes inputs as they came in JSON and gives one output for each."""

    def __init__(self, facts: dict[str, Any], threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Spinning threads take the core from the server's own processes; without, every peer was faster here.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(facts["onnx"], options, providers=["CPUExecutionProvider"])
        self.labels: list[str] = facts["labels"]
        self.tokenizer = _tokenizer(facts["tokenizer"])
        kinds: dict[str, Callable[[list[Any]], list[Any]]] = {
            "question-answering": self._answers,
            "feature-extraction": self._vectors,
            "image-classification": self._shares,
        }
        self.run = kinds[facts["task"]]

    def _answers(self, inputs: list[dict[str, str]]) -> list[Any]:
        pairs = [(value["question"], value["context"]) for value in inputs]
        encodings = self.tokenizer.encode_batch(pairs)
        start, end = self.session.run(["start", "end"], feed_of(encodings, "input_ids", "attention_mask", "token_type_ids"))
        rows = zip(encodings, start, end, inputs, strict=True)
        return [_answer(encoding, begins, ends, value["context"]) for encoding, begins, ends, value in rows]

    def _vectors(self, inputs: list[str]) -> list[Any]:
        encodings = self.tokenizer.encode_batch(inputs)
        feed = feed_of(encodings, "input_ids", "attention_mask")
        hidden = self.session.run(["hidden"], feed)[0]
        there = feed["attention_mask"].astype(np.float32)
        means = np.matmul(there[:, None, :], hidden)[:, 0] / there.sum(1, keepdims=True)
        vectors = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        return vectors.astype(np.float64).round(8).tolist()  # type: ignore[no-any-return]

    def _shares(self, inputs: list[str]) -> list[Any]:
        pixels = np.stack([pixels_of(value) for value in inputs])
        logits = self.session.run(["logits"], {"pixels": np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))})[0]
        raised = np.exp(logits - logits.max(1, keepdims=True))
        shares = raised / raised.sum(1, keepdims=True)
        return [[{"label": self.labels[i], "score": float(row[i])} for i in np.argsort(-row)[:5]] for row in shares]


def load() -> Model:
    """The model that the environment names."""
    return Model(json.loads(Path(os.environ["BENCH_MODEL"]).read_text()), int(os.environ["BENCH_THREADS"]))


def _tokenizer(path: str | None) -> Any:
    if path is None:
        return None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(path)
    tokenizer.no_truncation()
    tokenizer.enable_padding()  # to the longest of a batch
    return tokenizer


def feed_of(encodings: list[Any], *names: str) -> dict[str, np.ndarray]:
    """(rows, longest) int64 by the names that the graph has for ids, mask and segments."""
    parts = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    return {name: np.array([getattr(encoding, parts[name]) for encoding in encodings], np.int64) for name in names}


def _answer(encoding: Any, start: np.ndarray, end: np.ndarray, context: str) -> dict[str, Any]:
    """The span of the context with the largest sum of logits, widened to whole words, with its probability."""
    first = encoding.type_ids.index(1)
    count = sum(encoding.type_ids) - 1  # without the mark at the end
    start, end = start[first : first + count], end[first : first + count]
    sums = np.where(_is_span(count), start[:, None] + end[None, :], -np.inf)
    a, b = np.unravel_index(sums.argmax(), sums.shape)
    score = float(np.exp(float(sums[a, b]) - _log_sum(start) - _log_sum(end)))
    left = encoding.word_to_chars(encoding.token_to_word(first + int(a)), 1)[0]
    right = encoding.word_to_chars(encoding.token_to_word(first + int(b)), 1)[1]
    return {"answer": context[left:right], "score": score, "start": left, "end": right}


_spans: dict[int, np.ndarray] = {}


def _is_span(count: int) -> np.ndarray:
    """(count, count) bool: which pairs of first and last token are a span of at most LONGEST."""
    if count not in _spans:
        length = np.arange(count)[None, :] - np.arange(count)[:, None]
        _spans[count] = (length >= 0) & (length < LONGEST)
    return _spans[count]


def _log_sum(logits: np.ndarray) -> float:
    top = float(logits.max())
    return top + float(np.log(np.exp(logits - top, dtype=np.float64).sum()))


def pixels_of(value: str) -> np.ndarray:
    """(32, 32, 3) float32 of a picture as base64 or data URI."""
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(value.partition(",")[2] or value))) as picture:
        small = picture.convert("RGB")
        if small.size != (32, 32):
            small = small.resize((32, 32), Image.Resampling.BICUBIC)
        return (np.asarray(small, np.float32) / 255 - MEAN) / STD
