"""Who calls the REST API: the bearer of a key, or a member with a dashboard session."""

from typing import Any

from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.request import Request

from apps.accounts import services
from maas import errors

SAFE = ("GET", "HEAD", "OPTIONS")


class KeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer maas_...`."""

    def authenticate(self, request: Request) -> tuple[Any, services.ApiKey] | None:
        header = request.META.get("HTTP_AUTHORIZATION")
        if header is None:
            return None
        scheme, _, secret = header.partition(" ")
        if scheme.lower() != "bearer":
            raise errors.Unauthenticated("Use the scheme Bearer: 'Authorization: Bearer maas_...'.")
        caller = services.find_caller(secret.strip())
        request._request.tenant = caller.tenant  # type: ignore[attr-defined]
        return None, caller.key

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


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
        if member.role == services.Role.VIEWER and request.method not in SAFE:
            raise errors.Forbidden("Your role in this organisation is viewer, which only reads.", code="role_forbids")
        return request._request.user, None
