"""Signing in: lock-out, limits, passwords, e-mail, and the pages that it takes."""

import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import allauth
import pytest
import redis
from allauth.account.models import EmailAddress
from allauth.usersessions.models import UserSession
from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.db import connection
from django.template.loader import get_template
from django.test import Client
from django.utils import timezone

from apps.accounts import sessions
from apps.accounts.models import User
from tests.cast import PASSWORD, Cast, browser_for, make_user
from tests.conftest import ROOT
from tests.signing import LOCKED, add_app, code_of, fail, let_in, mail_to, prove, sign_in, signed_in
from tests.walk import routes


# ---------- lock-out ----------
def test_after_some_failures_the_right_password_is_refused_too(settings_of) -> None:
    user = make_user("locked")
    with settings_of(**LOCKED):
        page = fail(user.email)
        assert (page.status_code, page["Retry-After"]) == (429, "900")
        assert "15 minutes" in page.content.decode()
        refused = sign_in(user.email)
        assert refused.status_code == 429


def test_it_ends_by_itself(settings_of) -> None:
    user = make_user("waits")
    with settings_of(**LOCKED):
        fail(user.email)
        AccessAttempt.objects.filter(username=user.email).update(attempt_time=timezone.now() - timedelta(minutes=14))
        still = sign_in(user.email)
        assert (still.status_code, "1 minute." in still.content.decode()) == (429, True)
        AccessAttempt.objects.filter(username=user.email).update(attempt_time=timezone.now() - timedelta(minutes=16))
        assert sign_in(user.email).status_code == 302


def test_tries_while_locked_out_do_not_make_it_longer(settings_of) -> None:
    user = make_user("patient")
    with settings_of(**LOCKED):
        fail(user.email)
        AccessAttempt.objects.filter(username=user.email).update(attempt_time=timezone.now() - timedelta(minutes=14))
        fail(user.email, 5)
        assert AccessAttempt.objects.get(username=user.email).failures_since_start == 3


def test_the_count_is_per_address_and_ignores_how_the_name_is_written(settings_of) -> None:
    user = make_user("spelt")
    with settings_of(**LOCKED):
        for email in (user.email, user.email.upper(), f" {user.email} "):
            fail(email, 1, HTTP_USER_AGENT=uuid4().hex)
        assert sign_in(user.email).status_code == 429
        assert sign_in(user.email, address="192.0.2.7").status_code == 302


def test_many_tries_at_once_do_not_pass_the_limit_together(settings_of) -> None:
    user = make_user("stampede")

    def guess(_: int) -> int:
        try:
            return fail(user.email, 1).status_code
        finally:
            connection.close()

    with settings_of(**LOCKED), ThreadPoolExecutor(8) as many:
        statuses = list(many.map(guess, range(16)))
    assert AccessAttempt.objects.get(username=user.email).failures_since_start == 3
    assert sorted(statuses) == [200, 200] + [429] * 14


def test_an_account_that_does_not_exist_is_locked_out_in_the_same_words(settings_of) -> None:
    user = make_user("exists")
    with settings_of(**LOCKED):
        pages = [fail(email, 3) for email in (user.email, f"nobody-{uuid4().hex}@example.org")]
    texts = [re.sub(r'req_\w+|value="[^"]*"|X-CSRFToken[^}]*', "", page.content.decode()) for page in pages]
    assert [page.status_code for page in pages] == [429, 429]
    assert texts[0] == texts[1]


def test_a_right_password_ends_the_count(settings_of) -> None:
    user = make_user("remembers")
    with settings_of(**LOCKED):
        for _ in range(3):
            fail(user.email, 2)
            assert sign_in(user.email).status_code == 302


