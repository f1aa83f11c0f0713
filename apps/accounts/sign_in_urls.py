"""Every address of signing in: allauth's, in one transaction each where something is changed, and ours beside them."""

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, URLResolver, include, path, reverse

from apps.accounts import oidc

View = Callable[..., HttpResponse]
PAGES = {
    "mfa_index": "second-factors",
    "mfa_list_webauthn": "second-factors",
    "usersessions_list": "sessions",
    "socialaccount_connections": "linked",
}


def whole(module: str) -> list[URLPattern | URLResolver]:
    """The module's patterns with POST in one transaction: a change and its line in the audit log happen together or not at all."""
    patterns: list[URLPattern | URLResolver] = import_module(module).urlpatterns
    for pattern in _flat(patterns):
        pattern.callback = _in_one_transaction(pattern.callback, PAGES.get(pattern.name or ""))
    return patterns


def _flat(patterns: list[Any]) -> list[URLPattern]:
    return [one for pattern in patterns for one in (_flat(pattern.url_patterns) if isinstance(pattern, URLResolver) else [pattern])]


def _in_one_transaction(view: View, part: str | None) -> View:
    @wraps(view)
    def run(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method == "POST":
            with transaction.atomic():
                return view(request, *args, **kwargs)
        if part and request.user.is_authenticated:  # the account page shows it all
            return HttpResponseRedirect(f"{reverse('account')}#{part}")
        return view(request, *args, **kwargs)

    return run


urlpatterns = [
    path("oidc/<str:provider_id>/login/", oidc.login, name="openid_connect_login"),
    path("oidc/<str:provider_id>/login/callback/", oidc.callback, name="openid_connect_callback"),
    path("", include(whole("allauth.account.urls"))),
    path("2fa/", include(whole("allauth.mfa.urls"))),
    path("3rdparty/", include(whole("allauth.socialaccount.urls"))),
    path("sessions/", include(whole("allauth.usersessions.urls"))),
]
