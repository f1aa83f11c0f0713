"""Asks servers for all inputs and compares what they say: a figure counts only when all of them do the same work."""

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from bench.online.load import Target

TOLERANCE = 1e-4
AT_ONCE = 8  # calls at a time, so that answers from batches are compared as well


class Refused(RuntimeError):
    """An answer that was not a 2xx; the message holds it."""


class Different(RuntimeError):
    """Two servers gave different answers to the same input; the message shows both."""


def ask(target: Target, value: Any) -> Any:
    """The whole answer to one input, as JSON. Refused for an error, OSError where nobody answers."""
    return json.loads(_post(target, value)[1])


def headers_of(target: Target, value: Any) -> dict[str, str]:
    """The headers of an answer, their names in small letters."""
    return _post(target, value)[0]


def _post(target: Target, value: Any) -> tuple[dict[str, str], bytes]:
    connection = http.client.HTTPConnection(urlsplit(target.url).netloc, timeout=60)
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {target.key}"} if target.key else {})}
    try:
        connection.request("POST", target.path, json.dumps(target.body(value)), headers)
        answer = connection.getresponse()
        text = answer.read()
    except http.client.HTTPException as error:
        raise OSError(f"no answer: {error!r}") from None
    finally:
        connection.close()
    if not 200 <= answer.status < 300:
        raise Refused(f"{answer.status} {text[:500].decode(errors='replace')}")
    return {name.lower(): content for name, content in answer.getheaders()}, text


def ask_all(target: Target, inputs: list[Any]) -> list[Any]:
    """The whole answers to all inputs, some at a time."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda value: ask(target, value), inputs))


def compare(name: str, found: list[Any], wanted: list[Any]) -> None:
    """Different unless texts and places are equal and numbers within TOLERANCE of those of the reference."""
    for row, (one, other) in enumerate(zip(found, wanted, strict=True)):
        if not alike(one, other):
            shown, expected = json.dumps(one)[:400], json.dumps(other)[:400]
            raise Different(f"{name} answers input {row} with\n  {shown}\nand the bare model with\n  {expected}")


def alike(one: Any, other: Any) -> bool:
    """Equal in shape and texts, floating-point numbers within TOLERANCE."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) or isinstance(other, float):
        return isinstance(other, int | float) and isinstance(one, int | float) and abs(one - other) <= TOLERANCE
    return bool(one == other)
