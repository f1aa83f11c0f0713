"""What a person would write by hand, each in a process of its own: `python -m bench.batch.loops sorted|naive|pipeline`.

All read the same texts and tokenizer and use as many threads as the worker's run. `sorted` and `naive` call ONNX Runtime with the file
that maas serves, in batches of 32, the one by length and the other in the order of the input, padded to the longest of a
batch. `pipeline` is Hugging Face's `feature-extraction` over the same weights in torch, in batches of 32.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.online.subjects import ROOT, Subject

BATCH = 32
LOOPS = ("sorted", "naive", "pipeline")
Vectors = np.ndarray  # (texts, size), float32, each of length 1


def measure(loop: str, subject: Subject, texts: list[str], threads: int) -> dict[str, Any]:
    """Texts a second from text to vector, and the first vectors, measured in a new process."""
    given = json.dumps({"loop": loop, "facts": subject.facts, "folder": str(subject.folder), "texts": texts, "threads": threads})
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "bench.batch.loops"]
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment, input=given, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"The loop '{loop}' failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# ---------- inside its process ----------
def _main() -> None:
    given = json.load(sys.stdin)
    embed = {"sorted": _sorted, "naive": _naive, "pipeline": _pipeline}[given["loop"]](given)
    embed(given["texts"][:BATCH])  # the first run of a session sets up what the others use
    begun = time.perf_counter()
    vectors = embed(given["texts"])
    seconds = time.perf_counter() - begun
    print(json.dumps({"per_second": len(given["texts"]) / seconds, "vectors": vectors[:BATCH].tolist()}))


def _sorted(given: dict[str, Any]) -> Callable[[list[str]], Vectors]:
    tokenize, run = _session(given)

    def embed(texts: list[str]) -> Vectors:
        rows = tokenize(texts)
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        found = np.empty((len(rows), 0), np.float32)
        for at in range(0, len(order), BATCH):
            part = order[at : at + BATCH]
            vectors = run([rows[row] for row in part])
            found = found if found.shape[1] else np.empty((len(rows), vectors.shape[1]), np.float32)
            found[part] = vectors
        return found

    return embed


def _naive(given: dict[str, Any]) -> Callable[[list[str]], Vectors]:
    tokenize, run = _session(given)

    def embed(texts: list[str]) -> Vectors:
        rows = tokenize(texts)
        return np.concatenate([run(rows[at : at + BATCH]) for at in range(0, len(rows), BATCH)])

    return embed


def _session(given: dict[str, Any]) -> tuple[Callable[[list[str]], list[list[int]]], Callable[[list[list[int]]], Vectors]]:
    import onnxruntime
    from tokenizers import Tokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = given["threads"]
    session = onnxruntime.InferenceSession(given["facts"]["onnx"], options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(given["facts"]["tokenizer"])

    def run(rows: list[list[int]]) -> Vectors:
        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
        mask = (ids != 0).astype(np.int64)
        return _pooled(session.run(None, {"input_ids": ids, "attention_mask": mask})[0], mask)

    return lambda texts: [one.ids for one in tokenizer.encode_batch_fast(texts)], run


def _pipeline(given: dict[str, Any]) -> Callable[[list[str]], Vectors]:
    from pathlib import Path

    import torch
    from transformers import PreTrainedTokenizerFast, pipeline

    from workers.recipes import sentence_encoder

    torch.set_num_threads(given["threads"])
    encoder = sentence_encoder.load(Path(given["folder"])).encoder
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=given["facts"]["tokenizer"], pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    tokenizer.backend_tokenizer.no_padding()
    extract = pipeline("feature-extraction", model=encoder, tokenizer=tokenizer, device=-1, framework="pt")

    def embed(texts: list[str]) -> Vectors:
        found = extract(texts, batch_size=BATCH, return_tensors=True)
        lengths = [len(one.ids) for one in tokenizer.backend_tokenizer.encode_batch_fast(texts)]
        means = [hidden[0, :length].mean(0).numpy() for hidden, length in zip(found, lengths, strict=True)]
        return _unit(np.stack(means))

    return embed


def _pooled(hidden: np.ndarray, mask: np.ndarray) -> Vectors:
    there = mask.astype(np.float32)
    return _unit(np.einsum("rls,rl->rs", hidden, there) / there.sum(1, keepdims=True))


def _unit(vectors: np.ndarray) -> Vectors:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)  # type: ignore[no-any-return]


if __name__ == "__main__":
    _main()
