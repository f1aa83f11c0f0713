"""Where calls of the REST API are counted: at the door, or in the service for those that cost units.

The class is named in the settings of Django REST framework, so this module must not import its views.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle

from apps.billing.rates import count_call
from maas.metering import current_meter


class CountRequests(BaseThrottle):
    """Count every call of a known caller as one request; those that `counts_units` marks come later."""

    def allow_request(self, request: Request, view: Any) -> bool:
        tenant, meter = request._request.tenant, current_meter()  # type: ignore[attr-defined]
        if tenant is None or meter is None:
            return True
        meter.key = request.auth
        if not getattr(getattr(view, str(request.method).lower(), None), "counts_units", False):
            count_call(tenant)
        return True


def counts_units(post: Callable[..., Response]) -> Callable[..., Response]:
    """Mark a POST whose service counts request and units in one trip once it knows the units.

    What ends before that, by a mistake in the body or with the stored answer of an Idempotency-Key, is one request.
    """

    @wraps(post)
    def counted(view: Any, request: Any, *args: Any, **kwargs: Any) -> Response:
        try:
            return post(view, request, *args, **kwargs)
        finally:
            meter = current_meter()
            if meter and not meter.is_counted:
                count_call(request.tenant)  # RateLimited takes the place of what the call would have said

    counted.counts_units = True  # type: ignore[attr-defined]
    return counted
