"""The current tenant of a dashboard session."""

from collections.abc import Callable
from uuid import UUID

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from apps.accounts import impersonation, services
from apps.accounts.roles import user_actor
from apps.accounts.second_factor import has_second_factor
from maas import errors
from maas.actors import current_actor, set_actor
from maas.missing import API

SESSION_KEY = "tenant"


def lacks_second_factor(request: HttpRequest) -> bool:
    """Whether the member may not work here before they have set up the second factor that the organisation asks for."""
    tenant = request.tenant  # type: ignore[attr-defined]
    return bool(tenant and tenant.require_mfa and not has_second_factor(request.user))  # type: ignore[arg-type]


class CurrentTenant:
    """Put `request.tenant` and `request.membership` on every request; both are None without a session.

    Membership is read anew each time: a member who was removed loses access with the next request. A request with a
    key is not looked up here; authentication sets its tenant. An operator who looks at an organisation has `request.visit`,
    and whatever is not reading ends here.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request.tenant = request.membership = request.visit = None  # type: ignore[attr-defined]
        if "HTTP_AUTHORIZATION" not in request.META and request.user.is_authenticated:
            self._find(request)
        response = self._refuse(request) or self.get_response(request)
        if request.tenant is not None:  # type: ignore[attr-defined]
            response.headers.setdefault("Cache-Control", "private")  # a proxy's cache must not hand it to anybody else
        return response

    def _find(self, request: HttpRequest) -> None:
        if self._look(request):
            return
        chosen = request.session.get(SESSION_KEY)
        member = services.get_membership(request.user, UUID(chosen) if chosen else None)  # type: ignore[arg-type]
        if member is not None:
            request.membership, request.tenant = member, member.tenant  # type: ignore[attr-defined]
        before = current_actor()
        set_actor(user_actor(request.user, member, address=before.address, request_id=before.request_id))  # type: ignore[arg-type]

    def _look(self, request: HttpRequest) -> bool:
        """Whether this is an operator who looks at an organisation, which then is the current one."""
        visit = request.visit = impersonation.current_visit(request)  # type: ignore[attr-defined]
        if visit is None:
            return False
        request.membership, request.tenant = impersonation.as_viewer(visit), visit.tenant  # type: ignore[attr-defined]
        set_actor(impersonation.visitor_actor(visit))
        return True

    def _refuse(self, request: HttpRequest) -> HttpResponse | None:
        try:
            if request.visit is not None:  # type: ignore[attr-defined]
                impersonation.check_method(request)
        except errors.Forbidden as error:
            return _answer(request, error)
        return None


def _answer(request: HttpRequest, error: errors.MaasError) -> HttpResponse:
    """JSON under the API, a page elsewhere, a note where htmx asked for a part of one."""
    if request.path.startswith(API):
        return JsonResponse(error.body(request.request_id), status=error.status)  # type: ignore[attr-defined]
    template = "parts/error_note.html" if getattr(request, "htmx", False) else "error.html"
    return render(request, template, {"error": error, "title": _("Not allowed")}, status=error.status)
