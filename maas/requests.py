"""What every request gets: an identifier that the answer carries and the logs show, and an actor that is nobody yet."""

import ipaddress
from collections.abc import Callable

import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponse

from maas import ids
from maas.actors import Actor, acting


class RequestId:
    """Put `request.request_id` on the request and `x-request-id` on the answer."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id = request.request_id = ids.encode(ids.REQUEST, ids.uuid7())  # type: ignore[attr-defined]
        nobody = Actor("nobody", address=client_address(request), request_id=request_id)
        with structlog.contextvars.bound_contextvars(request_id=request_id), acting(nobody):
            response = self.get_response(request)
        response["x-request-id"] = request_id
        return response


def client_address(request: HttpRequest) -> str:
    """The caller's IP address: the peer's, or behind our own proxy the last one that it added; empty when it is none."""
    text = request.META.get("REMOTE_ADDR", "")
    if settings.SECURE_PROXY_SSL_HEADER:  # MAAS_BEHIND_PROXY
        text = request.META.get("HTTP_X_FORWARDED_FOR", text).rpartition(",")[2].strip()
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""
