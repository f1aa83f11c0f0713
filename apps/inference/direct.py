"""REST endpoints that are called so often that each layer between the caller and the model counts.

Authentication, scopes, rate limits, errors and the documented schema are those of every other endpoint; what a key's POST
goes without is the rest of REST framework's round: negotiation, a second request object, templates of answers.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from rest_framework.response import Response

from apps.accounts import keys
from apps.accounts.authentication import KeyAuthentication, read_secret
from apps.billing.throttling import CountRequests
from apps.catalog import services as catalog
from apps.inference import remembering
from maas import errors
from maas.api import MaasView, render_exception
from maas.wire import HasScope, OrjsonRenderer, read_object

OPEN = "SELECT * FROM maas_open_call($1, $2, $3, $4)"
UNKNOWN = "maas.unknown"  # in the scope of a call that the fast lane declined because it remembers too little
READ_FIRST = 64 * 1024  # bytes of a body that is read before it is known who calls: then the model is looked up in the same trip


class Asked:
    """A key's POST as views and decorators of REST framework see one."""

    claim: Any = None  # see apps.idempotency.api

    def __init__(self, request: HttpRequest) -> None:
        self._request, self.META, self.method = request, request.META, request.method
        self.tenant: Any = None
        self.auth: Any = None
        self._data: dict[str, Any] | None = None

    @property
    def key(self) -> Any:
        return self.auth

    @property
    def found(self) -> tuple[UUID | None, ...]:
        """The version that the body names, if it was looked for already."""
        return self._request.caller.aside  # type: ignore[attr-defined,no-any-return]

    @property
    def data(self) -> dict[str, Any]:
        """The body; BadRequest when it is not a JSON object."""
        if self._data is None:
            self._data = read_object(self._request.body)
        return self._data

    def get_full_path(self) -> str:
        return self._request.get_full_path()

    def named_model(self) -> Any:
        """What a small body names as its model, None when that cannot be told yet."""
        if int(self.META.get("CONTENT_LENGTH") or 0) > READ_FIRST:
            return None
        try:
            return self.data.get("model")
        except Exception:  # told in its turn, once it is known who calls
            return None


class DirectView(MaasView):
    """A REST endpoint whose POSTs with a key go straight to `post`; all else goes REST framework's way."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]
        if request.method != "POST" or "HTTP_AUTHORIZATION" not in request.META:
            return super().dispatch(request, *args, **kwargs)
        asked = Asked(request)
        try:
            with self._remembering(asked):
                self._let_in(asked)
            answer = self.post(asked)  # type: ignore[attr-defined]
        except Exception as error:
            answer = render_exception(error, {"request": asked})
        return plain(answer)

    @contextmanager
    def _remembering(self, asked: Asked) -> Iterator[None]:
        """When the fast lane declined a call because it did not know it, it will know the next one like it; also while this one
        waits for its answer, or else all of them would wait in threads when answers take long."""
        if not asked.META.get("asgi.scope", {}).get(UNKNOWN):
            yield
            return
        secret = read_secret(asked.META["HTTP_AUTHORIZATION"])
        begun = remembering.begin(secret)
        yield
        reference, caller = asked.data["model"], asked._request.caller  # type: ignore[attr-defined]
        with suppress(errors.MaasError):  # told in its turn, when the body is checked
            version = catalog.resolve(caller.tenant, reference, allowed=caller.key.allowed_models, found=caller.aside)
            remembering.keep(secret, reference, caller, version, begun)

    def _let_in(self, asked: Any) -> None:
        """Who calls, whether they may, and whether not too often; the order in which REST framework asks."""
        wanted = catalog.wanted(asked.named_model())
        _, asked.auth = KeyAuthentication().authenticate(asked, (OPEN, wanted) if wanted else keys.FIND)  # type: ignore[misc]
        asked.tenant = asked._request.tenant
        HasScope().has_permission(asked, self)
        CountRequests().allow_request(asked, self)


def plain(answer: Response) -> HttpResponse:
    """The bytes of an answer, with its status and headers."""
    response = HttpResponse(OrjsonRenderer().render(answer.data), status=answer.status_code, content_type="application/json")
    for name, value in answer.headers.items():
        if name != "Content-Type":
            response[name] = value
    return response
