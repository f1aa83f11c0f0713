"""How a batch is run: cut by cost, by several threads, halved without memory, on the device that was asked for."""

import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, pairwise

import numpy as np
import pytest

from tests.conftest import EXPORTS, ROOT
from tests.test_catalogue import BARS, predictor
from workers.predict import Prediction, Predictor
from workers.recipes.samples import read_samples
from workers.recipes.spans import windows
from workers.runtime import graphs
from workers.runtime.batching import Cut, buckets, masked, padded


def samples(name: str) -> list:
    return read_samples(ROOT / "models" / name)


# ---------- cutting ----------
def cost(runs: list[list[int]], lengths: list[int], cut: Cut) -> int:
    return sum(len(run) * max(lengths[row] for row in run) + cut.fixed for run in runs)


def cheapest(lengths: list[int], cut: Cut) -> int:
    """The least cost over every way to cut the sorted rows."""
    order, found = sorted(range(len(lengths)), key=lengths.__getitem__), []
    for count in range(len(order)):
        for borders in combinations(range(1, len(order)), count):
            edges = [0, *borders, len(order)]
            runs = [order[a:b] for a, b in pairwise(edges)]
            if all(len(run) == 1 or len(run) * lengths[run[-1]] <= cut.budget for run in runs):
                found.append(cost(runs, lengths, cut))
    return min(found)


def test_no_other_cut_costs_less() -> None:
    dice = random.Random(1)
    for _ in range(60):
        lengths = [dice.randint(1, 40) for _ in range(dice.randint(1, 9))]
        cut = Cut(budget=dice.choice([20, 60, 500]), fixed=dice.choice([0, 8, 30]))
        assert cost(buckets(lengths, cut), lengths, cut) == cheapest(lengths, cut)


def test_every_row_is_in_one_run_within_the_budget() -> None:
    dice = random.Random(2)
    lengths = [dice.randint(0, 700) for _ in range(500)]
    runs = buckets(lengths, Cut(512, 8))
    assert sorted(row for run in runs for row in run) == list(range(500))
    assert all(len(run) == 1 or len(run) * max(lengths[row] for row in run) <= 512 for run in runs)
    assert buckets([], Cut(512, 8)) == []


def test_the_mask_says_where_the_ids_are() -> None:
    rows = [[5, 6, 7], [8], [9, 9]]
    assert padded(rows).tolist() == [[5, 6, 7], [8, 0, 0], [9, 9, 0]]
    assert masked(rows).tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]


# ---------- devices and budgets ----------
@pytest.mark.parametrize("device", ["gpu", "cuda", "cuda:x", "tensorrt", "cpu:0", ""])
def test_a_device_of_another_form_is_refused(device) -> None:
    with pytest.raises(ValueError, match="cpu, cuda:N or tensorrt:N"):
        graphs.providers(device)


@pytest.mark.parametrize("device", ["cuda:9", "tensorrt:9"])
def test_a_device_that_is_not_there_is_an_error_and_never_the_cpu(device) -> None:
    with pytest.raises(RuntimeError, match=r"was asked for.*MAAS_DEVICE=cpu"):
        Predictor(ROOT / "models" / "cifar10-resnet9", EXPORTS, device=device)


def test_a_session_has_the_threads_and_the_gpu_memory_that_it_was_given(monkeypatch) -> None:
    options = graphs.session_options(3)
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    assert options.graph_optimization_level == graphs.onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    monkeypatch.setattr(graphs.onnxruntime, "get_available_providers", lambda: list(graphs.PROVIDERS.values()))
    tensorrt, cuda, cpu = graphs.providers("tensorrt:1", 7)
    assert (tensorrt[1]["device_id"], cuda[1]["gpu_mem_limit"], cpu) == (1, 7, "CPUExecutionProvider")
    assert "gpu_mem_limit" not in graphs.providers("cuda:0")[0][1]


