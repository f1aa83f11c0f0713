"""/stripe/webhook."""

import structlog
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from apps.payments import inbox
from maas import errors

log = structlog.get_logger(__name__)
LARGEST = 2**20  # bytes of an event; Stripe's are a few thousand


@csrf_exempt
def webhook(request: HttpRequest) -> HttpResponse:
    """Take an event of Stripe's: its signature is what lets it in. 200 says that it is stored, for a repeat too."""
    try:
        if request.method != "POST":
            raise errors.MethodNotAllowed(f"{request.method} does not work here. Use POST.")
        made = inbox.receive(_body(request), request.headers.get("Stripe-Signature"))
    except errors.MaasError as error:
        log.warning("a stripe event was refused", code=error.code)
        return JsonResponse(error.body(getattr(request, "request_id", None)), status=error.status)
    return JsonResponse({"received": True, "repeated": not made})


def _body(request: HttpRequest) -> bytes:
    """The bytes as they came: any other spelling of them has another signature."""
    length = request.headers.get("Content-Length") or "0"
    if not length.isdecimal() or int(length) > LARGEST:
        raise errors.TooLarge("An event of Stripe's is smaller than 1 MB.")
    try:
        return request.body
    except RequestDataTooBig:
        raise errors.TooLarge("An event of Stripe's is smaller than 1 MB.") from None
