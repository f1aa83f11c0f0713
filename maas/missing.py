"""What an address that leads nowhere answers: JSON under the API, a page elsewhere."""

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string
from django.views import defaults

from maas import errors

API = ("/v1/", "/hf/", "/v2/")


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """404 in the shape that the caller reads."""
    if not request.path.startswith(API):
        return defaults.page_not_found(request, exception)
    return _json(request, errors.NotFound(f"There is nothing at {request.path[:200]}. /api/docs lists every address."))


def server_error(request: HttpRequest) -> HttpResponse:
    """500 in the shape that the caller reads."""
    if not request.path.startswith(API):
        # Django's own would leave out the reference; the template reads nothing else, as what failed may be the database.
        return HttpResponse(render_to_string("500.html", {"request_id": getattr(request, "request_id", None)}), status=500)
    return _json(request, errors.Internal("Something failed on our side. Nothing was charged; the call can be sent again."))


def _json(request: HttpRequest, error: errors.MaasError) -> JsonResponse:
    return JsonResponse(error.body(getattr(request, "request_id", None)), status=error.status)
