"""The billing page in each of its states, who may see it, and that its figures are the services' to the cent."""

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from apps.accounts import keys, members
from apps.billing import budgets, credits, invoices, subscriptions, terms
from apps.billing.alerts import sweep_alerts
from apps.billing.invoices import InvoiceState
from apps.billing.months import end_of, this_month
from apps.billing.plans import plan_of
from apps.dashboard import bills, changes, money
from apps.dashboard.deeds import DEEDS
from apps.dashboard.pace import Pace
from apps.payments.services import PaymentStatus
from maas import ids
from maas.events import PaymentOverdue
from tests.cast import Cast, browser_for, make_user
from tests.money import on_plan, use

DOLLAR = 1_000_000


@pytest.fixture
def team(cast: Cast) -> Cast:
    on_plan(cast.tenant, "team")
    return cast


@pytest.fixture
def free(cast: Cast) -> Cast:
    on_plan(cast.tenant, "free")
    return cast


def read(cast: Cast, address: str = "/billing") -> str:
    """The page without tags, as one reads it."""
    answer = browser_for(cast.owner).get(address)
    assert answer.status_code == 200, answer.content.decode()[-3000:]
    return plain(answer)


def plain(answer) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", answer.content.decode())).replace("&#x27;", "'")


def member(cast: Cast, role: str):
    user = make_user(role)
    members.admit(cast.tenant, user=user, role=role)
    return browser_for(user)


def sell(cast: Cast, amount: int = 5 * DOLLAR) -> str:
    """A coupon, and its code."""
    code = f"T-{ids.uuid7().hex[-12:].upper()}"
    credits.create_coupon(code=code, amount=amount)
    return code


# ---------- figures ----------
@pytest.mark.parametrize(
    ("amount", "text"),
    [(300, "$0.0003"), (2_489_100, "$2.4891"), (49_000_000, "$49.00"), (-1_500_000, "-$1.50"), (1_234_567_890_000, "$1,234,567.89")],
)
def test_money_is_written_exactly(amount: int, text: str) -> None:
    assert money.exact(amount) == text


def test_typed_dollars_become_whole_micro_dollars() -> None:
    field = money.DollarField()
    assert [field.clean(text) for text in ("0.1", "100", "0.000001", "2.50")] == [100_000, 100_000_000, 1, 2_500_000]
    assert all(field.clean(money.typed(amount)) == amount for amount in (1, 100_000, 49 * DOLLAR, 1_234_567_890))


def test_the_lines_add_up_to_what_the_service_says(team: Cast) -> None:
    use(team.tenant, 258_297, key_id=team.key.row.id)
    use(team.tenant, 41, model="minilm-sst2")
    preview = invoices.preview(team.tenant)
    bill = bills.read_bill(team.tenant, Pace(0, 14))
    assert bill.total == preview.total_cents == bill.forecast_total
    assert sum(part["row"].amount for part in bill.details) == bill.statement.amount
    text = read(team)
    assert money.cents(preview.total_cents) in text and "8,338" in text and "$0.30 per 1,000" in text


def test_the_forecast_follows_the_pace(team: Cast) -> None:
    use(team.tenant, 250_000)
    seconds = (end_of(this_month()) - timezone.now()).total_seconds()
    bill = bills.read_bill(team.tenant, Pace(1_400_000, 14))
    assert bill.forecast_units == pytest.approx(250_000 + 100_000 * seconds / 86_400, rel=0.001)
    assert bill.forecast_total > bill.total


def test_the_forecast_ends_at_a_hard_budget(team: Cast) -> None:
    budgets.set_budget(team.tenant, scope="tenant", amount=3 * DOLLAR)
    use(team.tenant, 250_000)
    bill = bills.read_bill(team.tenant, Pace(10**9, 1))
    assert bill.forecast_units == 260_000 and bill.forecast_total == bill.total + 300


# ---------- who ----------
@pytest.mark.parametrize("role", ["viewer", "developer"])
def test_others_are_told_who_sees_it(team: Cast, role: str) -> None:
    answer = member(team, role).get("/billing")
    assert answer.status_code == 403 and "for owners and admins" in plain(answer) and "$" not in plain(answer)


def test_an_admin_sees_it(team: Cast) -> None:
    answer = member(team, "admin").get("/billing")
    assert answer.status_code == 200 and "Next invoice" in plain(answer)


