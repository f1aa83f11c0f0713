"""The training loop: it learns, and a run that was cut ends where an uninterrupted one does."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tests import datasets
from workers import training

KINDS = {"image_cnn": datasets.pictures, "transformer_translation": datasets.pairs, "bert_qa": datasets.questions}


class Cut(Exception):
    """The process was stopped here."""


def ignore(figures: dict) -> None:
    """Nobody listens."""


def weights(checkpoints: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoints / "last.pt", weights_only=True)["model"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_falls(kind, tmp_path) -> None:
    settings = KINDS[kind](tmp_path, 12)
    losses: list[float] = []

    def listen(figures: dict) -> None:
        if "loss" in figures:
            losses.append(figures["loss"])

    training.train(settings, tmp_path, tmp_path / "run", listen)
    assert len(losses) == 12
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("kind", ["image_cnn", "transformer_translation"])
def test_a_resumed_run_is_equal_to_the_bit(kind, tmp_path, monkeypatch) -> None:
    settings = KINDS[kind](tmp_path, 9)
    training.train(settings, tmp_path, tmp_path / "whole", ignore)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)

    def cut_at_six(figures: dict) -> None:
        if figures["step"] == 6:
            raise Cut

    with pytest.raises(Cut):
        training.train(settings, tmp_path, tmp_path / "cut", cut_at_six)
    training.train(settings, tmp_path, tmp_path / "cut", ignore)
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    shares = [training.schedule(step / 100, 0.2) for step in range(101)]
    assert shares[0] == 0
    assert max(shares) == shares[20] == 1
    assert shares[100] == pytest.approx(0)
    assert all(a > b for a, b in pairwise(shares[20:]))


def test_an_unknown_optimiser_or_recipe_is_named() -> None:
    with pytest.raises(ValueError, match="sgd or adamw, not 'lion'"):
        training.make_optimiser([], {"optimiser": "lion", "rate": 1})
    with pytest.raises(ValueError, match="no recipe 'rnn'"):
        training.trainable("rnn")


def test_a_recipe_that_serves_published_weights_says_that_it_cannot_be_trained(tmp_path) -> None:
    with pytest.raises(ValueError, match="nothing to train"):
        training.train({"recipe": "sentence_encoder", "train": {}}, tmp_path, tmp_path, ignore)


def test_missing_data_is_named(tmp_path) -> None:
    settings = datasets.pairs(tmp_path, 1)
    (tmp_path / "train.tsv.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"train\.tsv\.gz"):
        training.train(settings, tmp_path, tmp_path / "run", ignore)


def test_held_out_rows_are_not_trained_on(tmp_path) -> None:
    from workers.recipes import transformer_translation as recipe

    data = recipe.read(datasets.pairs(tmp_path, 1), tmp_path)
    assert not {tuple(source) for source, _ in data.train} & {tuple(source) for source, _ in data.valid}
