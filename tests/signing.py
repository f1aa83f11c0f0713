"""Signing in as tests need it: passwords, codes, second factors, and what is told of it."""

import base64
import hashlib
import hmac
import re
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.test import Client

from apps.accounts.models import User
from maas import events
from maas.actors import current_actor
from tests.cast import PASSWORD

LOGIN = "/accounts/login/"
LOCKED = {"AXES_ENABLED": True, "AXES_FAILURE_LIMIT": 3, "AXES_COOLOFF_TIME": timedelta(minutes=15)}


def sign_in(email: str, password: str = PASSWORD, *, address: str = "127.0.0.1", browser: Client | None = None, **headers: str):
    browser = browser or Client()
    return browser.post(LOGIN, {"login": email, "password": password}, REMOTE_ADDR=address, **headers)


def fail(email: str, times: int = 3, **more: str):
    for _ in range(times):
        answer = sign_in(email, "not the password", **more)
    return answer


def let_in(answer) -> bool:
    return answer.status_code == 302 and answer["Location"] == "/"


@contextmanager
def heard(user: User) -> Iterator[list[tuple[events.Event, object]]]:
    """What is published about a person, and who did it."""
    found: list[tuple[events.Event, object]] = []

    def note(event: events.Event) -> None:
        if getattr(event, "user_id", None) == user.pk:
            found.append((event, current_actor()))

    events.subscribe(events.UserEvent, note)
    try:
        yield found
    finally:
        events.unsubscribe(events.UserEvent, note)


def told(found: list, kind: type[events.Event]) -> list[dict | None]:
    return [event.after for event, _ in found if type(event) is kind]


# ---------- codes ----------
def code_of(secret: str, at: float | None = None) -> str:
    """What an authenticator app shows (RFC 6238)."""
    counter = struct.pack(">Q", int(time.time() if at is None else at) // 30)
    digest = hmac.new(base64.b32decode(secret), counter, hashlib.sha1).digest()
    start = digest[-1] & 15
    return f"{(struct.unpack('>I', digest[start : start + 4])[0] & 0x7FFFFFFF) % 10**6:06d}"


def signed_in(email: str) -> Client:
    browser = Client()
    assert let_in(sign_in(email, browser=browser))
    return browser


def prove(browser: Client, password: str = PASSWORD) -> None:
    browser.post("/accounts/reauthenticate/", {"password": password})


def add_app(user: User, browser: Client) -> tuple[str, list[str]]:
    """An authenticator app for this person: its secret, and the recovery codes that were shown."""
    prove(browser)
    page = browser.get("/accounts/2fa/totp/activate/").content.decode()
    secret = re.search(r'<code id="totp-secret">(\w+)</code>', page)[1]
    answer = browser.post("/accounts/2fa/totp/activate/", {"code": code_of(secret)}, follow=True)
    assert answer.status_code == 200
    return secret, re.findall(r"\b\d{8}\b", re.search(r'<code id="codes">([^<]*)', answer.content.decode())[1])


def mail_to(email: str) -> list[str]:
    paths = sorted(Path(settings.EMAIL_FILE_PATH).glob("*"), key=lambda path: path.stat().st_mtime)
    return [text for path in paths if f"To: {email}" in (text := path.read_text())]
