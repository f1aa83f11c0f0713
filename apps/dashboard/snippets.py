"""Code to copy that runs as it stands, against this server."""

import json
import re
import shlex
from dataclasses import dataclass
from typing import Any

from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

SECRET = "$MAAS_API_KEY"  # noqa: S105  # the name of a variable of the reader's shell
PICTURE = "static/sample.png"
PREDICTIONS, EMBEDDINGS = "/v1/predictions", "/v1/embeddings"
LONGEST_LIST = 50  # numbers that are shown of a list


@dataclass(frozen=True)
class Snippet:
    """One way to make a call; `language` picks the colouring and is remembered between pages."""

    language: str
    title: str
    text: str

    @property
    def html(self) -> SafeString:
        return colour(self.text)


def for_call(root: str, model: str, task: str, sample: Any) -> list[Snippet]:
    """curl and Python that call `model` with a sample input. `root` is the server's address without a last slash."""
    if task == "feature-extraction":
        curl = _curl(root, {"model": model, "input": sample}, EMBEDDINGS)
        return [Snippet("curl", "curl", curl), _openai_embeddings(root, model, sample)]
    picture = task == "image-classification"
    curl = _curl_picture(root, model) if picture else _curl(root, {"model": model, "inputs": sample})
    python = _python_picture(root, model) if picture else _python(root, {"model": model, "inputs": sample})
    return [Snippet("curl", "curl", curl), Snippet("python", "Python", python)]


def for_batch(root: str, model: str, task: str, sample: Any) -> Snippet:
    """A batch of one line with the openai client, from writing the file to reading the result."""
    inputs = "picture" if task == "image-classification" else _literal(sample, 4)
    url, field = (EMBEDDINGS, "input") if task == "feature-extraction" else (PREDICTIONS, "inputs")
    lines = [
        "# pip install openai",
        "import json, os, time",
        "from openai import OpenAI",
        "",
        f'client = OpenAI(base_url="{root}/v1", api_key=os.environ["MAAS_API_KEY"])',
        *(_read_picture(root) if task == "image-classification" else []),
        "line = {",
        f'    "custom_id": "1", "method": "POST", "url": "{url}",',
        f'    "body": {{"model": "{model}", "{field}": {inputs}}},',
        "}",
        'file = client.files.create(file=("lines.jsonl", json.dumps(line).encode()), purpose="batch")',
        f'batch = client.batches.create(input_file_id=file.id, endpoint="{url}", completion_window="24h")',
        'while batch.status not in ("completed", "failed", "expired", "cancelled"):',
        "    time.sleep(1)",
        "    batch = client.batches.retrieve(batch.id)",
        "print(client.files.content(batch.output_file_id).text)",
    ]
    return Snippet("openai", "Batch with openai", "\n".join(lines))


def _openai_embeddings(root: str, model: str, sample: Any) -> Snippet:
    lines = [
        "# pip install openai",
        "import os",
        "from openai import OpenAI",
        "",
        f'client = OpenAI(base_url="{root}/v1", api_key=os.environ["MAAS_API_KEY"])',
        f'answer = client.embeddings.create(model="{model}", input={_literal(sample, 0)})',
        "for one in answer.data:",
        "    print(len(one.embedding), one.embedding[:8])",
    ]
    return Snippet("python", "Python", "\n".join(lines))


def _curl(root: str, body: dict[str, Any], path: str = PREDICTIONS) -> str:
    text = json.dumps(body, ensure_ascii=False, indent=2)
    headers = [f'-H "Authorization: Bearer {SECRET}"', '-H "Content-Type: application/json"']
    return " \\\n  ".join([f"curl {root}{path}", *headers, f"-d {shlex.quote(text)}"])


def _curl_picture(root: str, model: str) -> str:
    head = f'{{"model": "{model}", "inputs": "'
    return "\n".join(
        [
            f"curl -so sample.png {root}/{PICTURE}",
            f"curl {root}/v1/predictions \\",
            f'  -H "Authorization: Bearer {SECRET}" \\',
            '  -H "Content-Type: application/json" \\',
            f"""  -d '{head}'"$(base64 < sample.png | tr -d '\\n')"'"}}'""",
        ]
    )


def _python(root: str, body: dict[str, Any]) -> str:
    return "\n".join([*_imports("json, os, urllib.request"), *_send(root, _literal(body, 4))])


def _python_picture(root: str, model: str) -> str:
    body = f'{{"model": "{model}", "inputs": picture}}'
    return "\n".join([*_imports("base64, json, os, urllib.request"), "", *_read_picture(root)[1:], *_send(root, body)])


def _imports(names: str) -> list[str]:
    return ["# Python 3.9 or later, standard library only", f"import {names}"]


def _read_picture(root: str) -> list[str]:
    read = f'picture = base64.b64encode(urllib.request.urlopen("{root}/{PICTURE}").read()).decode()'
    return ["import base64, urllib.request", read]


def _send(root: str, body: str) -> list[str]:
    return [
        "",
        "request = urllib.request.Request(",
        f'    "{root}/v1/predictions",',
        f"    data=json.dumps({body}).encode(),",
        '    headers={"Authorization": "Bearer " + os.environ["MAAS_API_KEY"],',
        '             "Content-Type": "application/json"})',
        "print(json.load(urllib.request.urlopen(request)))",
    ]


def _literal(value: Any, indent: int) -> str:
    """A JSON value of texts, objects and lists as Python, wrapped as its author would."""
    text = json.dumps(value, ensure_ascii=False, indent=4)
    return text.replace("\n", "\n" + " " * indent) if len(text) > 60 else json.dumps(value, ensure_ascii=False)


TOKEN = re.compile(
    r"""(?P<comment>(?m:^\#.*$))|(?P<key>"[^"\\\n]*"(?=\s*:))|(?P<string>"(?:[^"\\\n]|\\.)*")"""
    r"""|(?P<word>\b(?:import|from|while|not|in|print|export)\b(?=[\s(]))"""
)
TAGS = {"comment": "i", "key": "em", "string": "b", "word": "em"}


def colour(text: str) -> SafeString:
    """Code as HTML: comments, strings and names stand out; everything is escaped."""
    parts, end = [], 0
    for found in TOKEN.finditer(text):
        tag = TAGS[str(found.lastgroup)]
        parts += [escape(text[end : found.start()]), f"<{tag}>{escape(found[0])}</{tag}>"]
        end = found.end()
    return mark_safe("".join([*parts, escape(text[end:])]))  # noqa: S308  # every piece was escaped above


def as_json(value: Any, *, longest: int = 400) -> SafeString:
    """A value as coloured JSON; long texts (pictures) and lists of numbers are cut with an ellipsis."""
    return colour(json.dumps(_cut(value, longest), ensure_ascii=False, indent=2))


def _cut(value: Any, longest: int) -> Any:
    if isinstance(value, str) and len(value) > longest:
        return value[:60] + "…"
    if isinstance(value, dict):
        return {name: _cut(inner, longest) for name, inner in value.items()}
    if isinstance(value, list) and len(value) > LONGEST_LIST and isinstance(value[0], float):
        return [*value[:6], f"… {len(value) - 6} more"]
    return [_cut(inner, longest) for inner in value] if isinstance(value, list) else value
