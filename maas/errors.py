"""What can go wrong, and the one shape in which the API says it.

MaasError
├── BadRequest          400  the request is malformed, or names something that does not fit
├── Unauthenticated     401  no key, or one that is not valid
├── PaymentRequired     402  credit, budget or quota is used up: final
├── Forbidden           403  the key or the member may not do this
├── NotFound            404  no such thing, or another tenant's
├── MethodNotAllowed    405
├── Conflict            409  an equal call still runs: try again after `retry_after` seconds
├── TooLarge            413
├── Unsupported         415
├── Unprocessable       422
├── RateLimited         429  try again after `retry_after` seconds
├── Internal            500  ours; nothing was charged
├── Unavailable         503  try again after `retry_after` seconds
│   └── Overloaded      503  the queue of this model is full
└── DeadlineExceeded    504  no answer in time; nothing was charged
"""

from typing import Any


class MaasError(Exception):
    """A failure that the caller can read. `param` names the field (`inputs[3].question`), `code` is for programs."""

    status = 500
    type = "server_error"
    code = "internal_error"
    retry_after: int | None = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.code
        self.retry_after = retry_after or self.retry_after

    def at(self, prefix: str) -> "MaasError":
        """The same error with its field below `prefix`: `question` at `inputs[3]` is `inputs[3].question`."""
        inner = self.param or ""
        self.param = prefix + (inner if not inner or inner.startswith("[") else f".{inner}")
        return self

    def body(self, request_id: str | None) -> dict[str, Any]:
        """The JSON that the API answers with."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code, "request_id": request_id}}


class BadRequest(MaasError):
    status, type, code = 400, "invalid_request_error", "invalid_request"


class Unauthenticated(MaasError):
    status, type, code = 401, "authentication_error", "invalid_api_key"


class PaymentRequired(MaasError):
    status, type, code = 402, "billing_error", "quota_exceeded"


class Forbidden(MaasError):
    status, type, code = 403, "permission_error", "forbidden"


class NotFound(MaasError):
    status, type, code = 404, "invalid_request_error", "not_found"


class MethodNotAllowed(MaasError):
    status, type, code = 405, "invalid_request_error", "method_not_allowed"


class Conflict(MaasError):
    status, type, code = 409, "invalid_request_error", "conflict"
    retry_after = 1


class TooLarge(MaasError):
    status, type, code = 413, "invalid_request_error", "too_large"


class Unsupported(MaasError):
    status, type, code = 415, "invalid_request_error", "unsupported_media_type"


class Unprocessable(MaasError):
    status, type, code = 422, "invalid_request_error", "unprocessable"


class RateLimited(MaasError):
    status, type, code = 429, "rate_limit_error", "rate_limited"
    retry_after = 1


class Internal(MaasError):
    status, type, code = 500, "server_error", "internal_error"


class Unavailable(MaasError):
    status, type, code = 503, "server_error", "unavailable"
    retry_after = 2


class Overloaded(Unavailable):
    code = "queue_full"


class DeadlineExceeded(MaasError):
    status, type, code = 504, "server_error", "deadline_exceeded"
