"""Inviting somebody, changing their role, and keys that are edited and rotated, in a real browser."""

import re
from uuid import uuid4

from playwright.sync_api import Browser, Page, expect

from tests.browser import Complaints, sideways
from tests.live import Live
from tests.test_browser import PASSWORD, mails_to, sign_up


def link_in_mail(live: Live, address: str) -> str:
    return re.search(r"http://\S+/invitations/\S+", mails_to(live, address)[-1]).group()  # type: ignore[union-attr]


def test_an_invited_person_signs_up_and_gets_another_role(page: Page, browser: Browser, live: Live) -> None:
    complaints, guest = Complaints(page), f"guest-{uuid4().hex[:8]}@example.org"
    organisation = sign_up(page, live)
    page.click("nav >> text=Team")
    page.fill("[name=email]", guest)
    page.select_option("form[action='/team/invite'] [name=role]", "viewer")
    page.click("text=Invite >> visible=true")
    expect(page.locator("main")).to_contain_text(f"{guest} is invited")
    expect(page.locator("tr", has_text=guest)).to_contain_text("Invited")

    other = browser.new_context()
    theirs = other.new_page()
    theirs_complaints = Complaints(theirs)
    link = link_in_mail(live, guest)
    theirs.goto(link)
    expect(theirs.locator("h1")).to_have_text(f"Join {organisation}")
    theirs.click("text=Create an account")
    assert theirs.locator("[name=organisation]").count() == 0
    theirs.fill("[name=email]", guest)
    theirs.fill("[name=password1]", PASSWORD)
    theirs.click("main button.primary")
    theirs.wait_for_url(live.url + "/")
    theirs.goto(live.url + "/keys")
    expect(theirs.locator("main")).not_to_contain_text("Create key")

    page.reload()
    row = page.locator("tr", has_text=guest)
    row.locator("select").select_option("developer")  # saves by itself
    expect(page.locator("main")).to_contain_text("is Developer from the next click on")
    theirs.reload()
    expect(theirs.locator("main")).to_contain_text("Create key")

    page.locator("tr", has_text=guest).get_by_text("Remove").click()
    expect(page.locator("dialog")).to_contain_text(f"Remove {guest}?")
    page.locator("dialog button.danger").click()
    expect(page.locator("main")).to_contain_text("is removed")
    theirs.goto(live.url + "/keys")
    expect(theirs).to_have_url(live.url + "/organisations/new")
    theirs.goto(link)
    expect(theirs.locator("main")).to_contain_text("used already")
    assert [text for text in theirs_complaints.found if "400" not in text] == []
    assert complaints.found == []
    other.close()


def test_somebody_else_is_told_whom_the_invitation_is_for(page: Page, browser: Browser, live: Live) -> None:
    guest = f"guest-{uuid4().hex[:8]}@example.org"
    sign_up(page, live)
    page.goto(live.url + "/team")
    page.fill("[name=email]", guest)
    page.click("text=Invite >> visible=true")
    page.wait_for_selector("text=is invited")
    other = browser.new_context()
    theirs = other.new_page()
    sign_up(theirs, live)
    theirs.goto(link_in_mail(live, guest))
    expect(theirs.locator("main")).to_contain_text(f"The invitation is for {guest}")
    theirs.click("main >> text=Sign out")
    expect(theirs.locator("h1")).to_contain_text("Join")
    other.close()


def test_a_key_is_limited_edited_and_rotated(page: Page, live: Live) -> None:
    complaints = Complaints(page)
    sign_up(page, live)
    page.goto(live.url + "/keys/new")
    page.fill("[name=name]", "edge")
    page.check("[name=allowed_models][value=minilm-squad]")
    page.fill("[name=allowed_addresses]", "203.0.113.0/24, 10.0.0.300")
    page.click("main button.primary")
    expect(page.locator("main")).to_contain_text("'10.0.0.300' is no IP address")
    page.fill("[name=allowed_addresses]", "203.0.113.0/24")
    page.click("main button.primary")
    first = page.locator("#new-secret").inner_text()
    page.goto(live.url + "/keys")
    row = page.locator("tr", has_text="edge")
    expect(row).to_contain_text("from 203.0.113.0/24")
    row.get_by_text("Edit").click()
    expect(page.locator("[name=allowed_models][value=minilm-squad]")).to_be_checked()
    page.fill("[name=allowed_addresses]", "")
    page.click("main button.primary")
    expect(page.locator("main")).to_contain_text("edge is changed")
    page.locator("tr", has_text="edge").get_by_text("Rotate").click()
    page.locator("dialog[open] [name=grace]").select_option("7")
    page.locator("dialog[open] button.primary").click()
    expect(page.locator("main")).to_contain_text("has a new secret")
    second = page.locator("#new-secret").inner_text()
    assert first != second
    for secret in (first, second):
        answer = page.request.post(
            live.url + "/v1/predictions", headers={"Authorization": f"Bearer {secret}"}, data={"model": "cifar10-resnet9", "inputs": "x"}
        )
        assert answer.status == 403 and answer.json()["error"]["code"] == "model_not_allowed"
    assert [text for text in complaints.found if "422" not in text] == []  # the form with the wrong address
    page.set_viewport_size({"width": 380, "height": 800})
    for path in ("/team", "/keys", "/keys/new", "/team/transfer"):
        page.goto(live.url + path)
        assert sideways(page) == 0, path
