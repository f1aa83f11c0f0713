"""The current tenant of a dashboard session."""

from collections.abc import Callable
from uuid import UUID

from django.http import HttpRequest, HttpResponse

from apps.accounts import services

SESSION_KEY = "tenant"


class CurrentTenant:
    """Put `request.tenant` and `request.membership` on every request; both are None without a session.

    Membership is read anew each time: a member who was removed loses access with the next request. A request with a
    key is not looked up here; authentication sets its tenant.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request.tenant = request.membership = None  # type: ignore[attr-defined]
        if "HTTP_AUTHORIZATION" not in request.META and request.user.is_authenticated:
            self._find(request)
        return self.get_response(request)

    def _find(self, request: HttpRequest) -> None:
        chosen = request.session.get(SESSION_KEY)
        member = services.get_membership(request.user, UUID(chosen) if chosen else None)  # type: ignore[arg-type]
        if member is not None:
            request.membership, request.tenant = member, member.tenant  # type: ignore[attr-defined]
