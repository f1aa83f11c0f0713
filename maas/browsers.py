"""What only browsers need (sessions, forms, languages, pages) stands between two marks in `settings.MIDDLEWARE`.

A key's call to the REST API goes from the first mark to the second.
"""

from collections.abc import Callable
from typing import ClassVar

from django.http import HttpRequest, HttpResponse

from maas.missing import API

GetResponse = Callable[[HttpRequest], HttpResponse]


class BrowsersEnd:
    """The inner mark. Django makes middleware from the inside out, so the outer one finds what this one was given."""

    inside: ClassVar[GetResponse]

    def __init__(self, get_response: GetResponse) -> None:
        BrowsersEnd.inside = self.get_response = staticmethod(get_response)

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)


class BrowsersBegin:
    """The outer mark."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response, self.inside = get_response, BrowsersEnd.inside

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.inside(request) if has_key(request) else self.get_response(request)


def has_key(request: HttpRequest) -> bool:
    """Whether a program calls the REST API with credentials of its own; right or wrong ones is found out later."""
    return "HTTP_AUTHORIZATION" in request.META and request.path_info.startswith(API)
