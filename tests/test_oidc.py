"""Signing in with the operator's OpenID Connect provider: a real one, over HTTP."""

import os
import subprocess
import sys
from collections.abc import Iterator
from uuid import uuid4

import pytest
import requests
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount, SocialToken
from django.test import Client, override_settings

from apps.accounts.models import User
from maas import events
from tests.cast import PASSWORD, Cast, make_user
from tests.conftest import ROOT
from tests.oidc_provider import CLIENT, SECRET, Provider, start_provider
from tests.signing import add_app, code_of, heard, let_in, prove, signed_in, told

START = "/accounts/oidc/oidc/login/"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with start_provider() as running:
        app = {"provider_id": "oidc", "name": "Acme ID", "client_id": CLIENT, "secret": SECRET, "settings": {"server_url": running.url}}
        known = {"openid_connect": {"OAUTH_PKCE_ENABLED": True, "APPS": [app]}}
        with override_settings(MAAS_OIDC_URL=running.url, MAAS_OIDC_NAME="Acme ID", SOCIALACCOUNT_PROVIDERS=known):
            yield running


def person(email: str = "", *, verified: object = True) -> dict[str, object]:
    return {"sub": uuid4().hex, "email": email or f"{uuid4().hex[:12]}@example.org", "email_verified": verified}


def come_in(browser: Client, start: str = START):
    """To the provider and back, as a browser follows the redirects."""
    away = browser.post(start)
    assert away.status_code == 302, away.content.decode()
    back = requests.get(away["Location"], allow_redirects=False, timeout=5).headers["Location"]
    assert back.startswith("http://testserver/accounts/oidc/oidc/login/callback/?")
    return browser.get(back.removeprefix("http://testserver"))


def confirmed(user: User) -> User:
    EmailAddress.objects.create(user=user, email=user.email, primary=True, verified=True)
    return user


def test_the_button_is_there_only_when_a_provider_is_set(provider: Provider) -> None:
    for page in ("/accounts/login/", "/accounts/signup/"):
        assert "Go on with Acme ID" in Client().get(page).content.decode()
        with override_settings(MAAS_OIDC_URL="", SOCIALACCOUNT_PROVIDERS={}):
            assert "Go on with" not in Client().get(page).content.decode()
    with override_settings(MAAS_OIDC_URL="", SOCIALACCOUNT_PROVIDERS={}):
        assert Client().post(START).status_code == 404


def test_a_newcomer_gets_an_account_and_then_makes_an_organisation(provider: Provider) -> None:
    provider.person, browser = person(), Client()
    assert let_in(come_in(browser))
    assert browser.get("/")["Location"] == "/organisations/new"
    user = User.objects.get(email=provider.person["email"])
    assert not user.has_usable_password()
    assert EmailAddress.objects.get(user=user).verified
    browser.post("/organisations/new", {"organisation": f"org-{uuid4().hex[:10]}"})
    assert browser.get("/").status_code == 200
    assert let_in(come_in(Client()))  # known from now on
    assert SocialAccount.objects.filter(user=user).count() == 1


@pytest.mark.parametrize("claim", [False, "false", "true", None, 1])
def test_only_the_truth_value_counts_as_verified(provider: Provider, claim) -> None:
    provider.person = person(verified=claim)
    assert let_in(come_in(Client()))
    assert not EmailAddress.objects.get(email=provider.person["email"]).verified


def test_tokens_are_not_stored(provider: Provider) -> None:
    provider.person = person()
    come_in(Client())
    row = SocialAccount.objects.get(uid=provider.person["sub"])
    assert not SocialToken.objects.filter(account=row).exists()
    assert not any(token in str(row.extra_data) for token in provider.tokens)


def test_an_address_that_both_sides_verified_is_linked(provider: Provider, cast: Cast) -> None:
    user = confirmed(cast.owner)
    provider.person, browser = person(user.email.upper()), Client()
    with heard(user) as found:
        assert let_in(come_in(browser))
    assert SocialAccount.objects.get(user=user).uid == provider.person["sub"]
    assert user.email in browser.get("/account").content.decode()
    assert told(found, events.SecurityChanged) == [{"what": "sign-in with Acme ID linked"}]
    assert told(found, events.SignedIn) == [{"with": ["Acme ID"]}]