@pytest.mark.parametrize("role", ["viewer", "developer"])
def test_others_change_nothing(team: Cast, role: str) -> None:
    budget = budgets.set_budget(team.tenant, scope="tenant", amount=DOLLAR)
    posts = {
        "/billing/budget": {"amount": "9", "at_limit": "stop"},
        "/billing/redeem": {"code": sell(team)},
        "/billing/limits": {"subject": "model:x", "amount": "1", "at_limit": "stop"},
        f"/billing/budgets/{ids.encode(ids.BUDGET, budget.id)}/delete": {},
        "/billing/plan": {"to": "free"},
        "/billing/portal": {},
    }
    browser = member(team, role)
    for address, data in posts.items():
        assert browser.post(address, data).status_code == 403, address
    assert [row.amount for row in budgets.list_budgets(team.tenant)] == [DOLLAR]
    assert credits.balance(team.tenant) == 0 and subscriptions.get_account(team.tenant).next_plan == ""
    assert browser.get("/billing/plan?to=scale").status_code == 403


@pytest.mark.parametrize("address", ["budget", "limits", "redeem"])
def test_a_form_that_does_not_fit_shows_others_nothing_either(team: Cast, address: str) -> None:
    answer = member(team, "developer").post(f"/billing/{address}", {"amount": "", "code": ""})
    assert answer.status_code == 403 and "Owners and admins look after billing" in plain(answer) and "$49" not in plain(answer)


def test_posts_need_a_csrf_token(team: Cast) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(team.owner, backend="allauth.account.auth_backends.AuthenticationBackend")
    for address in ("budget", "limits", "redeem", "portal", "plan"):
        assert strict.post(f"/billing/{address}", {"amount": "9", "at_limit": "stop", "to": "free"}).status_code == 403, address
    assert budgets.list_budgets(team.tenant) == []


def test_another_organisation_sees_and_changes_nothing(team: Cast) -> None:
    on_plan(team.other, "team")
    budget = budgets.set_budget(team.tenant, scope="tenant", amount=77 * DOLLAR)
    use(team.tenant, 300_123)
    stranger = browser_for(team.stranger)
    text = plain(stranger.get("/billing"))
    assert "300,123" not in text and "$77" not in text
    assert stranger.post(f"/billing/budgets/{ids.encode(ids.BUDGET, budget.id)}/delete").status_code == 404
    assert budgets.get_budget(team.tenant, budget.id).amount == 77 * DOLLAR


def test_the_menu_leads_there_for_those_who_may(team: Cast) -> None:
    assert 'href="/billing"' in browser_for(team.owner).get("/team").content.decode()
    assert 'href="/billing"' not in browser_for(team.viewer).get("/team").content.decode()


# ---------- states ----------
def test_without_prices_nothing_is_charged(cast: Cast) -> None:
    use(cast.tenant, 12)
    text = read(cast)
    assert "Nothing is charged here" in text and "Plans" not in text and "$49" not in text


def test_the_free_plan_says_when_calls_stop(free: Cast) -> None:
    use(free.tenant, 8_212)
    text = read(free)
    assert "8,212 of 10,000 units" in text and "Then calls stop until" in text and "82% of the plan's units are used" in text


def test_a_used_up_plan_says_what_to_do(free: Cast) -> None:
    use(free.tenant, 10_000)
    for address in ("/billing", "/usage", "/"):
        text = read(free, address)
        assert "The 10,000 units of the Free plan are used." in text and "quota_exceeded" in text, address
    seen = plain(browser_for(free.viewer).get("/usage"))
    assert "are used" in seen and "Owners and admins can change it" in seen


def test_a_failed_payment_says_from_when_calls_stop(team: Cast) -> None:
    use(team.tenant, 1)
    subscriptions.note_overdue(team.tenant, since=timezone.now())
    until = terms.cut_off_at(subscriptions.get_account(team.tenant).overdue_since)
    for address in ("/billing", "/usage", "/"):
        text = read(team, address)
        assert "A payment is overdue." in text and f"Calls go on until {until:%-d %B, %H:%M} UTC" in text, address
    assert "A payment is overdue; calls stop on" in read(team)  # in the log


