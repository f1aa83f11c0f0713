"""Who is locked out after failed sign-ins. django-axes counts in the database, so it holds on every machine and without Redis.

Passwords are counted per e-mail address and client address: a stranger cannot lock a person out everywhere. Codes of a second
factor are counted per person: whoever tries them knows the password already, and may have many addresses.
"""

from math import ceil
from typing import Any

from axes.handlers.proxy import AxesProxyHandler
from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.auth.signals import user_login_failed
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from apps.accounts.models import User
from maas.requests import client_address

FACTOR = "factor"  # in credentials: this is about a code
CODE = "code:"


def counted_name(request: HttpRequest, credentials: dict[str, Any] | None) -> str | None:
    """What a failure is counted under: an e-mail address, however it is written."""
    email = (credentials or {}).get("email")
    if not email:
        return None
    return (CODE if FACTOR in (credentials or {}) else "") + str(email).strip().lower()[:200]


def counted_by(_request: Any, credentials: dict[str, Any] | None = None) -> list[Any]:
    """What has to be equal for failures to add up, as AXES_LOCKOUT_PARAMETERS."""
    return ["username"] if FACTOR in (credentials or {}) else [["username", "ip_address"]]


def address(request: HttpRequest) -> str | None:
    """The client's address for axes."""
    return client_address(request) or None


def take_turns(request: HttpRequest, credentials: dict[str, Any]) -> None:
    """Let tries that are counted together be looked at one after the other, so that many at once do not pass the limit together.

    The turn ends with the transaction of the request.
    """
    if settings.AXES_ENABLED and (name := counted_name(request, credentials)):
        turn = name if FACTOR in credentials else f"{name} {address(request)}"
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"sign-in {turn}"])


def answer(request: HttpRequest, _response: HttpResponse | None, credentials: dict[str, Any] | None) -> HttpResponse:
    """The page for who is locked out. It is the same whether the account exists or not."""
    seconds = _seconds_left(request, credentials)
    page = render(request, "429.html", {"minutes": ceil(seconds / 60)}, status=429)
    page["Retry-After"] = str(seconds)
    page["Cache-Control"] = "no-store"
    return page


def _seconds_left(request: HttpRequest, credentials: dict[str, Any] | None) -> int:
    counted = AxesProxyHandler.get_implementation().get_user_attempts(request, credentials)
    last = max((attempt.attempt_time for attempts in counted for attempt in attempts), default=timezone.now())
    return max(1, ceil((last + settings.AXES_COOLOFF_TIME - timezone.now()).total_seconds()))


# ---------- codes of a second factor ----------
def code_credentials(user: User) -> dict[str, str]:
    """What axes counts a wrong code under."""
    return {"email": user.email, FACTOR: "code"}


def code_failed(request: HttpRequest, user: User) -> None:
    """Count a wrong code."""
    user_login_failed.send(sender=__name__, credentials=code_credentials(user), request=request)


def refuses_codes(request: HttpRequest, user: User) -> bool:
    """Whether codes of this person are refused now; the answer to this request then becomes the page that says so."""
    take_turns(request, code_credentials(user))
    if not settings.AXES_ENABLED or AxesProxyHandler.is_allowed(request, code_credentials(user)):
        return False
    request.axes_locked_out, request.axes_credentials = True, code_credentials(user)  # type: ignore[attr-defined]
    return True


# ---------- an end to it ----------
def forget_codes(user: User) -> None:
    """A right code ends the count of wrong ones."""
    AccessAttempt.objects.filter(username=CODE + user.email.lower()).delete()


def forget_passwords(user: User) -> None:
    """Whoever chose a new password by mail may sign in with it from everywhere."""
    emails = {user.email, *user.emailaddress_set.values_list("email", flat=True)}  # type: ignore[attr-defined]
    AccessAttempt.objects.filter(username__in=[email.lower() for email in emails]).delete()