def test_a_new_password_by_mail_unlocks(settings_of) -> None:
    user = make_user("unlocks")
    with settings_of(**LOCKED):
        fail(user.email)
        browser = Client()
        browser.post("/accounts/password/reset/", {"email": user.email})
        link = re.search(r"http://testserver(/accounts/password/reset/key/\S+)", mail_to(user.email)[-1])[1]
        form = browser.get(link, follow=True).redirect_chain[-1][0]
        browser.post(form, {"password1": "another long sentence", "password2": "another long sentence"})
        assert sign_in(user.email, "another long sentence").status_code == 302


def test_no_password_is_kept_with_a_failure(settings_of) -> None:
    user = make_user("careful")
    with settings_of(**LOCKED):
        fail(user.email, 2)
    row = AccessAttempt.objects.get(username=user.email)
    assert "not the password" not in row.post_data + row.get_data


# ---------- Redis ----------
def test_one_can_sign_in_and_prove_a_code_while_redis_is_down(settings_of) -> None:
    user = make_user("noredis")
    down = {"default": {**settings.CACHES["default"], "LOCATION": "redis://127.0.0.1:1/0"}}
    with settings_of(CACHES=down, ACCOUNT_RATE_LIMITS={"login_failed": None}, MFA_RATE_LIMITS={}, **LOCKED):
        secret, _ = add_app(user, signed_in(user.email))
        browser = Client()
        assert sign_in(user.email, browser=browser)["Location"] == "/accounts/2fa/authenticate/"
        assert let_in(browser.post("/accounts/2fa/authenticate/", {"code": code_of(secret)}))
        assert fail(user.email).status_code == 429  # the lock-out does not need it


def test_other_limits_are_shared_through_redis_as_plain_json(settings_of) -> None:
    address = "198.51.100.77"
    with settings_of(ACCOUNT_RATE_LIMITS={"login": "2/m/ip", "login_failed": None}):
        answers = [sign_in("nobody@example.org", address=address).status_code for _ in range(3)]
    assert answers == [200, 200, 429]
    stored = redis.Redis.from_url(settings.REDIS_URL)
    times = [json.loads(stored.get(key)) for key in stored.scan_iter(f"maas:*rl*login*{address}")]
    assert len(times) == 1 and len(times[0]) == 2


def test_the_cache_is_asked_once_and_then_left_alone_while_redis_is_away(settings_of) -> None:
    mute = socket.create_server(("127.0.0.1", 0))  # takes connections and never answers
    away = {"default": {**settings.CACHES["default"], "LOCATION": f"redis://127.0.0.1:{mute.getsockname()[1]}/0"}}
    with mute, settings_of(CACHES=away):
        begin = time.monotonic()
        assert (cache.add("a", 1), cache.get("a", "nothing"), cache.delete("a"), cache.get_many(["a"])) == (True, "nothing", False, {})
        cache.set("a", 1)
        assert 0.4 < time.monotonic() - begin < 1.2
    with pytest.raises(NotImplementedError):
        cache.clear()


# ---------- passwords ----------
@pytest.mark.parametrize("password", ["password1234", "qwertyuiop123", "short one", "elevenchars"])
def test_common_and_short_passwords_are_refused(password) -> None:
    name = uuid4().hex[:12]
    form = {"email": f"{name}@example.org", "organisation": f"org-{name}", "password1": password}
    assert Client().post("/accounts/signup/", form).status_code == 200
    assert not User.objects.filter(email=form["email"]).exists()


# ---------- e-mail ----------
def test_a_new_person_waits_for_their_mail_where_that_is_mandatory(settings_of) -> None:
    name, browser = uuid4().hex[:12], Client()
    email = f"{name}@example.org"
    with settings_of(ACCOUNT_EMAIL_VERIFICATION="mandatory"):
        form = {"email": email, "organisation": f"org-{name}", "password1": PASSWORD}
        assert browser.post("/accounts/signup/", form)["Location"] == "/accounts/confirm-email/"
        assert "Look into your mail" in browser.get("/accounts/confirm-email/").content.decode()
        assert browser.get("/").status_code == 302
        link = re.search(r"http://testserver(/accounts/confirm-email/\S+)", mail_to(email)[0])[1]
        assert let_in(browser.post(link))  # in the same browser: signed in
    assert EmailAddress.objects.get(email=email).verified


