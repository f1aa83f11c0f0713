"""Credit: granted once, drawn across months to the cent, expired by lots; coupons that nobody redeems too often."""

from datetime import date, timedelta
from uuid import uuid4

import pytest
from django.db import connection
from django.db.utils import IntegrityError, ProgrammingError
from django.utils import timezone

from apps.accounts.models import Tenant
from apps.billing import credits, invoices, lots, subscriptions, terms
from apps.billing.models import ClosedMonth, Coupon, CreditEntry
from apps.usage import reservations
from apps.usage.reservations import Work
from maas import errors
from maas.tenancy import as_tenant
from tests.cast import browser_for, client_for, make_tenant
from tests.money import as_member, at, begin, cap, moment, on_plan, together, use

DOLLAR, CENT = 1_000_000, 10_000


def grant(tenant: Tenant, amount: int = DOLLAR, **fields) -> CreditEntry:
    return credits.grant_credit(tenant, amount=amount, reason="goodwill", **fields)


def entries(tenant: Tenant) -> list[tuple[str, int]]:
    return [(entry.kind, entry.amount) for entry in reversed(credits.list_credits(tenant)[0])]


@pytest.fixture
def free(cast) -> Tenant:
    return on_plan(cast.tenant, "free")


# ---------- granting ----------
def test_credit_is_units_above_the_included_ones_at_once(free) -> None:
    period = begin(free)
    grant(free, DOLLAR)
    row = cap(free, period)
    assert (row.cap, row.reason, credits.balance(free)) == (10_000 + 2_500, "insufficient_credit", DOLLAR)


def test_credit_that_came_before_the_month_began_counts(free) -> None:
    grant(free, 3 * CENT)
    assert cap(free, begin(free)).cap == 10_000 + 75


def test_the_same_source_is_granted_once_also_at_the_same_moment(free) -> None:
    found = together(6, lambda _n: grant(free, source="payment 7"))
    assert len({entry.id for entry in found}) == 1
    assert (credits.balance(free), entries(free)) == (DOLLAR, [("grant", DOLLAR)])


@pytest.mark.parametrize("amount", [0, 1, 9_999, 10_001, True, 0.5, 10**14, "5"])
def test_credit_is_whole_cents(free, amount) -> None:
    with pytest.raises(errors.BadRequest) as caught:
        grant(free, amount)
    assert caught.value.param == "amount"


def test_the_database_holds_whole_cents_and_lots_alone(free) -> None:
    lot = grant(free)
    for fields in ({"amount": 5}, {"amount": -CENT}, {"amount": CENT, "lot": lot}):
        with pytest.raises(IntegrityError), as_tenant(free.id):
            CreditEntry.objects.create(tenant=free, kind="grant", **fields)


def test_credit_can_be_taken_back_up_to_what_nobody_used(free) -> None:
    grant(free, 10 * CENT)
    use(free, 10_000 + 100)  # 4 cents
    with pytest.raises(errors.BadRequest, match="Only 60000"):
        grant(free, -7 * CENT)
    grant(free, -6 * CENT, source="refund")
    assert grant(free, -6 * CENT, source="refund").amount == -6 * CENT
    assert (credits.balance(free), credits.left(free), cap(free, begin(free)).cap) == (4 * CENT, 0, 10_100)


def test_nobody_but_the_operator_grants_credit(cast, free) -> None:
    with as_member(cast.owner, free):
        for work in (lambda: grant(free), lambda: credits.create_coupon(code="MINE", amount=CENT)):
            with pytest.raises(errors.Forbidden):
                work()
    assert credits.balance(free) == 0


def test_entries_are_never_changed(free) -> None:
    grant(free)
    for statement in ("UPDATE billing_creditentry SET amount = 10000000", "DELETE FROM billing_creditentry"):
        with pytest.raises(ProgrammingError, match="permission denied"), as_tenant(free.id), connection.cursor() as cursor:
            cursor.execute(statement)


# ---------- months ----------
def test_credit_is_drawn_across_months_to_the_cent(free) -> None:
    with at(2026, 10, 5):
        grant(free, 10 * CENT)
        use(free, 10_000 + 101)  # 40,400 micro-dollars: 4 cents
        assert cap(free, date(2026, 10, 1)).cap == 10_250
    with at(2026, 11, 1, 0, 30):
        assert cap(free, begin(free)).cap == 10_000 + 150  # October is not closed: its 4 cents are kept for it
        assert credits.balance(free) == 10 * CENT and credits.left(free) == 6 * CENT
        assert invoices.close_month(free, date(2026, 10, 1)) is False
    with at(2026, 11, 1, 1):
        assert invoices.close_month(free, date(2026, 10, 1)) is True
        assert (credits.balance(free), cap(free, date(2026, 11, 1)).cap) == (6 * CENT, 10_150)
        use(free, 10_000 + 150)
    with at(2026, 12, 1, 1):
        assert invoices.close_month(free, date(2026, 11, 1)) is True
        row = cap(free, begin(free))
        assert (row.cap, row.reason, credits.balance(free)) == (10_000, "quota_exceeded", 0)
    assert entries(free) == [("grant", 10 * CENT), ("draw", -4 * CENT), ("draw", -6 * CENT)]


