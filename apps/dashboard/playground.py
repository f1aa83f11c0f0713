"""Trying a model in the browser: what a form means, and how an answer is shown. One branch a task."""

import base64
import io
import math
import time
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from PIL import Image

from apps.dashboard import snippets
from apps.inference import predictions
from apps.inference import services as inference
from maas import errors, pictures

SAMPLES = 50  # of a model's samples that "Another example" goes round
PARAMETERS: dict[str, dict[str, Any]] = {"question-answering": {"top_k": 3}, "image-classification": {"top_k": 10}}
SHOWN_SCORES = 5
SHOWN_NUMBERS = 8  # of a vector
THUMBNAIL = 224  # pixels
FORMS = ("question-answering", "translation", "image-classification", "feature-extraction")


@dataclass(frozen=True)
class Answer:
    """A call that went well: the API's body, and milliseconds from sending it to having the answer."""

    body: dict[str, Any]
    milliseconds: int
    shown: dict[str, Any]


def values_from_sample(task: str, inputs: Any) -> dict[str, Any]:
    """A sample input as the form's values."""
    if task == "question-answering":
        return dict(inputs)
    if task == "image-classification":
        return {"picture": inputs if inputs.startswith("data:") else f"data:image/png;base64,{inputs}"}
    return {"text": inputs}


def read_values(task: str, request: HttpRequest, sample: dict[str, Any]) -> dict[str, Any]:
    """What was typed or uploaded. Without an upload the sample's picture stands."""
    if task == "question-answering":
        return {"question": request.POST.get("question", ""), "context": request.POST.get("context", "")}
    if task == "image-classification":
        upload = request.FILES.get("picture")
        return {"picture": _data_url(upload)} if upload else sample
    if task == "feature-extraction":
        return {"text": request.POST.get("text", ""), "other": request.POST.get("other", "")}
    return {"text": request.POST.get("text", "")}


def _data_url(upload: Any) -> str:
    if upload.size > pictures.BYTE_LIMIT:
        raise errors.TooLarge(f"The picture is larger than {pictures.BYTE_LIMIT // 2**20} MB.", param="inputs")
    kind = upload.content_type if upload.content_type in {"image/png", "image/jpeg", "image/webp", "image/gif"} else "image/png"
    return f"data:{kind};base64,{base64.b64encode(upload.read()).decode()}"


def thumbnail(data_url: str) -> str:
    """A picture that was answered, at most 224 pixels wide and high, so that a page stays small."""
    with Image.open(io.BytesIO(pictures.decode(data_url)), formats=pictures.FORMATS) as picture:
        small = picture.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    body = io.BytesIO()
    small.save(body, "PNG")
    return f"data:image/png;base64,{base64.b64encode(body.getvalue()).decode()}"


def inputs_from(task: str, values: dict[str, Any]) -> Any:
    """The form's values as the API takes them."""
    if task == "question-answering":
        return values
    if task == "feature-extraction" and values.get("other", "").strip():
        return [values["text"], values["other"]]
    return values.get("picture", "") if task == "image-classification" else values["text"]


def body_from(model: str, task: str, values: dict[str, Any]) -> dict[str, Any]:
    """The body of the call: the same that a program sends."""
    parameters = PARAMETERS.get(task)
    return {"model": model, "inputs": inputs_from(task, values), **({"parameters": parameters} if parameters else {})}


def run(tenant: Any, task: str, values: dict[str, Any], body: dict[str, Any]) -> Answer:
    """Make the call, charged like any other.

    Raises the API's own errors; none of them is charged.
    """
    started = time.monotonic()
    answer = inference.predict(tenant, predictions.read_body(body))
    milliseconds = round(1000 * (time.monotonic() - started))
    return Answer(answer, milliseconds, present(task, values, answer["outputs"]))


def present(task: str, values: dict[str, Any], outputs: Any) -> dict[str, Any]:
    """An output in the parts that its result pane shows."""
    if task == "question-answering":
        ranked = outputs if isinstance(outputs, list) else [outputs]
        best, context = ranked[0], values["context"]
        start, end = best["start"], best["end"]
        return {
            "ranked": ranked,
            "best": best,
            "before": context[:start],
            "answer": context[start:end],
            "after": context[end:],
        }
    if task == "image-classification":
        return {
            "best": outputs[0],
            "ranked": outputs[:SHOWN_SCORES],
            "rest": outputs[SHOWN_SCORES:],
            "picture": thumbnail(values["picture"]),
        }
    if task == "translation":
        found = outputs[0] if isinstance(outputs, list) else outputs
        return {"source": values["text"], "target": found["translation_text"]}
    if task == "feature-extraction":
        vectors = outputs if isinstance(outputs[0], list) else [outputs]
        heads = [vector[:SHOWN_NUMBERS] for vector in vectors]
        return {"heads": heads, "size": len(vectors[0]), "cosine": cosine(*vectors) if len(vectors) == 2 else None}
    return {"json": snippets.as_json(outputs)}


def cosine(one: list[float], other: list[float]) -> float:
    """How alike two vectors point, -1..1."""
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / (math.hypot(*one) * math.hypot(*other) or 1.0)


def code_for(root: str, model: str, task: str, values: dict[str, Any]) -> list[snippets.Snippet]:
    """Code that makes this very call; for a picture, one of ours, as a file of the reader cannot be named."""
    return snippets.for_call(root, model, task, None if task == "image-classification" else inputs_from(task, values))