def test_the_overview_reminds_of_an_address_that_is_not_confirmed_and_sends_again() -> None:
    name, browser = uuid4().hex[:12], Client()
    email = f"{name}@example.org"
    browser.post("/accounts/signup/", {"email": email, "organisation": f"org-{name}", "password1": PASSWORD})
    assert "Confirm your e-mail address." in browser.get("/").content.decode()
    before = len(mail_to(email))
    browser.post("/accounts/email/", {"email": email, "action_send": ""})
    assert len(mail_to(email)) == before + 1
    EmailAddress.objects.filter(email=email).update(verified=True)
    assert "Confirm your e-mail address." not in browser.get("/").content.decode()


# ---------- every page ----------
# Pages of ways to sign in that are switched off, and pages that lead to the account page instead.
NOT_REACHED = re.compile(
    r"/base[_.]|/snippets/|code|phone|by_passkey|signup_form|mfa/(index|trust)\.|authenticator_list|usersession_list|login_redirect|/js/|"
    r"account/messages/logged_|recovery_codes/base|(totp|webauthn)/base"
)


def test_every_page_and_mail_of_allauth_that_can_be_reached_is_ours() -> None:
    folder = Path(allauth.__file__).parent / "templates"
    names = [
        str(path.relative_to(folder))
        for app in ("account", "mfa", "socialaccount", "usersessions")
        for path in folder.glob(f"{app}/**/*.*")
    ]
    wanted = [name for name in names if "recovery_codes" in name or not NOT_REACHED.search(name)]
    wanted = [name for name in wanted if not name.endswith("base.html")]
    foreign = [name for name in wanted if not str(get_template(name).origin).startswith(str(ROOT))]
    assert len(wanted) > 60
    assert foreign == []


def test_pages_of_an_account_need_a_sign_in() -> None:
    """Each address leads a stranger to sign-in, except the ones by which one gets there."""
    entrances = re.compile(r"login|signup|logout|inactive|confirm-email|password/reset|oidc")
    private = [
        "/" + re.sub(r"<int:\w+>", "1", route) for route in routes() if route.startswith("accounts/") and not entrances.search(route)
    ]
    assert len(private) > 12
    for path in [*private, "/account"]:
        for answer in (Client().get(path), Client().post(path)):
            assert answer.status_code == 405 or "/accounts/login/" in answer["Location"], path


def test_no_page_about_signing_in_has_a_script_or_style_of_its_own(cast: Cast) -> None:
    browser = signed_in(cast.owner.email)
    prove(browser)
    add_app(cast.owner, browser)
    paths = [
        "/account", "/accounts/2fa/webauthn/add/", "/accounts/2fa/totp/deactivate/", "/accounts/2fa/recovery-codes/generate/",
        "/accounts/2fa/reauthenticate/", "/accounts/reauthenticate/", "/accounts/email/", "/accounts/password/change/",
    ]  # fmt: skip
    for path in paths:
        page = browser.get(path)
        assert page.status_code == 200, path
        inline = re.findall(r"<script(?![^>]*(?:src=|application/json))[^>]*>|<style|\sstyle=|\son\w+=", page.content.decode())
        assert inline == [], path


def test_expired_sessions_are_removed(cast: Cast) -> None:
    browser = browser_for(cast.owner)
    assert browser.get("/account").status_code == 200
    Session.objects.filter(session_key=browser.session.session_key).update(expire_date=timezone.now())
    UserSession.objects.filter(user=cast.owner).update(last_seen_at=timezone.now() - timedelta(days=15))
    sessions.forget_expired()
    assert not UserSession.objects.filter(user=cast.owner).exists()
    assert not Session.objects.filter(expire_date__lte=timezone.now()).exists()
