"""What one ML task takes and gives: inputs, parameters, data set columns, the quantity that is measured.

A spec checks what a caller sent before anything is queued. It raises `BadRequest` that names the field.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from maas import errors, pictures

QUESTION_LIMIT = 2_000  # characters
CONTEXT_LIMIT = 20_000  # characters; longer than a window of the model is read in overlapping windows
SOURCE_LIMIT = 4_000  # characters
TEXT_LIMIT = 20_000  # characters to embed; no model reads as much at once, and what each reads it says in tokens

QUICK = 16  # inputs

ReadFile = Callable[[str], bytes]
Check = Callable[[Any], Any]


@dataclass(frozen=True)
class TaskSpec:
    """One task. `unit` is what is counted; `upper_quantity` bounds it from a clean input and its parameters.

    `work` says how many short inputs a clean input weighs: batches are cut and tenants take turns by it. `slack` is how many
    times the bound exceeds what an input usually comes to; rate limits, which only have to be fair, divide by it. `quick` says
    of an unchecked input that checking it takes no time worth mentioning.
    """

    name: str
    title: str
    unit: str
    columns: tuple[str, ...]
    parameters: dict[str, Check]
    clean: Callable[[Any, ReadFile], Any]
    upper_quantity: Callable[[Any, dict[str, Any]], int]
    work: Callable[[Any], int]
    slack: int = 1
    quick: Callable[[Any], bool] = lambda value: True

    def is_quick(self, value: Any) -> bool:
        """Whether checking one input or a list of them takes less than a millisecond or so, and no file."""
        values = value if isinstance(value, list) else [value]
        return len(values) <= QUICK and all(map(self.quick, values))

    def check_input(self, value: Any, read_file: ReadFile) -> Any:
        """One input in the form that `workers.predict` takes; `read_file` gives the bytes of a `file-` id."""
        return self.clean(value, read_file)

    def likely_quantity(self, value: Any) -> int:
        """What a clean input will come to, roughly; at least 1."""
        return -(-self.upper_quantity(value, {}) // self.slack)

    def check_parameters(self, value: Any) -> dict[str, Any]:
        """The known parameters of the task; BadRequest for an unknown one or a value that does not fit."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise errors.BadRequest("'parameters' must be an object.", param="parameters", code="invalid_type")
        return {name: self._check_parameter(name, given) for name, given in value.items() if given is not None}

    def _check_parameter(self, name: str, given: Any) -> Any:
        if name not in self.parameters:
            message = f"The task {self.name} has no parameter '{name}'. Known: {', '.join(self.parameters)}."
            raise errors.BadRequest(message, param=f"parameters.{name}", code="unknown_parameter")
        try:
            return self.parameters[name](given)
        except errors.BadRequest as error:
            raise error.at(f"parameters.{name}") from None


def spec_for(task: str) -> TaskSpec:
    """The spec of a task; KeyError for one that maas does not know."""
    return SPECS[task]


# ---------- checks of single values ----------
def whole(least: int, largest: int) -> Check:
    """A whole number within bounds; true and false are not numbers."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= largest:
            raise errors.BadRequest(f"Must be a whole number from {least} to {largest}.", code="invalid_value")
        return value

    return check


def truth(value: Any) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise errors.BadRequest("Must be true or false.", code="invalid_type")
    return value


def text(value: Any, *, limit: int, param: str | None = None) -> str:
    """A text that says something and is at most `limit` characters long."""
    if not isinstance(value, str):
        raise errors.BadRequest(f"Must be a text, not {_kind(value)}.", param=param, code="invalid_type")
    if not value.strip():
        raise errors.BadRequest("Must not be empty.", param=param, code="empty")
    if len(value) > limit:
        raise errors.BadRequest(f"Is {len(value):,} characters long; the limit is {limit:,}.", param=param, code="too_long")
    try:
        value.encode()
    except UnicodeEncodeError:
        message = "Holds half of a surrogate pair, which is not Unicode text."
        raise errors.BadRequest(message, param=param, code="invalid_unicode") from None
    return value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), "that")


# ---------- the tasks ----------
def _question(value: Any, read_file: ReadFile) -> dict[str, str]:
    if not isinstance(value, dict):
        raise errors.BadRequest(f"Must be an object with 'question' and 'context', not {_kind(value)}.", code="invalid_type")
    for name in value.keys() - {"question", "context"}:
        raise errors.BadRequest(f"Unknown field '{name}'. Known: question, context.", param=str(name), code="unknown_field")
    for name in ("question", "context"):
        if name not in value:
            raise errors.BadRequest(f"'{name}' is missing.", param=name, code="missing_field")
    return {
        "question": text(value["question"], limit=QUESTION_LIMIT, param="question"),
        "context": text(value["context"], limit=CONTEXT_LIMIT, param="context"),
    }


def _source(value: Any, read_file: ReadFile) -> str:
    return text(value, limit=SOURCE_LIMIT)


def _passage(value: Any, read_file: ReadFile) -> str:
    return text(value, limit=TEXT_LIMIT)


def _picture(value: Any, read_file: ReadFile) -> bytes:
    if isinstance(value, str) and value.startswith("file-"):
        return pictures.check(read_file(value))
    return pictures.check(pictures.decode(value))


def _tokens(*texts: str) -> int:
    """At most one token a byte: both tokenizers fall back to single characters."""
    return sum(len(part.encode()) for part in texts)


def _translated(text: str, parameters: dict[str, Any]) -> int:
    """Tokens that are read and written at most. A piece is a sentence, a line, or long; its translation has thrice its tokens
    and thirteen more, and one token beyond its bytes says that a word begins."""
    pieces = sum(map(text.count, ".!?…\n")) + _tokens(text) // 64 + 1
    read = _tokens(text) + pieces
    return read + int(parameters.get("max_new_tokens", 3 * read + 13 * pieces))


SPECS: dict[str, TaskSpec] = {
    "image-classification": TaskSpec(
        name="image-classification", title="Image classification", unit="image", columns=("image", "label"),
        parameters={"top_k": whole(1, 100)}, clean=_picture, upper_quantity=lambda value, parameters: 1,
        work=lambda value: 1, quick=pictures.is_small,
    ),
    "question-answering": TaskSpec(
        name="question-answering", title="Question answering", unit="token", columns=("question", "context", "answers"),
        parameters={"top_k": whole(1, 20), "max_answer_len": whole(1, 100), "doc_stride": whole(16, 192)},
        clean=_question,
        # Windows share at most half of their room for the context, so a token is read twice at most; a question takes at most
        # as much room as the context beside it, so those in front of all windows but one double that at most.
        upper_quantity=lambda value, parameters: 4 * _tokens(value["context"]) + _tokens(value["question"]) + 16,
        work=lambda value: 1 + len(value["context"]) // 1000,
        slack=16,  # a token has about four bytes, and most contexts fit one window
    ),
    "translation": TaskSpec(
        name="translation", title="Translation", unit="token", columns=("translation",),
        parameters={"max_new_tokens": whole(1, 256)},
        clean=_source, upper_quantity=_translated,
        work=lambda value: 1 + len(value) // 300,
        slack=8,  # a token has about four bytes, and a translation is about as long as its source
    ),
    "feature-extraction": TaskSpec(
        name="feature-extraction", title="Embeddings", unit="token", columns=("text",),
        parameters={"normalize": truth, "truncate": truth},
        clean=_passage, upper_quantity=lambda value, parameters: _tokens(value) + 2,  # two say where the text begins and ends
        work=lambda value: 1 + len(value) // 1000,
        slack=4,  # a token has about four bytes
    ),
}  # fmt: skip
