"""A second factor is asked for, its secrets are sealed, and a session can be ended from elsewhere."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from allauth.account.models import EmailAddress
from allauth.core import context
from allauth.mfa.models import Authenticator
from axes.models import AccessAttempt
from django.core.cache import cache
from django.db import connection
from django.test import Client, RequestFactory
from django.utils import timezone

from apps.accounts import passkeys, second_factor, sessions
from tests.cast import PASSWORD, Cast
from tests.signing import LOCKED, add_app, code_of, let_in, prove, sign_in, signed_in


# ---------- second factors ----------
def test_a_secret_is_sealed_in_its_column_and_its_codes_sign_in_once(cast: Cast) -> None:
    browser = signed_in(cast.owner.email)
    secret, codes = add_app(cast.owner, browser)
    with connection.cursor() as cursor:
        cursor.execute("SELECT data::text FROM mfa_authenticator WHERE user_id = %s", [cast.owner.pk])
        columns = " ".join(row[0] for row in cursor.fetchall())
    assert secret not in columns and columns.count("gAAAA") == 2  # app and recovery codes
    again = Client()
    assert sign_in(cast.owner.email, browser=again)["Location"] == "/accounts/2fa/authenticate/"
    assert again.get("/").status_code == 302
    code = code_of(secret)
    assert let_in(again.post("/accounts/2fa/authenticate/", {"code": code}))
    assert len(codes) == 10
    replay = Client()
    sign_in(cast.owner.email, browser=replay)
    cache.delete(f"allauth.mfa.totp.used?user={cast.owner.pk}&code={code}")  # as if Redis had lost it
    assert replay.post("/accounts/2fa/authenticate/", {"code": code}).status_code == 200


def test_a_code_fits_one_step_before_and_after_and_none_older_than_the_last(cast: Cast) -> None:
    secret, _ = add_app(cast.owner, signed_in(cast.owner.email))
    now, results = time.time(), []
    for seconds in (90, -90, 0, -30):
        browser = Client()
        sign_in(cast.owner.email, browser=browser)
        results.append(let_in(browser.post("/accounts/2fa/authenticate/", {"code": code_of(secret, now + seconds)})))
    assert results == [False, False, True, False]


def test_a_recovery_code_works_once_and_is_shown_once(cast: Cast) -> None:
    browser = signed_in(cast.owner.email)
    _, codes = add_app(cast.owner, browser)
    results = []
    for _ in range(2):
        again = Client()
        sign_in(cast.owner.email, browser=again)
        results.append(let_in(again.post("/accounts/2fa/authenticate/", {"code": codes[0]})))
    assert results == [True, False]
    page = browser.get("/accounts/2fa/recovery-codes/").content.decode()
    assert "9 of 10 codes left" in page and not any(code in page for code in codes)
    assert browser.get("/accounts/2fa/recovery-codes/download/").status_code == 403


def test_guesses_of_a_code_are_counted_per_person_whatever_their_address(cast: Cast, settings_of) -> None:
    secret, _ = add_app(cast.owner, signed_in(cast.owner.email))
    with settings_of(**LOCKED):
        for number in range(3):
            guesser = Client(REMOTE_ADDR=f"192.0.2.{number}")
            sign_in(cast.owner.email, browser=guesser, address=f"192.0.2.{number}")
            answer = guesser.post("/accounts/2fa/authenticate/", {"code": "000000"})
        assert answer.status_code == 429
        browser = Client()
        sign_in(cast.owner.email, browser=browser)
        assert browser.post("/accounts/2fa/authenticate/", {"code": code_of(secret)}).status_code == 429
        assert browser.get("/").status_code == 302


def test_many_guesses_of_a_code_at_once_do_not_pass_the_limit_together(cast: Cast, settings_of) -> None:
    add_app(cast.owner, signed_in(cast.owner.email))
    guessers = [Client() for _ in range(12)]
    for guesser in guessers:
        sign_in(cast.owner.email, browser=guesser)

    def guess(browser: Client) -> int:
        try:
            return browser.post("/accounts/2fa/authenticate/", {"code": "000000"}).status_code
        finally:
            connection.close()

    with settings_of(**LOCKED), ThreadPoolExecutor(8) as many:
        assert sorted(many.map(guess, guessers)) == [200, 200] + [429] * 10
    assert AccessAttempt.objects.get(username=f"code:{cast.owner.email}").failures_since_start == 3


def test_passkeys_need_a_name_and_the_page_says_so(cast: Cast) -> None:
    browser = signed_in(cast.owner.email)
    prove(browser)
    assert "data-passkey=" in browser.get("/accounts/2fa/webauthn/add/", HTTP_HOST="localhost:8000").content.decode()
    page = browser.get("/accounts/2fa/webauthn/add/", HTTP_HOST="127.0.0.1:8000").content.decode()
    assert "data-passkey=" not in page and "open the dashboard as localhost" in page


@pytest.mark.parametrize(
    ("host", "public", "bound_to"),
    [
        ("localhost:8000", "http://127.0.0.1:8000", "localhost"),
        ("maas.example.org", "https://maas.example.org", "maas.example.org"),
        ("eu.maas.example.org", "https://maas.example.org", "maas.example.org"),
        ("evilmaas.example.org", "https://maas.example.org", "evilmaas.example.org"),
        ("[::1]:8000", "http://127.0.0.1:8000", "::1"),
    ],
)
def test_passkeys_are_bound_to_the_public_name_below_which_the_request_came(host, public, bound_to, settings_of) -> None:
    with settings_of(MAAS_URL=public, ALLOWED_HOSTS=["*"]), context.request_context(RequestFactory().get("/", HTTP_HOST=host)):
        assert passkeys.relying_party() == bound_to


def test_who_has_a_second_factor(cast: Cast) -> None:
    browser = signed_in(cast.owner.email)
    assert not second_factor.has_second_factor(cast.owner)
    add_app(cast.owner, browser)
    assert second_factor.has_second_factor(cast.owner)
    prove(browser)
    browser.post("/accounts/2fa/totp/deactivate/")
    assert not second_factor.has_second_factor(cast.owner)
    assert not Authenticator.objects.filter(user=cast.owner).exists()  # recovery codes go with the last factor


def test_a_factor_changes_only_after_the_password_was_asked_again(cast: Cast) -> None:
    browser = signed_in(cast.owner.email)
    for page in ("/accounts/2fa/totp/activate/", "/accounts/2fa/webauthn/add/"):
        assert browser.get(page)["Location"].startswith("/accounts/reauthenticate/")
    assert browser.post("/accounts/email/", {"email": "x@example.org", "action_add": ""})["Location"].startswith("/accounts/reauth")
    assert not EmailAddress.objects.filter(email="x@example.org").exists()


# ---------- sessions ----------
def test_a_session_that_is_ended_is_out_with_its_next_request(cast: Cast) -> None:
    here, there = signed_in(cast.owner.email), Client(HTTP_USER_AGENT="Mozilla/5.0 (X11; Linux x86_64) Gecko Firefox/140.0")
    sign_in(cast.owner.email, browser=there, address="192.0.2.9")
    page = here.get("/account").content.decode()
    assert "Firefox on Linux" in page and "this one" in page
    other = next(one for one in sessions.list_sessions(cast.owner) if "Firefox" in one.user_agent)
    assert there.get("/").status_code == 200
    here.post(f"/accounts/sessions/{other.pk}/end")
    assert there.get("/")["Location"].startswith("/accounts/login/")
    assert here.get("/").status_code == 200


def test_nobody_ends_the_session_of_another_person(cast: Cast) -> None:
    theirs, mine = signed_in(cast.stranger.email), signed_in(cast.owner.email)
    session = sessions.list_sessions(cast.stranger)[0]
    assert "ended already" in mine.post(f"/accounts/sessions/{session.pk}/end", follow=True).content.decode()
    assert theirs.get("/").status_code == 200


def test_all_other_sessions_end_at_once_and_with_a_new_password(cast: Cast) -> None:
    here, others = signed_in(cast.owner.email), [signed_in(cast.owner.email) for _ in range(2)]
    here.post("/accounts/sessions/")
    assert [other.get("/").status_code for other in [here, *others]] == [200, 302, 302]
    other = signed_in(cast.owner.email)
    here.post(
        "/accounts/password/change/", {"oldpassword": PASSWORD, "password1": "another long sentence", "password2": "another long sentence"}
    )
    assert [one.get("/").status_code for one in (here, other)] == [200, 302]


def test_use_is_written_down_once_a_minute(cast: Cast) -> None:
    browser = signed_in(cast.owner.email)
    first = sessions.list_sessions(cast.owner)[0]
    browser.get("/account")
    assert sessions.list_sessions(cast.owner)[0].last_seen_at == first.last_seen_at
    sessions.UserSession.objects.filter(pk=first.pk).update(last_seen_at=timezone.now() - timedelta(minutes=2))
    browser.get("/account")
    assert sessions.list_sessions(cast.owner)[0].last_seen_at > first.last_seen_at


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/142.0 Safari/537.36 Edg/142.0", "Edge on Windows"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Version/19.0 Mobile/15E148 Safari/604.1", "Safari on iPhone"),
        ("Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 Chrome/142.0 Mobile Safari/537.36", "Chrome on Android"),
        ("curl/8.5.0", "curl"),
        ("", "An unknown device"),
    ],
)
def test_a_device_is_named_in_plain_words(text, words) -> None:
    assert sessions.device(text) == words