# ---------- threads ----------
@pytest.mark.parametrize("name", BARS)
def test_threads_that_share_a_version_get_the_answers_of_one(name) -> None:
    inputs, model = samples(name)[:8], predictor(name)
    expected = model.predict(inputs, [{}] * 8)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: model.predict(inputs, [{}] * 8), range(8)))
    assert all(answers == expected for answers in found)


# ---------- memory ----------
HALVES = f"""
import pathlib, resource, sys
from workers.predict import Prediction, Predictor
from workers.recipes import image_cnn
from workers.recipes.samples import read_samples
image_cnn.BATCH = 128  # pictures in one run, so that it needs much
folder = pathlib.Path("models/cifar10-resnet9")
model, inputs, sizes = Predictor(folder, pathlib.Path({str(EXPORTS)!r})), read_samples(folder) + read_samples(folder)[:28], []
expected = [model.predict([value], [{{}}])[0].output[0]["label"] for value in inputs]
run = model.served.run
model.served.run = lambda encoded: sizes.append(len(encoded)) or run(encoded)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 24 * 2**20,) * 2)
found = model.predict(inputs, [{{}}] * 128)
assert all(isinstance(one, Prediction) for one in found), found
assert [one.output[0]["label"] for one in found] == expected
assert sizes[:2] == [128, 64] and 1 < min(sizes) < 64, sizes
"""