def test_what_is_reserved_in_a_month_that_ended_is_kept_until_it_is_closed(free) -> None:
    with at(2026, 10, 31, 23, 59):
        grant(free, 10 * CENT)
        work = Work(free.id, begin(free), None, "minilm-squad")
        reservations.reserve(work, 10_000 + 100, seconds=600)
    with at(2026, 11, 1, 0, 1):
        assert cap(free, begin(free)).cap == 10_000 + 150
    with at(2026, 11, 1, 1, 1):
        assert invoices.close_month(free, date(2026, 10, 1))
        assert (cap(free, date(2026, 11, 1)).cap, credits.balance(free)) == (10_250, 10 * CENT)
        assert cap(free, date(2026, 10, 1)).reserved == 0


def test_a_richer_plan_gives_back_what_the_month_would_have_drawn(free) -> None:
    grant(free, DOLLAR)
    use(free, 12_500)
    assert credits.left(free) == 0
    subscriptions.change_plan(free, plan="team")
    assert (credits.left(free), credits.balance(free)) == (DOLLAR, DOLLAR)


def test_a_plan_without_overage_never_asks_for_more_than_its_credit(free) -> None:
    """A plan that became smaller, or an organisation that was moved to it, has used more than it pays for."""
    grant(free, CENT)
    with at(2026, 10, 5):
        use(on_plan(free, "unlimited"), 50_000)
        subscriptions.change_plan(free, plan="free")
    with at(2026, 11, 1, 2):
        found = invoices.preview(free, date(2026, 10, 1))
        assert (found.statement.usage_cents, found.statement.credit_cents, found.charge_cents) == (1_600, 1, 0)
        assert [line.kind for line in found.lines] == ["usage", "credit", "waived"] and found.total_cents == 0


# ---------- expiry ----------
def test_what_expires_first_is_drawn_first_and_the_rest_is_written_off(free) -> None:
    with at(2026, 10, 4):
        grant(free, 10 * CENT)
    with at(2026, 10, 5):
        grant(free, 5 * CENT, expires_at=moment(2026, 10, 20))
        use(free, 10_000 + 75)  # 3 cents
    with at(2026, 10, 19, 23, 59, 59):
        terms.refresh_all()
        assert (credits.balance(free), credits.left(free)) == (15 * CENT, 12 * CENT)
    with at(2026, 10, 20):
        assert (credits.balance(free), credits.left(free)) == (13 * CENT, 10 * CENT)  # before anybody wrote it down
        terms.refresh_all()
        terms.refresh_all()
        assert (credits.balance(free), credits.left(free), cap(free, date(2026, 10, 1)).cap) == (13 * CENT, 10 * CENT, 10_000 + 325)
    with at(2026, 11, 1, 1):
        invoices.close_month(free, date(2026, 10, 1))
        assert credits.balance(free) == 10 * CENT
    assert entries(free) == [("grant", 10 * CENT), ("grant", 5 * CENT), ("expiry", -2 * CENT), ("draw", -3 * CENT)]


def test_a_month_draws_nothing_that_expired_before_it_began(free) -> None:
    with at(2026, 10, 5):
        grant(free, 5 * CENT, expires_at=moment(2026, 10, 20))
    with at(2026, 11, 2):
        row = cap(free, begin(free))
        assert (row.cap, row.reason) == (10_000, "quota_exceeded")
        use(on_plan(free, "team"), 250_100)
        assert invoices.preview(free).statement.credit_cents == 0


def test_a_month_claims_nothing_of_what_expired_before_it(free) -> None:
    with at(2026, 10, 5):
        grant(free, 5 * CENT, expires_at=moment(2026, 10, 20))
        grant(free, 10 * CENT)
    with at(2026, 11, 2):
        use(free, 10_000 + 50)  # 2 cents
        assert (credits.balance(free), credits.left(free), cap(free, begin(free)).cap) == (10 * CENT, 8 * CENT, 10_250)


def test_a_month_to_come_counts_on_nothing_that_expires_before_it(free) -> None:
    with at(2026, 10, 5), as_tenant(free.id):
        grant(free, 5 * CENT, expires_at=moment(2026, 10, 20))
        now = timezone.now()
        assert lots.available(free.id, date(2026, 10, 1), now) == 5 * CENT
        assert lots.available(free.id, date(2026, 11, 1), now) == 0


