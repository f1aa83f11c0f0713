"""Where a person is signed in: shown in plain words, ended one by one or all others at once."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from allauth.account.adapter import get_adapter
from allauth.usersessions.adapter import DefaultUserSessionsAdapter
from allauth.usersessions.internal.flows.sessions import end_sessions
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.translation import gettext as _

from apps.accounts import security_events
from apps.accounts.models import User
from maas import errors
from maas.events import SessionEnded

NOTED_EVERY = timedelta(minutes=1)
BROWSERS = (
    ("Edg", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("FxiOS/", "Firefox"), ("SamsungBrowser/", "Samsung Internet"),
    ("HeadlessChrome/", "Chrome"), ("CriOS/", "Chrome"), ("Chrome/", "Chrome"), ("Safari/", "Safari"), ("curl/", "curl"),
)  # fmt: skip
SYSTEMS = (
    ("iPhone", "iPhone"), ("iPad", "iPad"), ("Android", "Android"), ("Windows", "Windows"), ("CrOS", "ChromeOS"),
    ("Macintosh", "Mac"), ("Linux", "Linux"),
)  # fmt: skip


class NoteSessions:
    """Write down where and when a session is used, at most once a minute unless its address or browser changes."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.session.session_key and request.user.is_authenticated and not _is_noted(request):
            UserSession.objects.create_from_request(request)
        return self.get_response(request)


def _is_noted(request: HttpRequest) -> bool:
    return UserSession.objects.filter(
        session_key=request.session.session_key,
        user_id=request.user.pk,
        last_seen_at__gt=timezone.now() - NOTED_EVERY,
        ip=get_adapter().get_client_ip(request),
        user_agent=request.META.get("HTTP_USER_AGENT", "")[:200],
    ).exists()


class SessionsAdapter(DefaultUserSessionsAdapter):
    """Every session that ends is a fact for the audit log."""

    def end_sessions(self, sessions: list[UserSession]) -> None:
        for session in sessions:
            session.end()
            after = {"device": device(session.user_agent), "address": session.ip}
            security_events.tell(session.user, SessionEnded, after)


def list_sessions(user: User) -> list[UserSession]:
    """The person's living sessions, last used first."""
    return sorted(UserSession.objects.purge_and_list(user), key=lambda session: session.last_seen_at, reverse=True)


def end_session(request: HttpRequest, session_id: int) -> str:
    """End one of the person's sessions; it is out with its next request. Returns what device it was on.

    Raises NotFound for any other session.
    """
    session = UserSession.objects.filter(user_id=request.user.pk, pk=session_id).first()
    if session is None:
        raise errors.NotFound(_("This session has ended already."))
    with transaction.atomic():
        end_sessions(request, [session])
    return device(session.user_agent)


def forget_expired() -> None:
    """Remove what expired sessions left in the database."""
    SessionStore.clear_expired()
    UserSession.objects.filter(last_seen_at__lt=timezone.now() - timedelta(seconds=settings.SESSION_COOKIE_AGE)).delete()


def device(user_agent: str) -> str:
    """A browser's own description in plain words: Firefox on Linux."""
    words: Any = {"browser": _find(BROWSERS, user_agent), "system": _find(SYSTEMS, user_agent)}
    if words["browser"] and words["system"]:
        return _("%(browser)s on %(system)s") % words
    return words["browser"] or words["system"] or _("An unknown device")


def _find(names: tuple[tuple[str, str], ...], user_agent: str) -> str:
    return next((name for mark, name in names if mark in user_agent), "")