@pytest.mark.parametrize(("theirs", "ours"), [(False, True), ("true", True), (None, True), (True, False), (True, None)])
def test_an_address_that_one_side_has_not_verified_is_refused(provider: Provider, theirs, ours) -> None:
    user = make_user("taken")
    if ours is not None:
        EmailAddress.objects.create(user=user, email=user.email, primary=True, verified=ours)
    provider.person, browser = person(user.email, verified=theirs), Client()
    answer = come_in(browser)
    assert answer.status_code == 403
    assert "has an account here already" in answer.content.decode()
    assert not SocialAccount.objects.filter(user=user).exists()
    assert browser.get("/account").status_code == 302
    assert User.objects.get(pk=user.pk).check_password(PASSWORD)


def test_a_second_factor_is_asked_for_here_too(provider: Provider, cast: Cast) -> None:
    secret, _ = add_app(confirmed(cast.owner), signed_in(cast.owner.email))
    provider.person, browser = person(cast.owner.email), Client()
    assert come_in(browser)["Location"] == "/accounts/2fa/authenticate/"
    assert browser.get("/").status_code == 302
    assert let_in(browser.post("/accounts/2fa/authenticate/", {"code": code_of(secret)}))


def test_closed_sign_up_is_closed_for_the_provider_too(provider: Provider, settings_of) -> None:
    provider.person = person()
    with settings_of(MAAS_SIGNUP_OPEN=False):
        assert "by invitation" in come_in(Client()).content.decode()
    assert not User.objects.filter(email=provider.person["email"]).exists()


def test_answers_about_two_people_let_nobody_in(provider: Provider) -> None:
    provider.person = person()
    provider.userinfo = {**provider.person, "sub": "somebody-else"}
    try:
        answer = come_in(Client())
    finally:
        provider.userinfo = None
    assert (answer.status_code, "two different people" in answer.content.decode()) == (403, True)
    assert not User.objects.filter(email=provider.person["email"]).exists()


def test_who_cancels_or_brings_no_state_is_told_so(provider: Provider) -> None:
    provider.person, browser = None, Client()
    assert "You are not signed in" in browser.get(come_in(browser)["Location"]).content.decode()
    answer = Client().get(START + "callback/?code=x&state=forged")
    assert (answer.status_code, "You are not signed in" in answer.content.decode()) == (401, True)


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/userinfo"])
def test_a_provider_that_does_not_answer_is_said_plainly(provider: Provider, path) -> None:
    provider.person, browser = person(), Client()
    provider.broken = {path}
    try:
        answer = browser.post(START) if "well-known" in path else come_in(browser)
    finally:
        provider.broken = set()
    assert answer.status_code in {401, 502}
    assert "You are not signed in" in answer.content.decode()


def test_it_can_be_linked_and_unlinked_on_the_account_page(provider: Provider, cast: Cast) -> None:
    browser = signed_in(confirmed(cast.owner).email)
    prove(browser)
    provider.person = person()  # another address there than here
    come_in(browser, START + "?process=connect")
    page = browser.get("/account").content.decode()
    assert "Acme ID is linked" in page and "Remove the link" in page
    link = SocialAccount.objects.get(user=cast.owner)
    assert let_in(come_in(Client()))
    browser.post("/accounts/3rdparty/", {"account": link.pk})
    assert not SocialAccount.objects.filter(user=cast.owner).exists()


def test_the_policy_lets_forms_go_to_the_provider() -> None:
    code = "from maas import settings; print(settings.CONTENT_SECURITY_POLICY['DIRECTIVES']['form-action'])"
    env = {**os.environ, "MAAS_OIDC_URL": "https://id.acme.example/realms/x/", "MAAS_OIDC_CLIENT_ID": "a", "MAAS_OIDC_CLIENT_SECRET": "b"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert "https://id.acme.example'" in done.stdout and "realms" not in done.stdout
    del env["MAAS_OIDC_CLIENT_SECRET"]
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert "MAAS_OIDC_CLIENT_SECRET" in done.stderr
