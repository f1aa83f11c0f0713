"""The current tenant of a dashboard session."""

from collections.abc import Callable
from uuid import UUID

from django.http import HttpRequest, HttpResponse

from apps.accounts import services
from apps.accounts.roles import user_actor
from apps.accounts.second_factor import has_second_factor
from maas.actors import current_actor, set_actor

SESSION_KEY = "tenant"


def lacks_second_factor(request: HttpRequest) -> bool:
    """Whether the member may not work here before they have set up the second factor that the organisation asks for."""
    tenant = request.tenant  # type: ignore[attr-defined]
    return bool(tenant and tenant.require_mfa and not has_second_factor(request.user))  # type: ignore[arg-type]


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
        response = self.get_response(request)
        if request.tenant is not None:  # type: ignore[attr-defined]
            response.headers.setdefault("Cache-Control", "private")  # a proxy's cache must not hand it to anybody else
        return response

    def _find(self, request: HttpRequest) -> None:
        chosen = request.session.get(SESSION_KEY)
        member = services.get_membership(request.user, UUID(chosen) if chosen else None)  # type: ignore[arg-type]
        if member is not None:
            request.membership, request.tenant = member, member.tenant  # type: ignore[attr-defined]
        before = current_actor()
        set_actor(user_actor(request.user, member, address=before.address, request_id=before.request_id))  # type: ignore[arg-type]