def test_past_the_grace_calls_have_stopped(team: Cast) -> None:
    subscriptions.note_overdue(team.tenant, since=timezone.now() - timedelta(days=8))
    assert "Calls have stopped with 402 since" in read(team)
    subscriptions.note_paid(team.tenant)
    text = read(team)
    assert "Calls have stopped" not in text and "A payment that was overdue is made." in text


def test_invoices_are_listed_with_their_state(team: Cast) -> None:
    paid = {"period": this_month(), "subtotal_cents": 7140, "total_cents": 7140, "tax_cents": 0, "currency": "usd"}
    stripe_id = f"in_{ids.uuid7().hex}"
    invoices.mirror_invoice(
        team.tenant, stripe_id=stripe_id, number="MA-0007", state=InvoiceState.PAID, paid_at=timezone.now(),
        page_url="https://invoice.stripe.com/i/x", pdf_url="https://pay.stripe.com/x.pdf", **paid,
    )  # fmt: skip
    page = browser_for(team.owner).get("/billing").content.decode()
    assert "MA-0007" in page and "$71.40" in page and "Paid " in page
    assert 'href="https://invoice.stripe.com/i/x"' in page and 'href="https://pay.stripe.com/x.pdf"' in page
    address = re.search(r'href="(/v1/invoices/\w+\?format=csv)"', page)
    assert address and browser_for(team.owner).get(address.group(1)).status_code == 200


def test_the_page_holds_no_inline_script_or_style(team: Cast) -> None:
    use(team.tenant, 300_000)
    budgets.set_budget(team.tenant, scope="tenant", amount=10 * DOLLAR)
    for address in ("/billing", "/billing/plan?to=scale", "/usage"):
        text = browser_for(team.owner).get(address).content.decode()
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", text)


# ---------- budget ----------
def test_a_budget_is_set_changed_and_taken_away(team: Cast) -> None:
    browser = browser_for(team.owner)
    assert browser.post("/billing/budget", {"amount": "100.5", "at_limit": "stop", "thresholds": ["50", "100"]}).status_code == 302
    (budget,) = budgets.list_budgets(team.tenant)
    assert (budget.amount, budget.hard, budget.thresholds) == (100_500_000, True, [50, 100])
    assert 'value="100.50"' in browser.get("/billing").content.decode()
    browser.post("/billing/budget", {"amount": "7", "at_limit": "tell"})
    (budget,) = budgets.list_budgets(team.tenant)
    assert (budget.amount, budget.hard, budget.thresholds) == (7 * DOLLAR, False, [])
    browser.post(f"/billing/budgets/{ids.encode(ids.BUDGET, budget.id)}/delete", {"amount": "", "at_limit": "tell"})
    assert budgets.list_budgets(team.tenant) == []


@pytest.mark.parametrize(
    ("amount", "says"), [("", "required"), ("-1", "greater than or equal to 0"), ("ten", "Enter a number"), ("9" * 12, "less than")]
)
def test_a_budget_that_is_none_is_told_at_its_field(team: Cast, amount: str, says: str) -> None:
    answer = browser_for(team.owner).post("/billing/budget", {"amount": amount, "at_limit": "stop", "thresholds": ["50"]})
    page = answer.content.decode()
    assert answer.status_code == 422 and 'id="budget_amount_error"' in page and says in plain(answer)
    assert f'value="{amount}"' in page or not amount
    assert budgets.list_budgets(team.tenant) == []


def test_a_spent_budget_and_its_alerts_are_shown(team: Cast) -> None:
    budgets.set_budget(team.tenant, scope="tenant", amount=3 * DOLLAR)
    use(team.tenant, 260_000)
    sweep_alerts()
    text = read(team)
    assert "The budget of this month is spent." in text and "$3.00 spent" in text
    assert text.count(f"sent {timezone.now():%-d %b}") == 3
    assert "100% of the budget of $3 were spent" in text


# ---------- spend limits ----------
def test_a_keys_limit_is_set_on_the_billing_page(team: Cast) -> None:
    subject = f"key:{ids.encode(ids.KEY, team.key.row.id)}"
    browser = browser_for(team.owner)
    assert browser.post("/billing/limits", {"subject": subject, "amount": "3", "at_limit": "stop"}).status_code == 302
    use(team.tenant, 1_000, key_id=team.key.row.id)
    text = read(team)
    assert "$0.30 of $3" in text and "API key" in text
    assert 'value="3"' in browser.get(f"/billing?limit={subject}").content.decode()
    use(team.tenant, 9_000, key_id=team.key.row.id)
    assert "The spend limit of test is reached." in read(team, "/usage")


