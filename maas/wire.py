"""How the REST API reads and writes: JSON by orjson whatever the headers say, and the scope that a key needs.

These are named in the settings of Django REST framework, so this module must not import its views.
"""

from collections.abc import Collection
from typing import Any

import orjson
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.permissions import BasePermission
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from maas import errors


class OrjsonRenderer(BaseRenderer):
    """JSON by orjson."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> bytes:
        return b"" if data is None else orjson.dumps(data, option=orjson.OPT_NON_STR_KEYS)


class FirstRenderer(BaseContentNegotiation):
    """Answer with the view's own format whatever Accept says: openai asks for application/binary, and takes JSON errors."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        kind = (request.content_type or "").split(";")[0].strip()
        return next((parser for parser in parsers if parser.media_type in {"*/*", kind}), None)

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


class JsonParser(BaseParser):
    """A JSON object, whatever Content-Type says; an empty body is an empty object (openai sends one with cancel)."""

    media_type = "*/*"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> dict[str, Any]:
        body = parser_context["request"]._request.body if parser_context else stream.read()
        return read_object(body)


def read_object(body: bytes) -> dict[str, Any]:
    """A JSON object from bytes.

    Raises BadRequest that says where the text stops being JSON.
    """
    if not body.strip():
        return {}
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise errors.BadRequest(f"The body is not valid JSON: {error}.", code="invalid_json") from None
    if not isinstance(value, dict):
        raise errors.BadRequest("The body must be a JSON object.", code="invalid_json")
    return value


def check_names(body: dict[str, Any], known: Collection[str]) -> None:
    """BadRequest that names the first field of a body that is not known."""
    for name in body:
        if name not in known:
            raise errors.BadRequest(f"Unknown field '{name[:100]}'. Known: {', '.join(known)}.", param=name[:100], code="unknown_field")


class HasScope(BasePermission):
    """Let a caller through whose key has the view's scope. A member in a session has them all but what a role forbids."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if getattr(request, "_request", request).tenant is None:  # type: ignore[union-attr]
            raise _missing_key()
        key: Any = request.auth
        scope = view.required_scope
        if key is not None and scope and scope not in key.scopes:
            raise errors.Forbidden(f"This key lacks the scope '{scope}'. Make one that has it.", code="missing_scope")
        return True


def _missing_key() -> errors.Unauthenticated:
    """What a caller without any credentials is told."""
    return errors.Unauthenticated("Send your API key in the header 'Authorization: Bearer maas_...'.", code="missing_api_key")
