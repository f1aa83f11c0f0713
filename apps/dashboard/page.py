"""What every page stands on: a signed-in member of an organisation, and errors that become pages."""

from collections.abc import Callable
from functools import wraps
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django_htmx.http import HttpResponseClientRedirect
from django_htmx.middleware import HtmxDetails

from apps.accounts.middleware import lacks_second_factor
from apps.accounts.services import Membership, Tenant, User
from maas import errors, ids
from maas.actors import bar, current_actor
from maas.api import storage_away
from maas.storage import StorageAway

STOP_POLLING = 286  # htmx swaps the answer in and asks no more


class MemberRequest(HttpRequest):
    """A request as the middleware leaves it for a signed-in member."""

    user: User
    tenant: Tenant
    membership: Membership
    htmx: HtmxDetails
    request_id: str


View = Callable[..., HttpResponse]


def page(*methods: str, viewers: bool = False, own: bool = False) -> Callable[[View], View]:
    """A view for members, answering these methods (GET if none is named).

    Anybody else goes to sign-in, a viewer who would change something gets 403 unless `viewers` may, a member without the
    second factor that the organisation asks for goes to set one up, and a `MaasError` becomes a page. What a role may change in
    detail is for the services to say. An `own` page is about the person: it needs neither organisation nor second factor.
    """
    allowed = methods or ("GET",)

    def wrap(view: View) -> View:
        @wraps(view)
        def run(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if request.method not in (*allowed, "HEAD" if "GET" in allowed else ""):
                return HttpResponseNotAllowed(allowed)
            return _turn_away(request, own) or _answer(view, viewers, request, *args, **kwargs)

        return run

    return wrap


def _turn_away(request: HttpRequest, own: bool) -> HttpResponse | None:
    if not request.user.is_authenticated:
        to_login = redirect_to_login(request.get_full_path())
        return HttpResponseClientRedirect(to_login["Location"]) if request.htmx else to_login  # type: ignore[attr-defined]
    if own:
        return None
    if request.tenant is None:  # type: ignore[attr-defined]
        return redirect("new_organisation")
    if lacks_second_factor(request):
        messages.warning(request, _("%(tenant)s asks for a second factor. Add one to go on.") % {"tenant": request.tenant.slug})  # type: ignore[attr-defined]
        return HttpResponseClientRedirect("/account") if request.htmx else redirect("account")  # type: ignore[attr-defined]
    return None


def _answer(view: View, viewers: bool, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
    try:
        if request.method == "POST":
            require_unbarred()
            if not viewers:
                require_writer(request)
        return view(request, *args, **kwargs)
    except errors.MaasError as error:
        return error_page(request, error)
    except StorageAway:
        return error_page(request, storage_away())


def may_write(request: HttpRequest) -> bool:
    """Whether the member may change anything here; the REST API has the same rule for sessions."""
    member = getattr(request, "membership", None)
    return member is not None and member.role != "viewer" and not current_actor().barred


def require_unbarred() -> None:
    """Raises Forbidden while the organisation is suspended, and for an operator who looks at it."""
    code = current_actor().barred
    if code:
        raise bar(code)


def require_writer(request: HttpRequest) -> None:
    """Raises Forbidden for a viewer, and while nobody may change anything here."""
    require_unbarred()
    if not may_write(request):
        raise errors.Forbidden(
            _("Your role in this organisation is viewer, which only reads. An owner can change it."),
            code="role_forbids",
        )


def read_id(prefix: str, text: str) -> UUID:
    """The UUID in an address; NotFound for any other text."""
    found = ids.decode(prefix, text)
    if found is None:
        raise errors.NotFound(_("There is nothing at this address."))
    return found


TITLES = {
    400: gettext_lazy("That request does not fit"),
    403: gettext_lazy("Not allowed"),
    404: gettext_lazy("There is nothing here"),
    500: gettext_lazy("This page failed on our side"),
    503: gettext_lazy("Not available right now"),
}


def error_page(request: HttpRequest, error: errors.MaasError) -> HttpResponse:
    """The error in the frame, or as a note where htmx asked for a part of a page."""
    template = "parts/error_note.html" if getattr(request, "htmx", False) else "error.html"
    title = TITLES.get(error.status) or TITLES[400]
    response = render(request, template, {"error": error, "title": title}, status=error.status)
    response["Cache-Control"] = "no-store"
    return response
