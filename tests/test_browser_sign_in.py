"""Signing in as a person does it: a real browser, a virtual passkey device, and nothing but the web process."""

import os
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_string
from email.policy import default
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, expect

from apps.accounts.models import User
from tests.browser import CHROMIUM, Complaints, open_browser, sideways
from tests.cast import Key, make_key, make_tenant, make_user
from tests.conftest import HOME, ROOT, needs
from tests.live import Live
from tests.oidc_provider import CLIENT, SECRET, Provider, start_provider
from tests.screenshots import sign_in
from tests.signing import code_of

PASSWORD = "a long enough sentence"
PICTURES = os.environ.get("MAAS_SIGN_IN_PICTURES")


@pytest.fixture(scope="module")
def owner() -> tuple[User, Key]:
    """Somebody who has not confirmed their address. Made before the browser runs: Playwright's loop forbids queries."""
    user = make_user("web")
    return user, make_key(make_tenant(user, "web"))


@pytest.fixture(scope="module")
def browser(owner: tuple[User, Key]) -> Iterator[Browser]:
    needs(CHROMIUM.exists(), f"no Chromium at {CHROMIUM}: apt-get install --no-install-recommends chromium fonts-dejavu-core")
    with open_browser() as running:
        yield running


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with start_provider() as running:
        yield running


@pytest.fixture(scope="module")
def web(provider: Provider, owner: tuple[User, Key]) -> Iterator[Live]:
    """The web process under the name localhost, because passkeys need a name; mail must be confirmed."""
    with start_web(provider, owner, MAAS_EMAIL_VERIFICATION="mandatory") as running:
        yield running


@contextmanager
def start_web(provider: Provider, owner: tuple[User, Key], **more: str) -> Iterator[Live]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    oidc = {"URL": provider.url, "CLIENT_ID": CLIENT, "CLIENT_SECRET": SECRET, "NAME": "Acme ID"}
    env = {
        **os.environ, "MAAS_URL": f"http://localhost:{port}", "MAAS_BIND": f"127.0.0.1:{port}", "PYTHONPATH": str(ROOT),
        **{f"MAAS_OIDC_{name}": value for name, value in oidc.items()}, **more,
    }  # fmt: skip
    user, key = owner
    running = Live(f"http://localhost:{port}", key, user.email, PASSWORD, HOME, env)
    try:
        running.start("web")
        wait_for(running)
        yield running
    finally:
        running.stop()


