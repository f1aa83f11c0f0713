"""Requests to Stripe, read and checked against the SDK's own types: what those do not know, Stripe would not either."""

import importlib
import re
import typing
from functools import cache
from types import UnionType
from typing import Any
from urllib.parse import parse_qsl

import stripe
import typing_extensions
from pydantic import ConfigDict, TypeAdapter, ValidationError
from stripe import _request_options, _stripe_object
from stripe._stripe_context import StripeContext

OPTIONS = set(_request_options.RequestOptions.__annotations__)  # of a call, such as its idempotency key: never sent
NAMES = {
    **vars(typing), **{name: getattr(stripe, name) for name in dir(stripe) if not name.startswith("__")},
    **vars(_request_options), **vars(_stripe_object), "StripeContext": StripeContext,
}  # fmt: skip


def decode(text: str) -> Any:
    """A query or a form as nested values: `a[b][0][c]=1` is `{"a": {"b": [{"c": "1"}]}}`. All leaves are texts."""
    root: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        head, *rest = re.findall(r"[^\[\]]+", name)
        place = root
        for here, _next in zip([head, *rest], rest, strict=False):
            place = place.setdefault(here, {})
        place[[head, *rest][-1]] = value
    return _with_lists(root)


def _with_lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    made = {name: _with_lists(inner) for name, inner in value.items()}
    if made and all(name.isdecimal() for name in made):
        return [made[name] for name in sorted(made, key=int)]
    return made


def checked(parameters: str, sent: Any) -> dict[str, Any]:
    """What was sent, with the types that `module:Class` below stripe.params wants. Raises ValueError that names what does not fit."""
    try:
        return _adapter(parameters).validate_python(sent)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{parameters.rpartition(':')[2]}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


@cache
def _adapter(parameters: str) -> TypeAdapter[Any]:
    module, name = parameters.split(":")
    return TypeAdapter(_Strict().of(getattr(importlib.import_module(f"stripe.params.{module}"), name)))


class _Strict:
    """Builds types that refuse unknown names out of the SDK's, in which every field is looked up by the module it stands in."""

    def __init__(self) -> None:
        self.made: dict[Any, Any] = {}

    def of(self, kind: Any) -> Any:
        if kind not in self.made:
            self.made[kind] = Any  # while it is built, for types that hold themselves
            names = {**NAMES, **vars(importlib.import_module(kind.__module__))}
            hints = typing_extensions.get_type_hints(kind, globalns=names, include_extras=True)
            fields = {name: self.convert(hint) for name, hint in hints.items() if name not in OPTIONS}
            made = typing_extensions.TypedDict(kind.__name__, fields)  # type: ignore[operator]
            made.__pydantic_config__ = ConfigDict(extra="forbid")
            self.made[kind] = made
        return self.made[kind]

    def convert(self, hint: Any) -> Any:
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        if typing_extensions.is_typeddict(hint):
            return self.of(hint)
        if origin in (typing_extensions.NotRequired, typing_extensions.Required):
            return origin[self.convert(inner[0])]
        if origin in (typing.Union, UnionType):
            return typing.Union[tuple(self.convert(one) for one in inner if not _is_answer(one))]  # noqa: UP007
        if origin is list:
            return list[self.convert(inner[0])]  # type: ignore[misc]
        if origin is dict:
            return dict[self.convert(inner[0]), self.convert(inner[1])]  # type: ignore[misc]
        return hint


def _is_answer(hint: Any) -> bool:
    """Types of answers stand among those of requests, so that an answer can be sent back."""
    kind = typing.get_origin(hint) or hint
    return isinstance(kind, type) and issubclass(kind, _stripe_object.StripeObject)
