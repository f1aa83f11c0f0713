"""A budget, a coupon, a key's spend limit, the invoice to come and a change of plan, in a real browser."""

from dataclasses import dataclass
from uuid import uuid4

import pytest
from playwright.sync_api import Page, expect

from apps.billing import credits
from tests.browser import Complaints, sideways
from tests.cast import PASSWORD, make_key, make_tenant, make_user
from tests.live import Live
from tests.money import on_plan, use
from tests.screenshots import sign_in


@dataclass(frozen=True)
class Customer:
    """Somebody on the Team plan who used 258,297 units, and a coupon over $2."""

    email: str
    coupon: str


@pytest.fixture(scope="module")
def customer() -> Customer:
    owner = make_user("payer")
    tenant = on_plan(make_tenant(owner, "payer"), "team")
    use(tenant, 258_297, key_id=make_key(tenant).row.id)
    coupon = f"SPRING-{uuid4().hex[:8].upper()}"
    credits.create_coupon(code=coupon, amount=2_000_000)
    return Customer(owner.email, coupon)


def test_what_is_paid_is_limited_and_looked_at(customer: Customer, page: Page, live: Live) -> None:
    complaints = Complaints(page)
    sign_in(page, live.url, customer.email, PASSWORD)
    page.click("nav >> text=Billing")
    expect(page.locator("#total-cents")).to_have_text("$51.49")
    page.fill("#budget_amount", "100")
    page.uncheck("[name=thresholds][value='50']")
    page.click("text=Save")
    expect(page.locator("main")).to_contain_text("The budget is $100 a month from now on")
    expect(page.locator("main")).to_contain_text("$2.4891 spent")
    expect(page.locator("[name=thresholds][value='50']")).not_to_be_checked()

    page.fill("[name=code]", "NO-SUCH-CODE")
    page.click("text=Redeem")
    expect(page.locator("#coupon_code_error")).to_have_text("There is no coupon with this code.")
    page.fill("[name=code]", customer.coupon.lower())
    page.click("text=Redeem")
    expect(page.locator("main")).to_contain_text("$2.00 of credit are added")
    expect(page.locator("#total-cents")).to_have_text("$49.49")
    page.click("text=Details by model and key")
    expect(page.locator("details[open] tbody tr")).to_contain_text(["minilm-squad"])
    expect(page.locator("details[open] tfoot")).to_contain_text("$2.4891")

    page.click("nav >> text=API keys")
    page.locator("tr", has_text="test").get_by_text("Edit").click()
    page.fill("[name=spend_limit]", "50")
    page.click("main button.primary")
    expect(page.locator("main")).to_contain_text("test is changed")
    page.click("nav >> text=Usage")
    expect(page.locator(".note.bad, .note.warn").first).to_contain_text("The spend limit of test is reached.")
    page.click("nav >> text=Billing")
    row = page.locator("#limits").locator("xpath=ancestor::section").locator("tr", has_text="test")
    expect(row).to_contain_text("$77.4891 of $50")
    row.get_by_text("Change").click()
    page.fill("#limit_amount", "80")
    page.click("text=Change limit")
    expect(page.locator("main")).to_contain_text("The spend limit is $80 a month from now on")
    row.get_by_text("Remove").click()
    expect(page.locator("main")).to_contain_text("The limit is taken away")
    assert [text for text in complaints.found if "422" not in text] == []  # the wrong coupon


def test_a_change_of_plan_asks_first(customer: Customer, page: Page, live: Live) -> None:
    complaints = Complaints(page)
    sign_in(page, live.url, customer.email, PASSWORD)
    page.goto(live.url + "/billing")
    page.click("text=Change to Free")
    expect(page.locator("dialog[open]")).to_contain_text("you have used 258,297 this month")
    page.locator("dialog[open]").get_by_text("Stay on Team").click()
    expect(page.locator("dialog[open]")).to_have_count(0)
    page.click("text=Change to Free")
    page.locator("dialog[open] button.primary").click()
    expect(page.locator("main")).to_contain_text("Free takes over on")
    page.locator(".note").get_by_text("Stay on Team").click()
    expect(page.locator("main")).not_to_contain_text("Free takes over on")
    page.set_viewport_size({"width": 380, "height": 800})
    for path in ("/billing", "/usage", "/billing/plan?to=free", "/"):
        page.goto(live.url + path)
        assert sideways(page) == 0, path
    assert complaints.found == []


def test_without_a_script_a_budget_is_set_and_taken_away(customer: Customer, browser, live: Live) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    sign_in(page, live.url, customer.email, PASSWORD)
    page.goto(live.url + "/billing")
    page.fill("#budget_amount", "12.50")
    page.click("text=Save")
    expect(page.locator("main")).to_contain_text("The budget is $12.50 a month")
    page.click("text=Remove the budget")
    expect(page.locator("main")).to_contain_text("The limit is taken away")
    page.click("text=Change to Free")
    expect(page.locator("h1")).to_have_text("Change the plan")
    context.close()
