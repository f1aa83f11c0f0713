"""The ground that every REST endpoint stands on: authentication by scope, strict bodies, one error shape, lists."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, NoReturn
from uuid import UUID

import structlog
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.http import Http404, UnreadablePostError
from drf_spectacular.utils import inline_serializer
from rest_framework import exceptions, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from maas import errors, ids
from maas.storage import StorageAway

log = structlog.get_logger(__name__)


class TenantRequest(Request):
    """A request whose caller is known: an `accounts.Tenant`, and the `accounts.ApiKey` unless a session called."""

    tenant: Any
    key: Any
    claim: Any = None  # see apps.idempotency.api
    found: tuple[UUID | None, ...] = ()  # see apps.inference.direct


class MaasView(APIView):
    """A REST endpoint. `required_scope` is what a key needs; `request.tenant` and `request.key` say who calls."""

    required_scope: ClassVar[str] = ""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        request.tenant = request._request.tenant  # type: ignore[attr-defined]
        request.key = request.auth  # type: ignore[attr-defined]
        request.found = ()  # type: ignore[attr-defined]

    def http_method_not_allowed(self, request: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise errors.MethodNotAllowed(f"{request.method} does not work here. Use {', '.join(self.allowed_methods)}.")


class StrictSerializer(serializers.Serializer):
    """A body in which an unknown field is an error that names it."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict):
            for name in data:
                if name not in self.fields:
                    message = f"Unknown field '{name}'. Known: {', '.join(self.fields)}."
                    raise errors.BadRequest(message, param=str(name), code="unknown_field")
        return super().to_internal_value(data)


def read_body(serializer: type[serializers.Serializer], request: Request, *, partial: bool = False) -> dict[str, Any]:
    """The validated body of a request; with `partial` every field may be missing.

    Raises BadRequest with the first field that does not fit.
    """
    bound = serializer(data=request.data, partial=partial)
    bound.is_valid(raise_exception=True)
    return bound.validated_data  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Page:
    """Where a list starts and how long it is."""

    limit: int
    after: str | None
    order: str


def read_page(request: Request, *, largest: int = 100, default: int = 20) -> Page:
    """`limit`, `after` and `order` of the query string; BadRequest when one does not fit."""
    text = request.query_params.get("limit", str(default))
    if not text.isdecimal() or not 1 <= int(text) <= largest:
        raise errors.BadRequest(f"'limit' must be a whole number from 1 to {largest}.", param="limit")
    order = request.query_params.get("order", "desc")
    if order not in {"asc", "desc"}:
        raise errors.BadRequest("'order' must be 'asc' or 'desc'.", param="order")
    return Page(int(text), request.query_params.get("after") or None, order)


def read_cursor(page: Page, prefix: str) -> UUID | None:
    """The row after which a list goes on, for identifiers with this prefix."""
    if page.after is None:
        return None
    found = ids.decode(prefix, page.after)
    if found is None:
        raise errors.BadRequest(f"'after' must be an id such as {prefix}0199...", param="after")
    return found


def listing(data: list[dict[str, Any]], *, has_more: bool = False) -> dict[str, Any]:
    """A list as OpenAI's clients page through it."""
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"object": "list", "data": data, **ends, "has_more": has_more}


def list_of(row: type[serializers.Serializer]) -> serializers.Serializer:
    """The documented shape of `listing`: `KeyOutput` rows make a `KeyList`."""
    fields = {
        "object": serializers.CharField(),
        "data": row(many=True),
        "first_id": serializers.CharField(allow_null=True),
        "last_id": serializers.CharField(allow_null=True),
        "has_more": serializers.BooleanField(),
    }
    return inline_serializer(row.__name__.replace("Output", "List"), fields)  # type: ignore[arg-type]


def seconds(moment: datetime | None) -> int | None:
    """Unix seconds."""
    return int(moment.timestamp()) if moment else None


def require_id(prefix: str, text: str, kind: str) -> UUID:
    """The UUID in an address; NotFound for any other text."""
    found = ids.decode(prefix, text)
    if found is None:
        raise errors.NotFound(f"There is no {kind} '{text}'.", param="id")
    return found


# ---------- errors ----------
def render_exception(exception: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler: whatever was raised becomes the one error shape."""
    error = as_error(exception)
    request = context["request"]._request
    response = Response(error.body(request.request_id), status=error.status, content_type="application/json")
    if error.retry_after:
        response["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        response["WWW-Authenticate"] = "Bearer"  # RFC 9110, section 11.6.1
    response.exception = True
    return response


def as_error(exception: Exception) -> errors.MaasError:
    """The error that the caller reads. What nobody foresaw is logged with its traceback and told as ours."""
    if isinstance(exception, errors.MaasError):
        return exception
    if isinstance(exception, exceptions.ValidationError):
        return _first_field(exception.detail, "")
    if isinstance(exception, RequestDataTooBig):
        return errors.TooLarge("The body is larger than 32 MB. Upload large inputs as a file or split the call.")
    if isinstance(exception, UnreadablePostError):
        return errors.BadRequest("The body broke off before its end. Send it again.", code="broken_body")
    if isinstance(exception, SuspiciousOperation):  # such as a form of more fields than anybody needs
        return errors.BadRequest(str(exception))
    if isinstance(exception, Http404):
        return errors.NotFound("There is nothing at this address.")
    if isinstance(exception, exceptions.APIException):
        return _foreign(exception)
    if isinstance(exception, StorageAway):
        log.warning("storage is away", error=str(exception))
        return storage_away()
    log.exception("unhandled error")
    return errors.Internal("Something failed on our side. Nothing was charged; the call can be sent again.")


def storage_away() -> errors.Unavailable:
    """What a caller reads while the place where files lie cannot be reached."""
    return errors.Unavailable(
        "Files cannot be stored or read right now. Nothing was changed; try again.", code="storage_unavailable", retry_after=5
    )


def _foreign(exception: exceptions.APIException) -> errors.MaasError:
    kinds = {kind.status: kind for kind in (errors.Unauthenticated, errors.Forbidden, errors.MethodNotAllowed, errors.Unsupported)}
    return kinds.get(exception.status_code, errors.BadRequest)(str(exception.detail))


def _first_field(detail: Any, path: str) -> errors.BadRequest:
    """Walk DRF's tree of messages down to the first one; the way there is the field's name."""
    if isinstance(detail, dict):
        name, inner = next(iter(detail.items()))
        step = "" if name == "non_field_errors" else f"[{name}]" if isinstance(name, int) else f".{name}"
        return _first_field(inner, (path + step).lstrip("."))
    if isinstance(detail, list) and any(isinstance(item, dict | list) and item for item in detail):
        index = next(i for i, item in enumerate(detail) if item)
        return _first_field(detail[index], f"{path}[{index}]")
    message = detail[0] if isinstance(detail, list) and detail else detail
    code = "missing_field" if getattr(message, "code", "") == "required" else "invalid_value"
    return errors.BadRequest(f"{path or 'body'}: {message}", param=path or None, code=code)
