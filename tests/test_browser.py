"""The main job in a real browser, against the whole product: from sign-up to the counts on the usage page."""

import json
import os
import re
import subprocess
import sys
import time
from email import message_from_string
from email.policy import default
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import Complaints, sideways
from tests.live import Live
from tests.screenshots import make_something, shoot_everything, sign_in

PASSWORD = "a long enough sentence"
NEW_PASSWORD = "quite another long sentence"
STATIC = Path(__file__).resolve().parent.parent / "frontend" / "static"


def sign_up(page: Page, live: Live) -> str:
    name = f"org-{uuid4().hex[:10]}"
    page.goto(live.url + "/accounts/signup/")
    page.fill("[name=email]", f"{name}@example.org")
    page.fill("[name=organisation]", name)
    page.fill("[name=password1]", PASSWORD)
    page.click("main button.primary")
    page.wait_for_url(live.url + "/")
    return name


def mails_to(live: Live, address: str) -> list[str]:
    """The texts of all mail to an address, oldest first."""
    found = []
    for path in sorted((live.home / "mail").glob("*"), key=lambda path: path.stat().st_mtime):
        for raw in path.read_text().split("-" * 79):
            mail = message_from_string(raw.strip(), policy=default)
            if mail["To"] == address:
                found.append(mail.get_content())
    return found


def test_from_sign_up_to_usage(page: Page, live: Live, tmp_path: Path) -> None:
    complaints = Complaints(page)
    sign_up(page, live)

    # a key, and the code beside it runs as it is copied
    page.click("text=Make a key")
    secret = page.locator("#secret").inner_text()
    calls = 0
    for language, command in (("curl", ["bash", "-c"]), ("python", [sys.executable, "-c"])):
        page.locator("#steps label", has_text=re.compile(f"^ ?{language}", re.I)).click()
        code = page.locator(f"#first-{language}").inner_text()
        assert secret in code
        done = subprocess.run([*command, code], capture_output=True, text=True, timeout=60)
        assert "outputs" in done.stdout, done.stdout + done.stderr
        calls += 1
    expect(page.get_by_text("Your first request arrived.")).to_be_visible()

    # every model in the playground
    page.goto(live.url + "/models")
    for name in page.locator("main tbody th a").all_inner_texts():
        page.goto(f"{live.url}/models/{name}")
        page.click("#play-form button.primary")
        expect(page.locator("#play-answer > .tabs")).to_be_visible()
        expect(page.locator("#play-answer")).to_contain_text("Request req_")
        calls += 1
        if page.locator("#picture").count():
            page.set_input_files("#picture", STATIC / "sample.png")
            expect(page.locator("#play-answer .answer")).not_to_be_empty()
            page.wait_for_load_state("networkidle")
            calls += 1

    # a file of requests, watched until it is done
    lines = page.request.get(live.url + "/jobs/sample.jsonl").body()
    count = len(lines.splitlines())
    page.goto(live.url + "/jobs")
    page.click("text=New batch job")
    page.set_input_files("dialog [name=file]", {"name": "mine.jsonl", "mimeType": "application/jsonl", "buffer": lines})
    page.click("dialog button.primary")
    page.wait_for_url(re.compile("/jobs/batch_"))
    expect(page.locator("h1")).to_contain_text("Done", timeout=120_000)
    expect(page.locator("#job-done")).to_have_text(f"{count:,}")
    with page.expect_download() as download:
        page.locator("tr", has_text="Output").get_by_text("Download").click()
    answers = [json.loads(line) for line in Path(download.value.path()).read_text().splitlines()]
    assert [answer["response"]["status_code"] for answer in answers] == [200] * count

    # all of it is counted
    page.goto(live.url + "/usage")
    expect(page.locator("#total-requests")).to_have_text(f"{calls + count:,}")
    with page.expect_download() as download:
        page.click("text=Export CSV")
    rows = Path(download.value.path()).read_text().splitlines()
    column = rows[0].split(",").index("requests")
    assert sum(int(row.split(",")[column]) for row in rows[1:]) == calls + count
    page.goto(live.url + "/")
    expect(page.locator(".stats .fig").first).to_have_text(f"{calls + count:,}")
    assert page.locator("#nudge").count() == 0
    assert complaints.found == []


def test_the_playground_says_what_the_api_says(page: Page, live: Live) -> None:
    sign_in(page, live.url, live.email, live.password)
    page.goto(live.url + "/models?task=question-answering")
    page.locator("main tbody th a").first.click()
    page.eval_on_selector("#question", "field => field.removeAttribute('required')")
    page.fill("#question", "")
    page.click("#play-form button.primary")
    expect(page.get_by_role("alert")).to_contain_text("400: not run, not charged.")
    expect(page.get_by_role("alert")).to_contain_text("inputs.question")
    expect(page.get_by_role("alert")).to_contain_text("req_")


def test_the_playground_compares_two_texts(page: Page, live: Live) -> None:
    sign_in(page, live.url, live.email, live.password)
    page.goto(live.url + "/models/minilm-embed")
    page.fill("#text", "Where is the pump?")
    page.fill("#other", "The pump sits behind the left panel.")
    page.click("#play-form button.primary")
    cosine = page.locator("#play-answer .answer")
    expect(cosine).to_be_visible()
    assert 0.4 < float(cosine.inner_text()) < 1
    expect(page.locator("#play-answer")).to_contain_text("Text 2: 384 numbers")
    page.fill("#text", "word " * 300)
    page.click("#play-form button.primary")
    expect(page.get_by_role("alert")).to_contain_text("302 tokens; this model reads at most 256")


