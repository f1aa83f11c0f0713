"""The shipped models: what they claim, and how they answer."""

import hashlib
import io
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from apps.dashboard import example
from maas.shipped import locate
from tests.conftest import EXPORTS, ROOT
from workers.export import ensure_exported
from workers.predict import Prediction, Predictor
from workers.recipes.samples import read_samples

BARS = {
    "cifar10-resnet9": ("accuracy", 0.86),
    "minilm-squad": ("f1", 72),
    "tatoeba-en-de": ("bleu", 22),
    "minilm-embed": ("knn_accuracy", 0.86),
}


@cache
def predictor(name: str) -> Predictor:
    return Predictor(ROOT / "models" / name, EXPORTS)


def manifest(name: str) -> dict:
    return json.loads((ROOT / "models" / name / "manifest.json").read_text())


def predict(name: str, inputs: list, **parameters) -> list:
    return predictor(name).predict(inputs, [parameters] * len(inputs))


@pytest.mark.parametrize("name", BARS)
def test_the_manifest_says_what_lies_there(name) -> None:
    for filename, entry in manifest(name)["files"].items():
        body = locate(ROOT / "models" / name, filename, entry).read_bytes()
        assert (len(body), hashlib.sha256(body).hexdigest()) == (entry["bytes"], entry["sha256"]), filename


@pytest.mark.parametrize("name", BARS)
def test_the_measured_figures_meet_the_bars(name) -> None:
    metric, least = BARS[name]
    found = {row["metric"]: row for row in manifest(name)["metrics"]}
    assert found[metric]["value"] >= least
    assert found[metric]["n"] > 2000
    assert str(found[metric]["value"]) in (ROOT / "models" / name / "card.md").read_text()


@pytest.mark.parametrize("name", BARS)
def test_a_hundred_samples_name_their_source(name) -> None:
    rows = [json.loads(line) for line in (ROOT / "models" / name / "samples.jsonl").read_text().splitlines()]
    assert len(rows) == 100
    assert all("attribution" in row for row in rows) or name == "cifar10-resnet9"


@pytest.mark.parametrize("name", BARS)
def test_the_export_equals_torch(name) -> None:
    facts = json.loads((ensure_exported(ROOT / "models" / name, EXPORTS, print) / "export.json").read_text())
    assert facts["parity"] <= 1e-4
    if facts["int8"]:
        used = facts["int8"]["agreement"] >= facts["int8"]["least"] and facts["int8"]["steady"] == 1.0
        assert facts["int8"]["used"] == ("used" if used else "refused")


@pytest.mark.parametrize("name", BARS)
def test_a_batch_answers_as_each_alone(name) -> None:
    inputs = read_samples(ROOT / "models" / name)[:12]
    together, alone = predict(name, inputs), [predict(name, [value])[0] for value in inputs]
    assert [rounded(found.output) for found in together] == [rounded(found.output) for found in alone]
    assert [found.quantity for found in together] == [found.quantity for found in alone]


def rounded(output):
    """The same output with scores to two digits: sums in another order differ in the last ones."""
    return json.loads(json.dumps(output), parse_float=lambda text: round(float(text), 2))


def test_a_broken_picture_fails_alone() -> None:
    good = read_samples(ROOT / "models" / "cifar10-resnet9")[0]
    first, broken, last = predict("cifar10-resnet9", [good, b"not a picture", good])
    assert isinstance(broken, Exception)
    assert first == last
    assert isinstance(first, Prediction)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1"])
def test_pictures_of_any_kind_and_size_are_read(mode) -> None:
    body = io.BytesIO()
    Image.fromarray(np.full((50, 90, 3), 128, np.uint8)).convert(mode).save(body, "PNG")
    scores = predict("cifar10-resnet9", [body.getvalue()], top_k=10)[0].output
    assert len(scores) == 10
    assert sum(row["score"] for row in scores) == pytest.approx(1, abs=1e-4)
    assert [row["score"] for row in scores] == sorted((row["score"] for row in scores), reverse=True)


def test_an_answer_late_in_a_long_text_is_found_with_its_place() -> None:
    filler = "The committee met on Monday and talked about the budget of the year. " * 60
    context = filler + "The golden key was hidden under the old oak tree. " + filler[:700]
    found = predict("minilm-squad", [{"question": "Where was the golden key hidden?", "context": context}])[0]
    assert "oak tree" in found.output["answer"]
    assert context[found.output["start"] : found.output["end"]] == found.output["answer"]
    assert 0 <= found.output["score"] <= 1
    assert found.quantity > 1000


def test_the_example_on_the_sign_up_page_is_what_the_model_answers() -> None:
    found = predict("minilm-squad", [example.TEXTS["question-answering"]])[0].output
    assert {**found, "score": pytest.approx(found["score"], abs=1e-3)} == example.ANSWER


def test_several_answers_come_best_first() -> None:
    value = {"question": "Who went to the market?", "context": "Anna went to the market, and later Boris went there too."}
    rows = predict("minilm-squad", [value], top_k=3)[0].output
    assert len(rows) == 3
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)


def test_a_translation_counts_what_it_read_and_wrote_and_keeps_its_limit() -> None:
    whole, short = (
        predict("tatoeba-en-de", ["I would like a cup of coffee, please."]),
        predict("tatoeba-en-de", ["I would like a cup of coffee, please."], max_new_tokens=2),
    )
    assert whole[0].quantity > short[0].quantity
    assert len(short[0].output["translation_text"]) < len(whole[0].output["translation_text"])


@pytest.mark.parametrize("text", ["x", "🙂🙂🙂", "日本語のテキスト", "A" * 400, "Hello.\n\nHow are you? " * 40])
def test_odd_texts_are_translated_or_refused_clearly(text) -> None:
    found = predict("tatoeba-en-de", [text])[0]
    assert isinstance(found, Prediction) or (isinstance(found, ValueError) and str(found))


def test_serving_never_loads_torch() -> None:
    import subprocess
    import sys

    code = f"""
import sys, pathlib, json
from workers.predict import Predictor
for name in {list(BARS)!r}:
    Predictor(pathlib.Path("models") / name, pathlib.Path({str(EXPORTS)!r}))
assert not {{"torch", "transformers", "django"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_evaluation_command_measures_the_public_split(data: Path, tmp_path) -> None:
    import subprocess
    import sys

    command = [sys.executable, "-m", "workers.evaluate", "models/cifar10-resnet9", "--data", str(data), "--limit", "300"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert "n=300" in done.stdout