def wait_for(running: Live) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(f"{running.url}/healthz", timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise AssertionError(running.log("web")[-3000:])


@dataclass
class Person:
    """Somebody at a browser of their own. The page has complained about nothing when the test ends."""

    page: Page
    url: str
    email: str = ""
    refused: str = ""  # the status that this test is about, which the console mentions

    def open(self, path: str) -> None:
        self.page.goto(self.url + path)
        assert sideways(self.page) == 0, path

    def sign_out(self) -> None:
        self.page.click("text=Sign out")
        self.page.wait_for_url(re.compile("/accounts/login/"))

    def give(self, name: str, value: str) -> None:
        self.page.fill(f"main [name={name}]", value)

    def go_on(self) -> None:
        self.page.click("main button.primary")

    def picture(self, name: str) -> None:
        """A picture of the page, if pictures are wanted; it must fit in any case."""
        if PICTURES:
            for scheme in ("light", "dark"):
                self.page.emulate_media(color_scheme=scheme)
                self.page.screenshot(path=f"{PICTURES}/{name}-{scheme}.png", full_page=True)
        size = self.page.viewport_size
        self.page.set_viewport_size({"width": 380, "height": 760})
        assert sideways(self.page) == 0, name
        if PICTURES:
            self.page.screenshot(path=f"{PICTURES}/{name}-small.png", full_page=True)
        self.page.set_viewport_size(size)


@contextmanager
def at_a_browser(browser: Browser, web: Live) -> Iterator[Person]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(15_000)
    page = context.new_page()
    complaints = Complaints(page)
    try:
        person = Person(page, web.url)
        yield person
        assert [text for text in complaints.found if not (person.refused and f"status of {person.refused}" in text)] == []
    finally:
        context.close()


@pytest.fixture
def person(browser: Browser, web: Live) -> Iterator[Person]:
    with at_a_browser(browser, web) as someone:
        yield someone


def links_to(email: str, pattern: str) -> list[str]:
    """The links in all mail to an address, oldest first."""
    found = []
    for path in sorted((HOME / "mail").glob("*"), key=lambda path: path.stat().st_mtime):
        for raw in path.read_text().split("-" * 79):
            mail = message_from_string(raw.strip(), policy=default)
            if mail["To"] == email:
                found += re.findall(pattern, mail.get_content())
    return found


def sign_up(person: Person) -> None:
    """Sign up, and follow the link in the mail."""
    name = f"org-{uuid4().hex[:10]}"
    person.email = f"{name}@example.org"
    person.open("/accounts/signup/")
    person.give("email", person.email)
    person.give("organisation", name)
    person.give("password1", PASSWORD)
    person.go_on()
    expect(person.page.locator("h1")).to_have_text("Look into your mail")
    person.picture("check-your-mail")
    person.page.goto(links_to(person.email, r"http://\S+/confirm-email/\S+")[-1])
    person.picture("confirm")
    person.go_on()
    person.page.wait_for_url(person.url + "/")


def test_sign_up_is_confirmed_by_the_link_in_the_mail(person: Person) -> None:
    person.open("/accounts/login/")
    person.picture("sign-in")
    sign_up(person)
    expect(person.page.locator("h1")).to_have_text("Make your first call")
    expect(person.page.get_by_text("Confirm your e-mail address.")).to_have_count(0)
    person.open("/account")
    expect(person.page.locator("main")).to_contain_text("confirmed")
    person.picture("account-new")


def prove(person: Person) -> None:
    expect(person.page.locator("h1")).to_have_text("Confirm that it is you")
    person.picture("reauthenticate")
    person.give("password", PASSWORD)
    person.go_on()


def add_passkey_device(page: Page) -> None:
    """A device that holds passkeys and finds its owner's finger right."""
    session = page.context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    session.send(
        "WebAuthn.addVirtualAuthenticator",
        {
            "options": {
                "protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True,
                "isUserVerified": True, "automaticPresenceSimulation": True,
            }
        },
    )  # fmt: skip


def test_a_passkey_signs_in_without_a_password(person: Person) -> None:
    page = person.page
    add_passkey_device(page)
    sign_up(person)
    person.open("/account")
    page.get_by_role("link", name="Add a passkey").click()
    prove(person)
    expect(page.locator("h1")).to_have_text("Add a passkey")
    person.picture("add-passkey")
    person.give("name", "Work laptop")
    person.go_on()
    expect(page.locator("h1")).to_have_text("Recovery codes")
    person.picture("recovery-codes")
    page.click("text=I have stored them")
    expect(page.locator("main")).to_contain_text("Work laptop")
    expect(page.locator("main")).to_contain_text("signs in without a password")
    person.picture("account-passkey")
    person.sign_out()
    page.click("text=Sign in with a passkey")
    page.wait_for_url(person.url + "/")
    # as the second step it works too, and as proof before a change
    person.sign_out()
    person.give("login", person.email)
    person.give("password", PASSWORD)
    page.click("main button.primary")
    expect(page.locator("h1")).to_have_text("One more step")
    person.picture("second-step")
    page.click("text=Use a passkey")
    page.wait_for_url(person.url + "/")
    person.open("/account")
    page.get_by_role("link", name="Remove Work laptop").click()
    page.get_by_role("link", name="Use a passkey").click()
    person.picture("reauthenticate-passkey")
    page.click("main button.primary")
    expect(page.locator("h1")).to_have_text("Remove the passkey")
    person.picture("remove-passkey")
    page.click("text=Keep it")


def test_a_passkey_is_renamed_and_removed(person: Person) -> None:
    page = person.page
    add_passkey_device(page)
    sign_up(person)
    person.open("/accounts/2fa/webauthn/add/")
    prove(person)
    person.go_on()
    expect(page.locator("h1")).to_have_text("Recovery codes")
    person.open("/account")
    page.get_by_role("link", name="Rename Passkey 1").click()
    person.picture("rename-passkey")
    person.give("name", "Phone")
    person.go_on()
    expect(page.locator("main")).to_contain_text("Phone")
    page.get_by_role("link", name="Remove Phone").click()
    page.get_by_role("button", name="Remove the passkey").click()
    expect(page.get_by_text("The passkey is removed.")).to_be_visible()
    expect(page.locator("main")).not_to_contain_text("Phone")


def test_a_device_without_the_passkey_is_told_so(person: Person) -> None:
    add_passkey_device(person.page)
    person.open("/accounts/login/")
    person.page.click("text=Sign in with a passkey")
    expect(person.page.get_by_role("alert")).to_contain_text("cancelled", timeout=70_000)
    person.picture("no-passkey")


def test_an_app_and_recovery_codes_are_asked_for_after_the_password(person: Person) -> None:
    page = person.page
    sign_up(person)
    person.open("/account")
    page.click("text=Add an app")
    prove(person)
    person.picture("add-app")
    secret = page.locator("#totp-secret").inner_text()
    person.give("code", "000000")
    person.go_on()
    expect(page.get_by_role("alert")).to_contain_text("field needs a change")
    assert page.locator("#totp-secret").inner_text() == secret
    person.give("code", code_of(secret))
    person.go_on()
    expect(page.locator("h1")).to_have_text("Recovery codes")
    codes = page.locator("#codes").inner_text().split()
    with page.expect_download() as download:
        page.click("text=Download")
    assert download.value.path().read_text().split() == codes
    person.open("/accounts/2fa/recovery-codes/")
    expect(page.locator("main")).to_contain_text("10 of 10 codes left")
    person.picture("recovery-codes-later")

    second_step(person, code_of(secret))
    page.wait_for_url(person.url + "/")
    second_step(person, codes[0])
    page.wait_for_url(person.url + "/")
    second_step(person, codes[0])
    expect(page.get_by_role("alert")).to_be_visible()
    person.picture("wrong-code")
    page.click("text=Cancel")
    page.wait_for_url(re.compile("/accounts/login/"))


def second_step(person: Person, code: str) -> None:
    person.sign_out()
    person.give("login", person.email)
    person.give("password", PASSWORD)
    person.go_on()
    expect(person.page.locator("h1")).to_have_text("One more step")
    person.give("code", code)
    person.page.keyboard.press("Enter")
    person.page.wait_for_load_state()


def test_an_app_is_removed_and_its_codes_with_it(person: Person) -> None:
    page = person.page
    sign_up(person)
    person.open("/accounts/2fa/totp/activate/")
    prove(person)
    person.give("code", code_of(page.locator("#totp-secret").inner_text()))
    person.go_on()
    expect(page.locator("h1")).to_have_text("Recovery codes")
    person.open("/account")
    page.click("text=Make new ones")
    person.picture("new-codes")
    person.go_on()
    expect(page.locator("#codes")).to_be_visible()
    person.open("/account")
    person.picture("account-app")
    page.get_by_role("link", name="Remove the authenticator app").click()
    person.picture("remove-app")
    person.go_on()
    expect(page.get_by_text("The authenticator app is removed.")).to_be_visible()
    expect(page.locator("main")).not_to_contain_text("Recovery codes")


def test_one_browser_ends_the_session_of_another(browser: Browser, web: Live, person: Person) -> None:
    sign_up(person)
    with at_a_browser(browser, web) as elsewhere:
        sign_in(elsewhere.page, web.url, person.email, PASSWORD)
        person.open("/account")
        person.picture("account-sessions")
        rows = person.page.locator("tr", has_text="Chrome on Linux")
        expect(rows).to_have_count(2)
        expect(rows.filter(has_text="this one")).to_have_count(1)
        person.page.locator("td form button", has_text="End").click()
        expect(person.page.get_by_text("is ended.")).to_be_visible()
        elsewhere.page.reload()
        elsewhere.page.wait_for_url(re.compile("/accounts/login/"))
        sign_in(elsewhere.page, web.url, person.email, PASSWORD)
        person.open("/account")
        person.page.click("text=End all others")
        expect(person.page.get_by_text("All other sessions are ended.")).to_be_visible()
        elsewhere.open("/account")
        assert "/accounts/login/" in elsewhere.page.url


def test_a_person_of_the_provider_comes_in_and_makes_an_organisation(person: Person, provider: Provider) -> None:
    page, name = person.page, uuid4().hex[:10]
    provider.person = {"sub": name, "email": f"{name}@example.org", "email_verified": True}
    person.open("/accounts/login/")
    page.click("text=Go on with Acme ID")
    page.wait_for_url(person.url + "/organisations/new")
    person.give("organisation", f"org-{name}")
    person.go_on()
    page.wait_for_url(person.url + "/")
    person.open("/account")
    expect(page.locator("main")).to_contain_text("linked")
    person.picture("account-provider")
    page.click("text=Set a password")
    person.picture("set-password")


def test_an_address_that_is_taken_is_refused_with_the_way_out(person: Person, provider: Provider, web: Live) -> None:
    provider.person = {"sub": uuid4().hex, "email": web.email, "email_verified": True}
    person.open("/accounts/signup/")
    person.picture("sign-up")
    person.refused = "403"
    person.page.click("text=Go on with Acme ID")
    expect(person.page.locator("h1")).to_have_text("You are not signed in")
    person.picture("refused")


def test_too_many_tries_lead_to_a_page_that_says_how_long(browser: Browser, provider: Provider, owner: tuple[User, Key]) -> None:
    more = {"MAAS_NO_LOGIN_LIMITS": "0", "MAAS_LOCKOUT_FAILURES": "2"}
    with start_web(provider, owner, **more) as web, at_a_browser(browser, web) as person:
        person.refused = "429"
        for _ in range(2):
            person.open("/accounts/login/")
            person.give("login", web.email)
            person.give("password", "not the password")
            person.go_on()
        expect(person.page.locator("h1")).to_have_text("Too many tries")
        expect(person.page.locator("main")).to_contain_text("15 minutes")
        person.picture("locked-out")
