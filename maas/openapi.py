"""What goes into the OpenAPI document: the REST API, not the pages, and the one shape of its errors."""

from typing import Any

ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code", "request_id"],
            "properties": {
                "message": {"type": "string", "description": "What is wrong and what to do."},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "The field, such as inputs[3].question."},
                "code": {"type": "string", "description": "For programs."},
                "request_id": {"type": ["string", "null"], "description": "Also in the header x-request-id."},
            },
        }
    },
}

IDEMPOTENCY_KEY = {
    "in": "header",
    "name": "Idempotency-Key",
    "schema": {"type": "string", "maxLength": 255},
    "description": "Send the same key with a repeat: it gets the first answer for 24 hours, and nothing is made twice.",
}


def only_rest(endpoints: list[tuple[str, str, str, Any]]) -> list[tuple[str, str, str, Any]]:
    """Keep the endpoints under /v1."""
    return [endpoint for endpoint in endpoints if endpoint[0].startswith("/v1/")]


def with_errors(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Every operation may answer with an error, and all errors look the same."""
    result["components"].setdefault("schemas", {})["Error"] = ERROR
    answer = {"description": "An error", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    for operations in result["paths"].values():
        for operation in operations.values():
            operation["responses"]["default"] = answer
    return result


def with_idempotency(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Name the header on every operation that honours it."""
    for path, _regex, method, callback in generator.endpoints:
        view = getattr(callback, "cls", None)
        if getattr(getattr(view, method.lower(), None), "is_idempotent", False):
            result["paths"][path][method.lower()].setdefault("parameters", []).append(IDEMPOTENCY_KEY)
    return result