def test_changing_a_limit_keeps_the_thresholds_that_the_api_gave(team: Cast) -> None:
    subject = ids.encode(ids.KEY, team.key.row.id)
    budgets.set_budget(team.tenant, scope="key", subject=subject, amount=DOLLAR, thresholds=(90,))
    browser_for(team.owner).post("/billing/limits", {"subject": f"key:{subject}", "amount": "3", "at_limit": "tell"})
    (budget,) = budgets.list_budgets(team.tenant)
    assert (budget.amount, budget.hard, budget.thresholds) == (3 * DOLLAR, False, [90])


@pytest.mark.parametrize("subject", ["", "key:nonsense", "model:no-such-model", "tenant:"])
def test_a_limit_of_nothing_is_told_at_its_field(team: Cast, subject: str) -> None:
    answer = browser_for(team.owner).post("/billing/limits", {"subject": subject, "amount": "3", "at_limit": "stop"})
    assert answer.status_code == 422 and 'id="limit_subject_error"' in answer.content.decode()


def test_a_key_of_another_organisation_cannot_be_limited(team: Cast) -> None:
    subject = f"key:{ids.encode(ids.KEY, team.other_key.row.id)}"
    assert browser_for(team.owner).post("/billing/limits", {"subject": subject, "amount": "3", "at_limit": "stop"}).status_code == 422
    assert budgets.list_budgets(team.tenant) == budgets.list_budgets(team.other) == []


def test_a_limit_too_many_is_told_on_top(team: Cast, monkeypatch) -> None:
    monkeypatch.setattr(budgets, "MOST", 0)
    answer = browser_for(team.owner).post("/billing/budget", {"amount": "3", "at_limit": "stop"})
    assert answer.status_code == 422 and "Delete one first" in plain(answer)


# ---------- the key's own page ----------
EDIT = {"name": "test", "scopes": "predict", "expires": "keep"}


def test_a_developer_limits_what_a_key_may_cost(team: Cast) -> None:
    key = team.key_with("predict").row
    developer, address = member(team, "developer"), f"/keys/{ids.encode(ids.KEY, key.id)}/edit"
    assert developer.post(address, {**EDIT, "spend_limit": "2.50"}).status_code == 302
    (budget,) = budgets.list_budgets(team.tenant)
    assert (budget.scope, budget.subject, budget.amount, budget.hard) == ("key", key.id.hex, 2_500_000, True)
    assert 'value="2.50"' in developer.get(address).content.decode()
    developer.post(address, {**EDIT, "spend_limit": ""})
    assert budgets.list_budgets(team.tenant) == []


def test_a_wrong_amount_leaves_the_key_as_it_was(team: Cast) -> None:
    address = f"/keys/{ids.encode(ids.KEY, team.key.row.id)}/edit"
    answer = browser_for(team.owner).post(address, {**EDIT, "name": "other", "spend_limit": "-3"})
    assert answer.status_code == 422 and 'id="id_spend_limit_error"' in answer.content.decode()
    assert keys.get_key(team.tenant, team.key.row.id).name == "test"


def test_a_limit_that_is_refused_leaves_the_key_as_it_was(team: Cast, monkeypatch) -> None:
    monkeypatch.setattr(budgets, "MOST", 0)
    address = f"/keys/{ids.encode(ids.KEY, team.key.row.id)}/edit"
    for post in (address, "/keys/new"):
        data = {**EDIT, "expires": "never", "name": "other", "spend_limit": "3"}
        assert browser_for(team.owner).post(post, data).status_code == 422
    assert [key.name for key in keys.list_keys(team.tenant)] == ["test"]


def test_a_new_key_may_have_a_limit_from_the_start(team: Cast) -> None:
    data = {"name": "edge", "scopes": "predict", "expires": "90", "spend_limit": "1"}
    assert browser_for(team.owner).post("/keys/new", data).status_code == 200
    assert [row.amount for row in budgets.list_budgets(team.tenant)] == [DOLLAR]


