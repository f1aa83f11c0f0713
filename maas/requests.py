"""What every request gets: an identifier that the answer carries and the logs show."""

from collections.abc import Callable

import structlog
from django.http import HttpRequest, HttpResponse

from maas import ids


class RequestId:
    """Put `request.request_id` on the request and `x-request-id` on the answer."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request.request_id = ids.encode(ids.REQUEST, ids.uuid7())  # type: ignore[attr-defined]
        with structlog.contextvars.bound_contextvars(request_id=request.request_id):  # type: ignore[attr-defined]
            response = self.get_response(request)
        response["x-request-id"] = request.request_id  # type: ignore[attr-defined]
        return response
