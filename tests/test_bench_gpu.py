"""The bench of GPUs where there is none, and its two sides on the CPU."""

import subprocess
import sys

import pytest

from bench import gpu
from tests.conftest import ROOT
from tests.test_catalogue import predictor
from workers.recipes.samples import read_samples


@pytest.mark.skipif(gpu.missing() is None, reason="there is a GPU: run python -m bench.gpu")
def test_without_a_gpu_it_says_what_is_missing_and_ends_well() -> None:
    done = subprocess.run([sys.executable, "-m", "bench.gpu"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("skipped: ") and gpu.missing() in done.stdout


@pytest.mark.parametrize("name", gpu.NAMES)
def test_both_sides_run_the_same_graph_on_the_same_inputs(name) -> None:
    model, inputs = predictor(name), read_samples(ROOT / "models" / name)[:3]
    [graph] = gpu.open_graphs_of(model)
    feed = gpu.feed_of(model, inputs)
    assert set(feed) == set(graph.inputs)
    assert len(graph(**feed)[0]) == 3
