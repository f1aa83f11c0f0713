"""The operator at a browser: signing in with a second factor, the admin's pages, and looking at an organisation."""

import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, Page, expect

from apps.accounts.models import Tenant
from apps.accounts.services import get_membership
from apps.billing import credits
from tests.belongings import belongings
from tests.browser import CHROMIUM, Complaints, open_browser, sideways
from tests.cast import PASSWORD, Cast, make_cast
from tests.conftest import HOME, ROOT, needs
from tests.live import Live
from tests.operating import Operator, make_operator
from tests.test_browser_sign_in import wait_for

PICTURES = os.environ.get("MAAS_OPERATOR_PICTURES")


@dataclass(frozen=True)
class Scene:
    """All that is made before the browser runs: Playwright's loop forbids queries."""

    cast: Cast
    stopped: Tenant
    operator: Operator
    web: Live


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    cast, operator = make_cast(), make_operator(superuser=True)
    belongings(cast)
    operator.do(cast.other, "suspend", reason="invoices of June to August are not paid")
    operator.do(cast.tenant, "credit", amount="25.00", reason="sorry for the outage of 3 November")
    operator.do(cast.tenant, "plan", plan="team")
    assert credits.balance(cast.tenant) == 25_000_000
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://localhost:{port}"
    env = {**os.environ, "MAAS_URL": url, "MAAS_BIND": f"127.0.0.1:{port}", "PYTHONPATH": str(ROOT)}
    web = Live(url, cast.key, operator.user.email, PASSWORD, HOME, env)
    try:
        web.start("web")
        wait_for(web)
        yield Scene(cast, get_membership(cast.stranger, None).tenant, operator, web)
    finally:
        web.stop()


@pytest.fixture(scope="module")
def browser(scene: Scene) -> Iterator[Browser]:
    needs(CHROMIUM.exists(), f"no Chromium at {CHROMIUM}: apt-get install --no-install-recommends chromium fonts-dejavu-core")
    with open_browser() as running:
        yield running


@pytest.fixture
def admin(scene: Scene, page: Page) -> Page:
    """A page of the operator, signed in by our own form and a code."""
    page.goto(f"{scene.web.url}/operator/")
    page.fill("[name=login]", scene.web.email)
    page.fill("[name=password]", PASSWORD)
    page.click("main button.primary")
    page.fill("[name=code]", scene.operator.codes.pop())
    page.click("main button.primary")
    page.wait_for_url(re.compile("/operator/accounts/tenant/"))
    return page


def picture(page: Page, name: str) -> None:
    """In light, dark and at 380 px, if pictures are wanted; it must not be wider than the window in any case."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.reload()  # the admin looks at the theme when it starts
        page.wait_for_timeout(150)
        if PICTURES:
            page.screenshot(path=f"{PICTURES}/{name}-{scheme}.png", full_page=True)
    page.set_viewport_size({"width": 380, "height": 760})
    page.wait_for_timeout(200)
    if PICTURES:
        page.screenshot(path=f"{PICTURES}/{name}-small.png", full_page=True)
    assert sideways(page) <= 0, name
    page.set_viewport_size({"width": 1280, "height": 900})
    page.emulate_media(color_scheme="light")


def test_every_page_of_the_admin_is_drawn_without_a_complaint(scene: Scene, admin: Page) -> None:
    complaints, tenant = Complaints(admin), scene.cast.tenant
    foreign: list[str] = []
    admin.on(
        "request", lambda request: foreign.append(request.url) if not request.url.startswith((scene.web.url, "data:", "blob:")) else None
    )
    paths = {
        "organisations": "accounts/tenant/", "suspended": "accounts/tenant/?state=suspended",
        "organisation": f"accounts/tenant/{tenant.id}/change/", "suspend": f"deeds/tenant/{tenant.id}/suspend",
        "plan": f"deeds/tenant/{tenant.id}/plan", "credit": f"deeds/tenant/{tenant.id}/credit", "people": "accounts/user/?q=example.org",
        "person": f"accounts/user/{scene.cast.owner.pk}/change/", "plans": "plans/", "invoices": "billing/invoice/",
        "coupons": "billing/coupon/", "new-coupon": "coupons/new",
    }  # fmt: skip
    for name, path in paths.items():
        admin.goto(f"{scene.web.url}/operator/{path}")
        expect(admin.locator("#main")).to_be_visible()
        picture(admin, name)
    assert complaints.found == [] and foreign == []


def test_a_search_by_a_members_address_leads_to_the_organisation(scene: Scene, admin: Page) -> None:
    admin.fill("#searchbar", scene.cast.viewer.email)
    admin.keyboard.press("Enter")
    admin.click(f"text={scene.cast.tenant.slug}")
    expect(admin.locator("#main")).to_contain_text(scene.cast.owner.email)
    expect(admin.locator("#main")).to_contain_text("sorry for the outage")


def test_the_operator_looks_and_leaves(scene: Scene, admin: Page) -> None:
    complaints, tenant = Complaints(admin), scene.cast.tenant
    admin.goto(f"{scene.web.url}/operator/accounts/tenant/{tenant.id}/change/")
    admin.click("text=Look as a viewer")
    picture(admin, "look")
    admin.fill("[name=reason]", "they ask why their batch failed")
    admin.click("text=Look at it")
    banner = admin.locator(".visiting")
    expect(banner).to_contain_text(f"You look at {tenant.slug} as its operator")
    for name, path in {"overview": "/", "jobs": "/jobs", "keys": "/keys", "team": "/team", "model": "/models/cifar10-resnet9"}.items():
        admin.goto(scene.web.url + path)
        expect(banner).to_be_visible()
        picture(admin, f"look-{name}")
    assert admin.locator("text=Create key").count() == 0
    assert complaints.found == []
    banner.get_by_text("Leave").click()
    admin.wait_for_url(re.compile(f"/operator/accounts/tenant/{tenant.id}/change/"))
    admin.goto(f"{scene.web.url}/keys")
    assert admin.locator(".visiting").count() == 0


def test_a_suspended_organisation_says_so_on_every_page(scene: Scene, page: Page) -> None:
    page.goto(f"{scene.web.url}/accounts/login/")
    page.fill("[name=login]", scene.cast.stranger.email)
    page.fill("[name=password]", PASSWORD)
    page.click("main button.primary")
    expect(page.locator("main")).to_contain_text("is suspended since")
    expect(page.locator("main")).to_contain_text("invoices of June to August are not paid")
    picture(page, "stopped-overview")
    page.goto(f"{scene.web.url}/keys/new")
    expect(page.locator("h1")).to_have_text("Not allowed")
    picture(page, "stopped-refused")