def test_where_units_cost_nothing_no_amount_is_asked(cast: Cast) -> None:
    assert "spend_limit" not in browser_for(cast.owner).get("/keys/new").content.decode()


# ---------- credit ----------
def test_a_coupon_is_redeemed_once(free: Cast) -> None:
    browser, code = browser_for(free.owner), sell(free)
    assert browser.post("/billing/redeem", {"code": code.lower()}).status_code == 302
    assert credits.balance(free.tenant) == 5 * DOLLAR and f"Coupon {code}" in read(free)
    again = browser.post("/billing/redeem", {"code": code})
    assert again.status_code == 422 and "redeemed this coupon already" in plain(again) and code in again.content.decode()


@pytest.mark.parametrize("code", ["", "no-such-coupon", "x" * 41])
def test_a_wrong_coupon_is_told_at_its_field(free: Cast, code: str) -> None:
    answer = browser_for(free.owner).post("/billing/redeem", {"code": code})
    assert answer.status_code == 422 and 'id="coupon_code_error"' in answer.content.decode()


def test_credit_that_is_used_up_says_so(free: Cast) -> None:
    credits.grant_credit(free.tenant, amount=DOLLAR, reason="welcome")
    use(free.tenant, 12_500)
    text = read(free)
    assert "The prepaid credit is used up." in text and "Paid by credit" in text and "-$1.00" in text


# ---------- plans ----------
def test_without_stripe_the_operator_sells_plans(free: Cast) -> None:
    assert read(free).count("Your operator changes the plan.") == 2
    answer = browser_for(free.owner).post("/billing/plan", {"to": "team"})
    assert answer.status_code == 403 and "Your operator changes plans" in plain(answer)
    assert subscriptions.get_account(free.tenant).next_plan == "" and "Free your plan" in read(free)


def test_leaving_a_paid_plan_is_confirmed_and_taken_back(team: Cast) -> None:
    browser = browser_for(team.owner)
    use(team.tenant, 12_345)
    asked = plain(browser.get("/billing/plan?to=free"))
    assert "Change to Free?" in asked and "you have used 12,345 this month" in asked and "Stay on Team" in asked
    assert browser.post("/billing/plan", {"to": "free"}).status_code == 302
    assert subscriptions.get_account(team.tenant).next_plan == "free"
    text = read(team)
    assert "Free takes over on" in text and "Chosen for next month." in text and "Free will take the place of Team" in text
    browser.post("/billing/plan", {"to": "team"})
    assert subscriptions.get_account(team.tenant).next_plan == ""


@pytest.mark.parametrize("plan", ["", "unlimited", "nonsense"])
def test_a_plan_that_is_not_offered_is_not_found(team: Cast, plan: str) -> None:
    browser = browser_for(team.owner)
    assert browser.get(f"/billing/plan?to={plan}").status_code == browser.post("/billing/plan", {"to": plan}).status_code == 404


def test_a_rise_is_told_in_figures(team: Cast) -> None:
    use(team.tenant, 260_000)
    text = read(team, "/billing/plan?to=scale")
    assert "The 260,000 units of" in text and "cost $0.00 in place of $3.00" in text and "$299 a month" in text


@pytest.mark.parametrize(
    ("status", "mine", "wanted", "way"),
    [
        (PaymentStatus(False, False), "free", "team", changes.OPERATOR),
        (PaymentStatus(False, False), "team", "free", changes.HERE),
        (PaymentStatus(True, False), "free", "team", changes.CHECKOUT),
        (PaymentStatus(True, False), "team", "free", changes.HERE),
        (PaymentStatus(True, True, "active", "team"), "team", "scale", changes.STRIPE),
        (PaymentStatus(True, True, "active", "team"), "team", "free", changes.STRIPE),
    ],
)
def test_each_change_goes_its_way(status: PaymentStatus, mine: str, wanted: str, way: str) -> None:
    assert changes.way_to(plan_of(mine), plan_of(wanted), status) == way


def test_the_portal_without_stripe_is_a_page_that_says_so(team: Cast) -> None:
    answer = browser_for(team.owner).post("/billing/portal")
    assert answer.status_code == 400 and "not set up" in plain(answer)


def test_events_of_money_have_words_in_the_audit_log() -> None:
    assert PaymentOverdue.name in DEEDS and "billing.plan_changed" in DEEDS
