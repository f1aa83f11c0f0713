"""The billing page where Stripe collects: checkout, card, portal, changes of plan and payments that fail."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import time_machine
from django.utils import timezone

from apps.billing import subscriptions
from tests.cast import Cast, browser_for
from tests.conftest import ROOT, needs
from tests.stripe_people import banking, now_of, on_plan, subscribe, tell
from tests.stripe_server import EXAMPLES, StripeServer
from tests.test_billing_pages import plain

MIDDLE, FIRST = datetime(2027, 3, 16, 12, tzinfo=UTC), datetime(2027, 4, 1, 1, 5, tzinfo=UTC)


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(MIDDLE, tick=False) as found:
        yield found


@pytest.fixture
def bank(settings_of, clock) -> Iterator[StripeServer]:
    needs(EXAMPLES.exists(), f"no examples of Stripe's objects at {EXAMPLES}; set MAAS_TEST_DATA")
    with banking(settings_of) as server:
        yield server


@pytest.fixture
def paying(bank, cast: Cast) -> Cast:
    """An organisation whose Team plan Stripe collects."""
    subscribe(bank, cast.tenant)
    return cast


def read(cast: Cast) -> str:
    return plain(browser_for(cast.owner).get("/billing"))


def test_a_checkout_begins_on_the_page_and_ends_on_it(bank, cast: Cast) -> None:
    on_plan(cast.tenant, "free")
    browser = browser_for(cast.owner)
    asked = plain(browser.get("/billing/plan?to=team"))
    assert "The 16 days left cost about $25.29." in asked and "You pay that at Stripe today." in asked and "Go to Stripe to pay" in asked
    answer = browser.post("/billing/plan", {"to": "team"})
    assert answer.status_code == 303 and answer["Location"].startswith("https://checkout.stripe.com/")
    assert "Stripe has your payment." in plain(browser.get("/billing?paid=1"))
    bank.pay(answer["Location"])
    tell(bank)
    text = plain(browser.get("/billing?paid=1"))
    assert "charged to the Visa card ending 4242" in text and "Team your plan" in text and "Stripe has your payment" not in text


def test_the_portal_is_reached_by_303(paying: Cast) -> None:
    assert "Card, address and invoices in Stripe" in read(paying)
    answer = browser_for(paying.owner).post("/billing/portal")
    assert answer.status_code == 303 and answer["Location"].startswith("https://billing.stripe.com/")


def test_a_rise_is_made_at_stripe(paying: Cast) -> None:
    browser = browser_for(paying.owner)
    assert "That goes on the next invoice." in plain(browser.get("/billing/plan?to=scale"))
    assert browser.post("/billing/plan", {"to": "scale"}).status_code == 302
    assert now_of(paying.tenant).plan == "scale"


def test_an_end_is_made_at_stripe_and_taken_back(paying: Cast) -> None:
    browser = browser_for(paying.owner)
    browser.post("/billing/plan", {"to": "free"})
    assert subscriptions.get_account(paying.tenant).next_plan == "free"
    assert "Free takes over on 1 April 2027." in read(paying)
    browser.post("/billing/plan", {"to": "team"})
    assert "takes over" not in read(paying) and now_of(paying.tenant).plan == "team"


def test_when_stripe_does_not_answer_the_page_says_so(bank, cast: Cast) -> None:
    on_plan(cast.tenant, "free")
    bank.faults.only = lambda method, path: path == "/v1/checkout/sessions"
    bank.faults.queue = ["error"]
    answer = browser_for(cast.owner).post("/billing/plan", {"to": "team"})
    assert answer.status_code == 503 and "Change to Team?" in plain(answer)


def test_a_card_that_is_refused_leads_to_the_invoice_and_the_portal(bank, paying: Cast, clock) -> None:
    customer = bank.state.all("customer")[-1]["id"]
    bank.state.declining.add(customer)
    clock.move_to(FIRST)
    bank.turn_month(timezone.now().timestamp())
    tell(bank)
    page = browser_for(paying.owner).get("/billing")
    text = plain(page)
    assert "A payment of $49.00 is overdue." in text and "Calls go on until 8 April, 01:05 UTC" in text
    assert "Pay the invoice" in text and page.content.decode().count('action="/billing/portal"') == 2


def test_forms_may_lead_to_stripe_where_it_collects_and_nowhere_else() -> None:
    code = "from django.conf import settings; print(settings.CONTENT_SECURITY_POLICY['DIRECTIVES']['form-action'])"
    for secret, leads in (("sk_test_1", True), ("", False)):
        env = {**os.environ, "STRIPE_SECRET_KEY": secret}
        said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
        assert ("https://checkout.stripe.com" in said and "https://billing.stripe.com" in said) == leads