def test_a_batch_that_finds_too_little_memory_is_halved_until_it_fits() -> None:
    done = subprocess.run([sys.executable, "-c", HALVES], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


class Moody:
    """Answers numbers; fails as it is told to for batches that hold more than `most` or a bad one."""

    def __init__(self, error: Exception, most: int, bad: int | None = None) -> None:
        self.error, self.most, self.bad, self.sizes = error, most, bad, []

    def tokens(self, values: list[int]) -> list[None]:
        return [None] * len(values)

    def encode(self, value: int, parameters: dict, tokens: None) -> int:
        return value

    def run(self, encoded: list[int]) -> list[tuple[int, int]]:
        self.sizes.append(len(encoded))
        if len(encoded) > self.most or self.bad in encoded:
            raise self.error
        return [(value, 1) for value in encoded]


def predicted(served: Moody, count: int) -> list:
    model = object.__new__(Predictor)
    model.served = served
    return model.predict(list(range(count)), [{}] * count)


def test_without_memory_halves_are_tried_and_after_another_error_each_alone() -> None:
    halved, alone = Moody(MemoryError(), most=3), Moody(RuntimeError("odd"), most=9, bad=5)
    assert [found.output for found in predicted(halved, 8)] == list(range(8))
    assert halved.sizes == [8, 4, 2, 2, 4, 2, 2]
    found = predicted(alone, 8)
    assert alone.sizes == [8] + [1] * 8
    assert [i for i, one in enumerate(found) if not isinstance(one, Prediction)] == [5]


def test_one_input_that_needs_too_much_fails_alone() -> None:
    found = predicted(Moody(MemoryError(), most=9, bad=2), 4)
    assert [isinstance(one, MemoryError) for one in found] == [False, False, True, False]


@pytest.mark.parametrize(
    ("text", "is_memory"),
    [
        ("Non-zero status code returned while running MatMul node. Status Message: std::bad_alloc", True),
        ("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 805306368", True),
        ("BFCArena::AllocateRawInternal Available memory of 1024 is smaller than requested bytes of 4096", True),
        ("CUDA failure 2: out of memory ; GPU=0 ; hostname=box", True),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0", True),
        ("CUDA failure 700: an illegal memory access was encountered ; GPU=0", False),
        ("INVALID_ARGUMENT : Got invalid dimensions for input: pixels", False),
    ],
)  # fmt: skip
def test_a_failure_for_want_of_memory_is_told_from_others(text, is_memory) -> None:
    from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException

    assert graphs.out_of_memory(RuntimeException(text)) is is_memory
    assert not graphs.out_of_memory(ValueError(text))


# ---------- windows ----------
def test_every_answer_is_whole_in_one_window_wherever_the_borders_are() -> None:
    for count in (1, 50, 127, 128, 129, 400, 1001):
        for size, overlap in ((128, 64), (253, 126), (128, 30)):
            parts = windows(count, size, overlap)
            assert all(last - first <= size for first, last in parts)
            spans = [(at, min(at + overlap, count)) for at in range(count)]
            assert all(any(first <= a and b <= last for first, last in parts) for a, b in spans)


def test_a_stride_shorter_than_the_longest_answer_is_lengthened_to_it() -> None:
    served = predictor("minilm-squad").served
    value = {"question": "Where?", "context": "word " * 900}
    first, second = served.encode(value, {"doc_stride": 16, "max_answer_len": 100}).windows[:2]
    assert first[1] - second[0] == 100


def test_an_answer_at_the_border_of_a_window_is_found() -> None:
    served, key = predictor("minilm-squad").served, "The golden key was hidden under the old oak tree by the river. "
    filler = "The committee met on Monday and talked about the budget. "
    border = served.encode({"question": "Where was the golden key hidden?", "context": filler * 60}, {}).windows[0][1]
    for before in range(border // 11 - 2, border // 11 + 3):  # a sentence of the filler has 11 tokens
        value = {"question": "Where was the golden key hidden?", "context": filler * before + key + filler * 20}
        assert "old oak tree" in predictor("minilm-squad").predict([value], [{}])[0].output["answer"]


def test_a_question_past_its_limit_is_refused_with_both_numbers() -> None:
    found = predictor("minilm-squad").predict([{"question": "why " * 200, "context": "because"}], [{}])[0]
    assert isinstance(found, ValueError) and "200 tokens" in str(found) and "at most 128" in str(found)


# ---------- translation ----------
def test_a_translation_that_met_its_limit_says_so_and_others_do_not() -> None:
    text = "I would like a cup of coffee, please."
    whole, short = predictor("tatoeba-en-de").predict([text, text], [{}, {"max_new_tokens": 3}])
    assert short.output["finish_reason"] == "length"
    assert "finish_reason" not in whole.output


def test_a_long_sentence_is_cut_between_words_and_nothing_is_left_out() -> None:
    served, words = predictor("tatoeba-en-de").served, "the unforgettable lighthouse keeper sang " * 60
    source = served.encode(words, {})
    assert len(source.pieces) > 1
    assert "".join(served.tokenizer.decode(ids[:-1]) for ids in source.pieces).split() == words.split()
    assert all(served.tokenizer.decode(ids[:-1]).startswith(" ") for ids in source.pieces)


def test_finished_rows_leave_the_batch() -> None:
    served, rows = predictor("tatoeba-en-de").served, []
    writing = served.graphs["writing"]
    served.graphs = {**served.graphs, "writing": lambda **given: rows.append(len(given["token"])) or writing(**given)}
    try:
        served.run([served.encode(text, {}) for text in ("Yes.", "I would like a cup of coffee and two of the small cakes, please.")])
    finally:
        served.graphs = {**served.graphs, "writing": writing}
    beams = served.config["beams"]
    assert rows[0] == 2 * beams and rows[-1] == beams and rows == sorted(rows, reverse=True)


def test_vectors_are_numbers_of_python_with_eight_digits() -> None:
    found = predictor("minilm-embed").predict(["a text"], [{}])[0].output
    assert all(type(number) is float and round(number, 8) == number for number in found)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)


def test_a_text_that_no_tokenizer_reads_fails_alone() -> None:
    for name, wrap in (("minilm-embed", str), ("minilm-squad", lambda text: {"question": "Who?", "context": text})):
        good, bad = predictor(name).predict([wrap("a text"), wrap("half of a pair: \ud800")], [{}, {}])
        assert isinstance(good, Prediction) and isinstance(bad, Exception)