def test_four_sweeps_at_once_write_off_once(free) -> None:
    with at(2026, 10, 5):
        grant(free, 5 * CENT, expires_at=moment(2026, 10, 20))
    with at(2026, 10, 20):
        together(4, lambda _n: terms.refresh_all())
    assert entries(free) == [("grant", 5 * CENT), ("expiry", -5 * CENT)]


# ---------- coupons ----------
def coupon(**fields) -> Coupon:
    return credits.create_coupon(code=f"C-{uuid4().hex[:12]}", amount=5 * DOLLAR, **fields)


def test_of_20_organisations_at_once_as_many_redeem_as_the_coupon_allows(cast) -> None:
    found, tenants = coupon(most=7), [make_tenant(cast.owner, "many") for _ in range(20)]
    results = together(20, lambda n: credits.redeem_coupon(tenants[n], code=found.code))
    assert sum(isinstance(result, CreditEntry) for result in results) == 7
    assert {result.code for result in results if isinstance(result, errors.BadRequest)} == {"coupon_used_up"}
    assert sum(credits.balance(tenant) for tenant in tenants) == 35 * DOLLAR
    assert Coupon.objects.get(pk=found.pk).redeemed == 7


def test_one_organisation_redeems_a_coupon_once_with_20_threads(free) -> None:
    found = coupon()
    results = together(20, lambda _n: credits.redeem_coupon(free, code=f" {found.code.lower()} "))
    assert sum(isinstance(result, CreditEntry) for result in results) == 1
    assert {result.code for result in results if isinstance(result, Exception)} == {"coupon_redeemed"}
    assert (credits.balance(free), Coupon.objects.get(pk=found.pk).redeemed) == (5 * DOLLAR, 1)


def test_a_coupon_ends_and_so_does_its_credit(free) -> None:
    with at(2026, 10, 1):
        ending, lasting = coupon(expires_at=moment(2026, 10, 2)), coupon(credit_days=30)
    with at(2026, 10, 2):
        with pytest.raises(errors.BadRequest) as caught:
            credits.redeem_coupon(free, code=ending.code)
        assert caught.value.code == "coupon_expired"
        assert credits.redeem_coupon(free, code=lasting.code).expires_at == moment(2026, 11, 1)


@pytest.mark.parametrize("wrong", [{"code": "abc"}, {"code": "A B C D"}, {"code": "ÄÖÜß"}, {"amount": -CENT}, {"amount": 7}, {"most": 0}])
def test_a_coupon_that_cannot_be_meant_is_named(wrong) -> None:
    with pytest.raises(errors.BadRequest) as caught:
        credits.create_coupon(**{"code": uuid4().hex, "amount": CENT, **wrong})
    assert caught.value.param == next(iter(wrong))


def test_members_with_billing_redeem_and_nobody_else(cast, free) -> None:
    found = coupon()
    session, body = browser_for(cast.owner), {"code": found.code}
    assert browser_for(cast.viewer).post("/v1/credits/redeem", body, content_type="application/json").status_code == 403
    assert client_for(cast.key).post("/v1/credits/redeem", body, format="json").status_code == 403
    made = session.post("/v1/credits/redeem", body, content_type="application/json")
    assert (made.status_code, made.json()["amount"], made.json()["kind"]) == (201, 5 * DOLLAR, "coupon")
    again = session.post("/v1/credits/redeem", body, content_type="application/json").json()["error"]
    assert (again["code"], again["param"]) == ("coupon_redeemed", "code")
    unknown = session.post("/v1/credits/redeem", {"code": "NONE-SUCH"}, content_type="application/json").json()["error"]
    assert (unknown["code"], unknown["param"]) == ("invalid_coupon", "code")


def test_credit_is_listed_with_its_sum_and_nobody_elses(cast, free) -> None:
    for _ in range(3):
        grant(free, CENT, expires_at=timezone.now() + timedelta(days=9))
    page = client_for(cast.key).get("/v1/credits", {"limit": 2}).json()
    assert (page["balance"], page["available"], len(page["data"]), page["has_more"]) == (3 * CENT, 3 * CENT, 2, True)
    rest = client_for(cast.key).get("/v1/credits", {"after": page["last_id"]}).json()
    assert len(rest["data"]) == 1 and rest["data"][0]["id"].startswith("crd_")
    other = client_for(cast.other_key).get("/v1/credits").json()
    assert (other["balance"], other["data"]) == (0, [])


def test_a_closed_month_is_never_changed(free) -> None:
    with as_tenant(free.id):
        ClosedMonth.objects.create(
            tenant=free, period=date(2020, 1, 1), plan="free", units=0, unit_price=0, usage_cents=0, credit_cents=0, waived_cents=0,
            collected_by="manual",
        )  # fmt: skip
    with pytest.raises(ProgrammingError, match="permission denied"), as_tenant(free.id), connection.cursor() as cursor:
        cursor.execute("UPDATE billing_closedmonth SET units = 1")
