"""What is reserved for a call is never less than what it is charged, whatever is sent."""

import random
from pathlib import Path

import pytest

from maas.specs import spec_for
from workers.recipes import bert_qa, transformer_translation

MODELS = Path(__file__).resolve().parent.parent / "models"
LETTERS = ["a", "e", " ", " ", ".", "! ", "\n", "ß", "語", "🙂", "the ", "and so on ", "…  ", "1", "-"]


def text(dice: random.Random, most: int) -> str:
    return "".join(dice.choices(LETTERS, k=dice.randint(1, most)))


@pytest.mark.parametrize("stride", [None, 16, 192])
def test_the_bound_of_question_answering_holds(stride) -> None:
    dice, spec = random.Random(1), spec_for("question-answering")
    reader = bert_qa.Served(MODELS / "minilm-squad", {"reader": None})
    for _ in range(150):
        value = {"question": text(dice, 90), "context": text(dice, dice.choice([40, 400, 4000]))}
        parameters = {} if stride is None else {"doc_stride": stride}
        passage = reader.encode(value, parameters)
        read = sum(last - first + len(passage.question) + 3 for first, last in passage.windows)
        assert read <= spec.upper_quantity(value, parameters)


@pytest.mark.parametrize("limit", [None, 1, 256])
def test_the_bound_of_translation_holds(limit) -> None:
    dice, spec = random.Random(2), spec_for("translation")
    translator = transformer_translation.Served(MODELS / "tatoeba-en-de", {})
    for _ in range(300):
        value, parameters = text(dice, dice.choice([5, 50, 1000])), {} if limit is None else {"max_new_tokens": limit}
        source = translator.encode(value, parameters)
        most = sum(len(ids) - 1 for ids in source.pieces) + min(source.limit, sum(source_limit(ids) for ids in source.pieces))
        assert most <= spec.upper_quantity(value, parameters)


def source_limit(ids: list[int]) -> int:
    return transformer_translation.longest_target(ids)


def test_a_usual_text_reserves_no_more_than_a_few_times_what_it_costs() -> None:
    spec, sentence = spec_for("translation"), "The train to the coast leaves at half past nine from the other platform."
    source = transformer_translation.Served(MODELS / "tatoeba-en-de", {}).encode(sentence, {})
    assert spec.upper_quantity(sentence, {}) < 10 * 2 * sum(map(len, source.pieces))
