"""The bench of batches, short: what it compares, never how fast anything is."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from bench.batch import loops
from bench.batch.__main__ import measure, tell
from bench.batch.texts import read_texts
from bench.online.load import LoadError
from bench.online.subjects import TEXTS, catalogue, open_subjects
from tests.conftest import DATA, EXPORTS, needs


@pytest.fixture
def options(tmp_path_factory: pytest.TempPathFactory) -> Namespace:
    folder = tmp_path_factory.mktemp("bench")
    (folder / "home" / "cache").mkdir(parents=True)
    (folder / "home" / "cache" / "exports").symlink_to(EXPORTS)
    folder.chmod(0o711)  # PostgreSQL runs as another user under root
    folder.parent.chmod(0o711)
    return Namespace(lines=96, sample=32, rounds=1, threads=1, loops="sorted", data=None, seed=3, folder=folder)


def test_a_batch_of_the_product_gives_the_vectors_of_a_loop(options) -> None:
    figures = measure(options)
    assert figures["lines"] == 96 and set(figures["rates"]) == {"sorted", "maas", "maas, checked"}
    assert all(rate > 0 for rates in figures["rates"].values() for rate in rates)


def test_all_loops_give_the_same_vectors(tmp_path: Path) -> None:
    models = catalogue(tmp_path / "models", (TEXTS,))
    (subject,) = open_subjects([TEXTS], models, EXPORTS, None, seed=1)
    texts = read_texts(None, 40, seed=1)
    found = [np.array(loops.measure(loop, subject, texts, 1)["vectors"]) for loop in loops.LOOPS]
    assert found[0].shape == (32, 384)
    assert max(float(np.abs(found[0] - other).max()) for other in found[1:]) < 1e-3


def test_texts_are_of_all_lengths_and_the_seed_decides_their_order() -> None:
    needs(DATA.exists(), "the data sets beside the project are not there")
    texts = read_texts(DATA, 500, seed=5)
    assert texts == read_texts(DATA, 500, seed=5) != read_texts(DATA, 500, seed=6)
    lengths = sorted(map(len, texts))
    assert lengths[50] < 80 and lengths[-50] > 500


def test_a_ratio_that_is_missed_is_said(capsys) -> None:
    rates = {"sorted": [10.0, 10.0], "naive": [4.0, 4.0], "maas": [9.5, 9.4]}
    assert tell({"rates": rates, "memory_mib": [5.0]})
    assert not tell({"rates": {**rates, "maas": [8.9, 8.0]}, "memory_mib": [5.0]})
    assert "MISSED" in capsys.readouterr().out
    assert not tell({"rates": rates, "memory_mib": [301.0]})


def test_vectors_that_differ_end_the_bench() -> None:
    from bench.batch.__main__ import _compare

    with pytest.raises(LoadError, match="differ"):
        _compare([[0.1, 0.2]], [[0.1, 0.21]])
