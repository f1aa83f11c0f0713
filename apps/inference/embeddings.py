"""OpenAI's embeddings as calls of a model of the task feature-extraction: the body read, the answer in its shape."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from apps.catalog import services as catalog
from apps.inference import services
from maas import errors, queue
from maas.predictions import render_embeddings
from maas.wire import check_names

TASK = "feature-extraction"
ENCODINGS = ("float", "base64")
FIELDS = ("model", "input", "encoding_format", "dimensions", "user")


@dataclass(frozen=True)
class Wanted:
    """A body that was read: texts for a model, and how their vectors are to be written."""

    model: str
    inputs: Any  # one text or a list, as it came
    encoding: str
    dimensions: int | None
    parameters: None = None

    def check(self, version: catalog.Version) -> None:
        """BadRequest for a model that makes no vectors, or none of the size that was asked for."""
        if version.model.task != TASK:
            message = f"'{version.model.name}' makes no embeddings: its task is {version.model.task}. Send it to /v1/predictions."
            raise errors.BadRequest(message, param="model", code="wrong_task")
        if self.dimensions is not None and self.dimensions != (size := catalog.read_config(version)["size"]):
            message = (
                f"dimensions: The vectors of '{version.model.name}' have {size} numbers and are not shortened. Send {size}, or nothing."
            )
            raise errors.BadRequest(message, param="dimensions", code="invalid_value")

    def render(self, identity: UUID, version: catalog.Version, answer: queue.Answer) -> dict[str, Any]:
        """The body of the answer."""
        return render_embeddings(answer.outputs, model=version.model.name, tokens=answer.quantity, encoding=self.encoding)

    def told(self, error: errors.MaasError) -> errors.MaasError:
        """What is wrong with `inputs[2]` of a prediction is wrong with `input[2]` here."""
        if error.param and error.param.startswith("inputs"):
            error.param = error.param.replace("inputs", "input", 1)
            error.message = error.message.replace("inputs", "input", 1)
        return error


# ---------- the body ----------
def read_body(body: Any) -> Wanted:
    """The fields of OpenAI's body; BadRequest that names what does not fit."""
    if not isinstance(body, dict):
        code = "missing_field" if body is None else "invalid_type"
        raise errors.BadRequest("The body must be an object with 'model' and 'input'.", param="body", code=code)
    check_names(body, FIELDS)
    return Wanted(_model(body), _texts(body), _encoding(body), _dimensions(body))


def _model(body: dict[str, Any]) -> str:
    model, user = body.get("model"), body.get("user")
    if model is None:
        raise errors.BadRequest("model: This field is required.", param="model", code="missing_field")
    for name, value in (("model", model), ("user", user)):
        if value is not None and not isinstance(value, str):
            raise errors.BadRequest(f"{name}: Must be a text.", param=name, code="invalid_type")
    return str(model)


def _texts(body: dict[str, Any]) -> Any:
    found = body.get("input")
    if found is None:
        raise errors.BadRequest("input: This field is required.", param="input", code="missing_field")
    if _is_tokens(found) or (isinstance(found, list) and any(map(_is_tokens, found))):
        message = "input: Numbers of tokens mean nothing here: this model has a tokenizer of its own. Send texts."
        raise errors.BadRequest(message, param="input", code="tokens_not_taken")
    if isinstance(found, list) and not 1 <= len(found) <= services.INPUT_LIMIT:
        message = f"'input' holds {len(found)} texts; one call takes 1 to {services.INPUT_LIMIT}. Split it, or send a batch."
        raise errors.BadRequest(message, param="input", code="invalid_length")
    return found


def _is_tokens(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, int) and not isinstance(one, bool) for one in value)


def _encoding(body: dict[str, Any]) -> str:
    found = body.get("encoding_format")
    if found is not None and found not in ENCODINGS:
        raise errors.BadRequest("encoding_format: Must be 'float' or 'base64'.", param="encoding_format", code="invalid_value")
    return found or "float"


def _dimensions(body: dict[str, Any]) -> int | None:
    found = body.get("dimensions")
    if found is not None and (isinstance(found, bool) or not isinstance(found, int)):
        raise errors.BadRequest("dimensions: Must be a whole number.", param="dimensions", code="invalid_type")
    return found
