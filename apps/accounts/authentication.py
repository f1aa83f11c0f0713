"""Who calls the REST API: the bearer of a key, or a member with a dashboard session."""

from typing import Any

from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.request import Request

from apps.accounts import keys
from apps.accounts.middleware import lacks_second_factor
from apps.accounts.models import ApiKey, Role
from apps.accounts.roles import key_actor
from maas import errors
from maas.actors import bar, current_actor, set_actor
from maas.questions import Question

SAFE = ("GET", "HEAD", "OPTIONS")


class KeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer maas_...`."""

    def authenticate(self, request: Request, opening: Question = keys.FIND) -> tuple[Any, ApiKey] | None:
        """Nobody and the key; None without a header. The request gets all that was found as `caller`."""
        header = request.META.get("HTTP_AUTHORIZATION")
        if header is None:
            return None
        before, inner = current_actor(), request._request
        caller = keys.find_caller(read_secret(header), address=before.address, opening=opening)
        inner.tenant, inner.caller = caller.tenant, caller  # type: ignore[attr-defined]
        set_actor(key_actor(caller.key, address=before.address, request_id=before.request_id))
        return None, caller.key

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def read_secret(header: str) -> str:
    """What stands behind Bearer. A server joins repeated headers by commas, and no key holds one."""
    scheme, _, secret = header.partition(" ")
    if scheme.lower() != "bearer":
        raise errors.Unauthenticated("Use the scheme Bearer: 'Authorization: Bearer maas_...'.")
    if "," in secret:
        message = "The header Authorization came more than once. Send it once."
        raise errors.BadRequest(message, param="Authorization", code="duplicate_header")
    return secret.strip()


class MemberAuthentication(SessionAuthentication):
    """A dashboard session, with CSRF. A viewer reads only."""

    def authenticate(self, request: Request) -> tuple[Any, None] | None:
        member = getattr(request._request, "membership", None)
        if member is None:
            return None
        try:
            self.enforce_csrf(request)
        except Exception as error:
            raise errors.Forbidden(f"{error}", code="csrf_failed") from None
        if lacks_second_factor(request._request):
            message = "Your organisation asks for a second factor. Add one on your account page."
            raise errors.Forbidden(message, code="second_factor_required")
        actor = current_actor()
        if actor.barred and (request.method not in SAFE or actor.barred == "organisation_suspended"):
            raise bar(actor.barred)
        if member.role == Role.VIEWER and request.method not in SAFE:
            raise errors.Forbidden("Your role in this organisation is viewer, which only reads.", code="role_forbids")
        return request._request.user, None
