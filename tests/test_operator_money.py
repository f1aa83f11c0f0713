"""What an operator does about money: plans, credit, coupons, invoices, each by its service and into the log."""

from datetime import date

import pytest
from django.utils import timezone

from apps.accounts.services import get_membership
from apps.billing import credits, invoices, subscriptions
from apps.billing.models import Collector, Coupon, Invoice, InvoiceState
from maas.actors import SYSTEM, acting
from maas.tenancy import as_tenant
from tests.cast import browser_for
from tests.operating import make_operator, told


def deed(operator, invoice: Invoice, name: str, **fields: str):
    return operator.browser.post(f"/operator/deeds/invoice/{invoice.pk}/{name}", fields)


@pytest.fixture
def invoice(cast) -> Invoice:
    with as_tenant(cast.tenant.id):
        return Invoice.objects.create(
            tenant=cast.tenant, number=f"T-{cast.tenant.slug}", state=InvoiceState.OPEN, collected_by=Collector.MANUAL,
            period=date(2026, 10, 1), subtotal_cents=4_900, total_cents=4_900, due_at=timezone.now(),
        )  # fmt: skip


def test_a_plan_is_changed_by_the_operator_whatever_is_offered_to_members(cast) -> None:
    operator = make_operator()
    for plan in ("team", "scale"):
        assert operator.do(cast.tenant, "plan", plan=plan).status_code == 302
        assert get_membership(cast.owner, None).tenant.plan == plan
    assert operator.do(cast.tenant, "plan", plan="free").status_code == 302
    assert get_membership(cast.owner, None).tenant.plan == "scale"  # until the 1st
    said = told(cast.tenant, "billing.plan_changed")
    assert {one["actor"]["name"] for one in said} == {operator.user.email} and said[-1]["after"]["plan"] == "free"
    assert operator.do(cast.tenant, "plan", plan="golden").status_code == 422


def test_a_plan_that_stripe_collects_is_left_to_stripe(cast) -> None:
    with acting(SYSTEM):
        subscriptions.set_collector(cast.tenant, collected_by=Collector.STRIPE)
    operator = make_operator()
    assert "Change plan" not in operator.browser.get(f"/operator/accounts/tenant/{cast.tenant.id}/change/").content.decode()
    operator.do(cast.tenant, "plan", plan="team")
    assert get_membership(cast.owner, None).tenant.plan == "unlimited"


def test_credit_is_granted_and_taken_back_in_whole_cents(cast) -> None:
    operator = make_operator()
    assert operator.do(cast.tenant, "credit", amount="12.34", reason="an outage").status_code == 302
    assert credits.balance(cast.tenant) == 12_340_000
    assert operator.do(cast.tenant, "credit", amount="-2.34", reason="a mistake").status_code == 302
    assert credits.balance(cast.tenant) == 10_000_000
    for amount, reason in (("-11", "x"), ("0.001", "x"), ("5", ""), ("0", "x")):
        assert operator.do(cast.tenant, "credit", amount=amount, reason=reason).status_code == 422, amount
    said = told(cast.tenant, "billing.credit_granted")
    assert [one["after"]["amount"] for one in said] == [12_340_000, -2_340_000] and said[0]["actor"]["role"] == "operator"


def test_an_owner_cannot_grant_credit_change_plans_for_nothing_or_make_coupons(cast) -> None:
    browser = browser_for(cast.owner)
    for path in (f"deeds/tenant/{cast.tenant.id}/credit", f"deeds/tenant/{cast.tenant.id}/plan", "coupons/new"):
        assert browser.post(f"/operator/{path}", {"amount": "5", "reason": "x", "plan": "free", "code": "FREE5"}).status_code == 403
    assert credits.balance(cast.tenant) == 0 and not Coupon.objects.filter(code="FREE5").exists()


def test_a_coupon_is_made_listed_and_worth_what_was_said(cast) -> None:
    operator, code = make_operator(), cast.tenant.slug.upper()[-8:]
    answer = operator.browser.post("/operator/coupons/new", {"code": code.lower(), "amount": "5.00", "most": "10"})
    assert answer.status_code == 302
    assert credits.redeem_coupon(cast.tenant, code=code).amount == 5_000_000
    assert operator.browser.post("/operator/coupons/new", {"code": code, "amount": "5.00"}).status_code == 422
    page = operator.browser.get("/operator/billing/coupon/").content.decode()
    assert code in page and "$5.00" in page and "1 / 10" in page


def test_an_invoice_is_marked_as_paid_once_and_the_log_tells(cast, invoice) -> None:
    operator = make_operator()
    assert deed(operator, invoice, "paid", note="bank transfer").status_code == 302
    assert deed(operator, invoice, "void", note="too late").status_code == 302
    found, _lines = invoices.get_invoice(cast.tenant, invoice.pk)
    assert (found.state, found.note) == (InvoiceState.PAID, "bank transfer")
    (said,) = told(cast.tenant, "billing.invoice_changed")
    assert said["after"]["state"] == "paid" and said["actor"]["name"] == operator.user.email


def test_an_invoice_is_voided_or_given_up(cast, invoice) -> None:
    operator = make_operator()
    assert deed(operator, invoice, "give-up").status_code == 302
    assert deed(operator, invoice, "void").status_code == 302
    assert invoices.get_invoice(cast.tenant, invoice.pk)[0].state == InvoiceState.VOID


def test_invoices_and_an_organisations_money_are_shown(cast, invoice) -> None:
    operator = make_operator()
    operator.do(cast.tenant, "credit", amount="7.00", reason="a welcome")
    for path in ("billing/invoice/", f"billing/invoice/{invoice.pk}/change/", f"accounts/tenant/{cast.tenant.id}/change/"):
        page = operator.browser.get(f"/operator/{path}", {"q": cast.tenant.slug}).content.decode()
        assert invoice.number in page and "$49.00" in page, path
    assert "a welcome" in page and "$7.00" in page
    assert operator.browser.post(f"/operator/billing/invoice/{invoice.pk}/change/", {"state": "paid"}).status_code == 403