def test_a_revoked_key_needs_its_name_and_stops_at_once(page: Page, live: Live) -> None:
    sign_up(page, live)
    page.goto(live.url + "/keys#create-key")
    page.fill("dialog [name=name]", "edge")
    page.keyboard.press("Control+Enter")
    secret = page.locator("#new-secret").inner_text()
    header = {"Authorization": f"Bearer {secret}"}
    assert page.request.get(live.url + "/v1/models", headers=header).status == 403  # it may only predict
    page.goto(live.url + "/keys")
    page.get_by_role("link", name="Revoke edge").click()
    page.fill("#revoke-name", "edge")
    page.click("dialog button.danger")
    expect(page.get_by_text("edge is revoked.")).to_be_visible()
    assert page.request.get(live.url + "/v1/models", headers=header).status == 401


def test_a_password_is_reset_by_mail(page: Page, live: Live) -> None:
    name = sign_up(page, live)
    address = f"{name}@example.org"
    page.click("text=Sign out")
    page.wait_for_url(re.compile("/accounts/login/"))
    page.click("text=Forgot the password?")
    page.fill("[name=email]", address)
    page.click("button.primary")
    expect(page.locator("h1")).to_have_text("Look into your mail")
    link = re.search(r"http://\S+/password/reset/key/\S+", mails_to(live, address)[-1])
    assert link
    page.goto(link[0])
    page.fill("[name=password1]", NEW_PASSWORD)
    if page.locator("[name=password2]").count():
        page.fill("[name=password2]", NEW_PASSWORD)
    page.click("main button.primary")
    expect(page.locator("h1")).to_have_text("The password is changed")
    page.context.clear_cookies()
    sign_in(page, live.url, address, NEW_PASSWORD)


def test_the_address_is_confirmed_by_mail(page: Page, live: Live) -> None:
    address = f"{sign_up(page, live)}@example.org"
    link = re.search(r"http://\S+/confirm-email/\S+", mails_to(live, address)[0])
    assert link
    page.goto(link[0])
    page.click("main button.primary")
    page.goto(live.url + "/accounts/email/")
    expect(page.locator("main")).to_contain_text("confirmed")
    expect(page.locator("main")).not_to_contain_text("not confirmed")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_small_screen_and_complain_about_nothing(browser: Browser, live: Live, scheme) -> None:
    context = browser.new_context(viewport={"width": 380, "height": 760}, color_scheme=scheme)
    page = context.new_page()
    complaints = Complaints(page)
    for address in ("/accounts/signup/", "/accounts/login/", "/accounts/password/reset/"):
        page.goto(live.url + address)
        assert sideways(page) == 0, address
    sign_in(page, live.url, live.email, live.password)
    pages = "/ /models /models?view=cards /jobs /jobs/new /files /usage /keys#create-key /account /team /audit /webhooks /webhooks/new"
    for address in pages.split():
        page.goto(live.url + address)
        assert sideways(page) == 0, address
    context.close()
    assert complaints.found == []


def test_the_keyboard_reaches_everything_and_shows_where_it_is(page: Page, live: Live) -> None:
    sign_in(page, live.url, live.email, live.password)
    page.goto(live.url + "/models")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to content")
    for _ in range(12):
        page.keyboard.press("Tab")
        style = "getComputedStyle(document.activeElement)"
        assert page.evaluate(f"{style}.outlineStyle") == "solid" and page.evaluate(f"parseFloat({style}.outlineWidth)") >= 2
    page.locator("h1").click()
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()


def test_the_theme_is_kept(page: Page, live: Live) -> None:
    sign_in(page, live.url, live.email, live.password)
    page.click("[data-theme-toggle]")
    page.click("[data-theme-toggle]")
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    expect(page.locator("[data-theme-label]")).to_have_text("dark")


def test_pages_work_without_a_script(browser: Browser, live: Live) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    name = sign_up(page, live)
    page.goto(live.url + "/keys")
    page.click("text=Create key")
    page.fill("[name=name]", "plain")
    page.click("main button.primary")
    assert page.locator("#new-secret").inner_text().startswith("maas_")
    page.goto(live.url + "/models?task=translation")
    page.locator("main tbody th a").first.click()
    page.click("#play-form button.primary")
    expect(page.locator("#play-answer")).to_contain_text("Translation")
    line = {"custom_id": "1", "method": "POST", "url": "/v1/predictions", "body": {"model": "no-such-model", "inputs": "x"}}
    page.goto(live.url + "/jobs/new")
    page.set_input_files("[name=file]", {"name": "one.jsonl", "mimeType": "x", "buffer": json.dumps(line).encode()})
    page.click("main button.primary")
    expect(page.locator("h1")).to_contain_text("one.jsonl")
    until = time.monotonic() + 60
    while "Queued" in page.locator("h1").inner_text() or "Running" in page.locator("h1").inner_text():
        assert time.monotonic() < until
        time.sleep(1)
        page.reload()
    expect(page.locator("main")).to_contain_text("model_not_found")
    page.click("text=Sign out")
    assert "/accounts/login/" in page.url and name not in page.content()
    context.close()


@pytest.mark.skipif("MAAS_SCREENSHOTS" not in os.environ, reason="set MAAS_SCREENSHOTS to a folder to take pictures")
def test_pictures_of_every_page(browser: Browser, live: Live) -> None:
    make_something(live.url, live.key.secret)
    assert shoot_everything(browser, live.url, os.environ["MAAS_SCREENSHOTS"], live.email, live.password) == 0
