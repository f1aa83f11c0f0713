"""Invoices: every line adds up to the cent, the preview says what will be made, and each month is made once."""

import csv
import io
import random
from datetime import date
from fractions import Fraction

import pytest
from django.db import connection

from apps.accounts.models import Tenant
from apps.audit import services as audit
from apps.billing import closing, credits, invoices, subscriptions
from apps.billing.models import ClosedMonth, CreditEntry, Invoice, InvoiceLine
from apps.billing.money import CENT, dollars, prorate, spread, to_cents
from apps.billing.statements import detail
from maas import errors, ids
from maas.tenancy import as_tenant
from tests.cast import client_for, make_key, make_tenant
from tests.money import as_member, at, begin, moment, on_plan, together, use

OCTOBER, NOVEMBER = date(2026, 10, 1), date(2026, 11, 1)


@pytest.fixture
def team(cast) -> Tenant:
    return on_plan(cast.tenant, "team")


def close(tenant: Tenant, period: date) -> bool:
    return invoices.close_month(tenant, period)


def made(tenant: Tenant) -> list[Invoice]:
    return list(reversed(invoices.list_invoices(tenant)[0]))


# ---------- arithmetic ----------
@pytest.mark.parametrize(
    ("units", "cents"), [(0, 0), (49, 1), (50, 2), (51, 2), (116, 3), (117, 4), (150, 4), (151, 5), (16, 0), (17, 1), (250, 8), (350, 10)]
)
def test_a_line_is_rounded_half_to_even_once(units, cents) -> None:
    """At 300 micro-dollars 50, 150, 250 and 350 units are ties: 1.5, 4.5, 7.5 and 10.5 cents."""
    assert to_cents(units * 300) == cents


def test_rounding_is_that_of_exact_fractions() -> None:
    dice = random.Random(7)
    for _ in range(5_000):
        amount = dice.choice([dice.randrange(-(10**12), 10**12), dice.randrange(-(10**6), 10**6) * 5_000])
        assert to_cents(amount) == round(Fraction(amount, CENT))
        days, price = dice.randrange(1, 32), dice.randrange(0, 10**9)
        assert prorate(price, days, 31) == round(Fraction(price * days, 31 * CENT))


def test_parts_add_up_and_none_is_larger_than_its_weight() -> None:
    dice = random.Random(11)
    for _ in range(3_000):
        weights = [dice.choice([0, 1, dice.randrange(10), dice.randrange(10**9)]) for _ in range(dice.randrange(12))]
        total = dice.randint(0, sum(weights))
        parts = spread(total, weights)
        assert sum(parts) == (total if sum(weights) else 0)
        assert all(
            abs(part * (sum(weights) or 1) - total * weight) < (sum(weights) or 1) for part, weight in zip(parts, weights, strict=True)
        )
        assert all(0 <= part <= weight for part, weight in zip(parts, weights, strict=True))


def test_the_details_of_thousands_of_months_add_up_to_their_line() -> None:
    dice = random.Random(13)
    for _ in range(4_000):
        rows = [
            {
                "model": "m",
                "key_id": None,
                "unit": "token",
                "requests": 1,
                "quantity": 1,
                "units": dice.randrange(-3, 10 ** dice.randrange(1, 8)),
            }
            for _ in range(dice.randrange(1, 15))
        ]
        units, included = sum(row["units"] for row in rows), dice.choice([0, 1, 10_000, 250_000, dice.randrange(10**7)])
        price = dice.choice([200, 300, 400, 7])
        details = detail(rows, included, price)
        assert sum(part.amount for part in details) == max(0, units - included) * price
        assert sum(part.charged for part in details) == max(0, units - included)
        assert all(part.included + part.charged == part.units and part.charged >= 0 for part in details)
        assert all(part.charged == 0 for part in detail(rows, None, price))


def test_money_is_shown_in_cents() -> None:
    assert [dollars(amount) for amount in (0, 15_000, 1_234_567_890_000, -49_000_000)] == ["$0.00", "$0.02", "$1,234,567.89", "-$49.00"]


# ---------- the preview ----------
def test_the_preview_shows_each_model_and_key_and_the_plan(team, cast) -> None:
    second = make_key(team).row
    with at(2026, 10, 20):
        for model, key, units in (
            ("minilm-squad", cast.key.row, 200_000),
            ("cifar10-resnet9", second, 100_000),
            ("minilm-squad", None, 50),
        ):
            use(team, units, model=model, key_id=key.id if key else None)
        found = invoices.preview(team)
    assert [(line.kind, line.text, line.cents) for line in found.lines] == [
        ("plan", "Team, November 2026", 4_900),
        ("usage", "Units above the included, October 2026", 1_502),
    ]
    assert (found.lines[1].charged, found.lines[1].amount, found.charge_cents, found.total_cents) == (50_050, 15_015_000, 1_502, 6_402)
    parts = {(part.model, part.key_id): (part.units, part.included, part.amount) for part in found.details}
    assert parts == {
        ("cifar10-resnet9", second.id): (100_000, 83_319, 16_681 * 300),
        ("minilm-squad", cast.key.row.id): (200_000, 166_639, 33_361 * 300),
        ("minilm-squad", None): (50, 42, 8 * 300),
    }
    assert sum(part.amount for part in found.details) == 15_015_000
    assert invoices.charge_cents(team, OCTOBER) == 1_502


def test_credit_pays_before_the_invoice_does(team) -> None:
    with at(2026, 10, 20):
        use(team, 250_050)  # a tie: 1.5 cents
        credits.grant_credit(team, amount=CENT, reason="hello")
        found = invoices.preview(team)
        assert [(line.kind, line.cents) for line in found.lines] == [("plan", 4_900), ("usage", 2), ("credit", -1)]
        assert (invoices.charge_cents(team, OCTOBER), found.total_cents) == (1, 4_901)


def test_a_change_of_plan_prices_the_whole_month_anew(cast) -> None:
    team = on_plan(cast.tenant, "team")
    with at(2026, 10, 20):
        use(team, 2_000_100)
        before = invoices.charge_cents(team, OCTOBER)
        subscriptions.change_plan(team, plan="scale")
        assert (before, invoices.charge_cents(team, OCTOBER)) == (52_503, 2)


def test_the_next_plan_is_what_will_be_paid_in_advance(team) -> None:
    with at(2026, 10, 20):
        subscriptions.change_plan(team, plan="free")
        assert invoices.preview(team).lines == []


# ---------- proration ----------
@pytest.mark.parametrize(
    ("moment_", "period", "old", "new"),
    [
        ((2026, 11, 21, 23, 59, 59), date(2026, 11, 1), -1_633, 9_967),  # 10 of 30 days
        ((2028, 2, 29, 12), date(2028, 2, 1), -169, 1_031),  # 1 of 29 days
        ((2028, 2, 1, 12), date(2028, 2, 1), -4_900, 29_900),  # all of them
        ((2026, 2, 15, 0), date(2026, 2, 1), -2_450, 14_950),  # 14 of 28
    ],
)
def test_a_rise_within_a_month_is_paid_by_days(team, moment_, period, old, new) -> None:
    with at(*moment_):
        subscriptions.change_plan(team, plan="scale")
        lines = invoices.preview(team).lines
    assert [(line.kind, line.cents) for line in lines] == [("plan", 29_900), ("proration", old), ("proration", new)]
    assert period.month == moment_[1]


def test_what_stripe_collects_it_prorates_itself(team) -> None:
    with at(2026, 11, 5):
        subscriptions.set_collector(team, collected_by="stripe")
        subscriptions.change_plan(team, plan="scale")
        found = invoices.preview(team)
        assert ([line.kind for line in found.lines], found.collected_by) == (["plan"], "stripe")


# ---------- making ----------
def test_the_invoice_is_what_the_preview_said(team, cast) -> None:
    with at(2026, 10, 20):
        credits.grant_credit(team, amount=7 * CENT, reason="hello")
        use(team, 260_000, key_id=cast.key.row.id)
        before = invoices.preview(team)
    with at(2026, 11, 1, 1):
        assert close(team, OCTOBER)
        (invoice,) = made(team)
        after = invoices.preview(team, OCTOBER)
    assert (before.lines, before.details, before.total_cents) == (after.lines, after.details, after.total_cents)
    assert (invoice.total_cents, invoice.state, invoice.period, after.statement.is_closed) == (4_900 + 300 - 7, "open", OCTOBER, True)
    assert (invoice.issued_at, invoice.due_at) == (moment(2026, 11, 1, 1), moment(2026, 11, 15, 1))
    _, rows = invoices.get_invoice(team, invoice.id)
    assert [row.kind for row in rows] == ["plan", "usage", "detail", "credit"]
    assert sum(row.amount_cents or 0 for row in rows) == invoice.total_cents
    assert audit.list_entries(team)[0][0].action == "billing.invoice_changed"


def test_a_closed_month_keeps_its_prices_whatever_the_plans_say_later(team, tmp_path, settings_of) -> None:
    with at(2026, 10, 20):
        use(team, 260_000)
    with at(2026, 11, 1, 1):
        close(team, OCTOBER)
    file = tmp_path / "plans.toml"
    file.write_text("[team]\nunit_price = 999\nmonthly_price = 1\nincluded_units = 0")
    with settings_of(MAAS_PLANS=str(file)):
        found = invoices.preview(team, OCTOBER)
        assert (found.charge_cents, found.total_cents, found.details[0].amount) == (300, 5_200, 3_000_000)


def test_a_month_of_the_free_plan_with_nothing_to_pay_makes_no_invoice(cast) -> None:
    free = on_plan(cast.tenant, "free")
    with at(2026, 10, 20):
        use(free, 500)
    with at(2026, 11, 2):
        assert close(free, OCTOBER) and made(free) == []


def test_what_stripe_collects_makes_no_invoice_of_ours(team) -> None:
    with at(2026, 10, 20):
        subscriptions.set_collector(team, collected_by="stripe")
        credits.grant_credit(team, amount=CENT, reason="hello")
        use(team, 260_000)
    with at(2026, 11, 1, 0, 0, 3):
        subscriptions.end_subscription(team, at=moment(2026, 11, 1))  # its last invoice holds October's units
    with at(2026, 11, 1, 1):
        assert close(team, OCTOBER) and made(team) == []
        assert (invoices.charge_cents(team, OCTOBER), credits.balance(team)) == (299, 0)


def test_what_stripe_goes_on_collecting_makes_none_either(team) -> None:
    with at(2026, 10, 20):
        subscriptions.set_collector(team, collected_by="stripe")
        use(team, 260_000)
    with at(2026, 11, 1, 1):
        assert close(team, OCTOBER) and made(team) == []
        assert invoices.charge_cents(team, OCTOBER) == 300


def test_two_who_close_a_month_at_once_make_one_invoice(team) -> None:
    with at(2026, 10, 20):
        credits.grant_credit(team, amount=7 * CENT, reason="hello")
        use(team, 260_000)
    with at(2026, 11, 1, 1):
        assert sorted(together(2, lambda _n: close(team, OCTOBER))) == [False, True]
        assert close(team, OCTOBER) is False
    assert (len(made(team)), credits.balance(team)) == (1, 0)
    with as_tenant(team.id):
        assert ClosedMonth.objects.count() == 1 and CreditEntry.objects.filter(kind="draw").count() == 1


@pytest.mark.parametrize("place", ["_take_number", "invoice_lines", "lines_of", "publish"])
def test_whoever_dies_while_closing_leaves_nothing_and_takes_no_number(team, monkeypatch, place) -> None:
    def die(*_args, **_fields) -> None:
        raise SystemExit

    with at(2026, 10, 20):
        credits.grant_credit(team, amount=7 * CENT, reason="hello")
        use(team, 260_000)
    with at(2026, 11, 1, 1):
        with monkeypatch.context() as broken, pytest.raises(SystemExit):
            broken.setattr(closing, place, die)
            close(team, OCTOBER)
        with as_tenant(team.id):
            assert not any(table.objects.exists() for table in (Invoice, InvoiceLine, ClosedMonth))
        assert credits.balance(team) == 7 * CENT
        assert close(team, OCTOBER) and len(made(team)) == 1
    assert numbers_have_no_gaps(NOVEMBER)


def test_numbers_have_no_gaps_when_many_are_made_at_once(cast) -> None:
    tenants = [on_plan(make_tenant(cast.owner, "many"), "team") for _ in range(8)]
    move_back(tenants)
    with at(2027, 5, 1, 1):
        assert together(8, lambda n: close(tenants[n], date(2027, 4, 1))) == [True] * 8
    numbers = sorted(invoice.number for tenant in tenants for invoice in made(tenant))
    assert numbers == [f"MAAS-2027-05-{n:04}" for n in range(1, 9)]
    assert numbers_have_no_gaps(date(2027, 5, 1))


def move_back(tenants: list[Tenant]) -> None:
    for tenant in tenants:
        with as_tenant(tenant.id):
            Tenant.objects.filter(pk=tenant.pk).update(created_at=moment(2026, 1, 1))


def numbers_have_no_gaps(month: date) -> bool:
    from maas.tenancy import SystemUse, as_system

    with as_system(SystemUse.RECONCILE_BILLING), connection.cursor() as cursor:
        cursor.execute(
            """SELECT n.last = (SELECT count(*) FROM billing_invoice WHERE number LIKE %s) FROM billing_invoicenumber n WHERE month = %s""",
            [f"MAAS-{month:%Y-%m}-%", month],
        )
        return bool(cursor.fetchone()[0])


# ---------- paying ----------
@pytest.fixture
def owed(team) -> Invoice:
    with at(2026, 11, 1, 1):
        close(team, OCTOBER)
    return made(team)[0]


def test_an_invoice_past_its_day_is_overdue_and_paying_it_ends_that(team, owed) -> None:
    with at(2026, 11, 15, 0, 59):
        invoices.note_overdue_invoices()
        assert subscriptions.get_account(team).overdue_since is None
    with at(2026, 11, 15, 1):
        invoices.note_overdue_invoices()
        invoices.note_overdue_invoices()
        assert subscriptions.get_account(team).overdue_since == moment(2026, 11, 15, 1)
        paid = invoices.mark_invoice_paid(team, owed.id, note="bank transfer 17")
        assert (paid.state, paid.paid_at, paid.note) == ("paid", moment(2026, 11, 15, 1), "bank transfer 17")
        assert subscriptions.get_account(team).overdue_since is None


def test_one_of_two_late_invoices_paid_leaves_the_other_overdue(team, owed) -> None:
    with at(2026, 12, 1, 1):
        close(team, NOVEMBER)
    with at(2026, 12, 20):
        invoices.note_overdue_invoices()
        assert subscriptions.get_account(team).overdue_since == moment(2026, 11, 15, 1)  # of the older one
        invoices.mark_invoice_paid(team, owed.id)
        assert subscriptions.get_account(team).overdue_since is not None
        invoices.void_invoice(team, made(team)[1].id, note="made in error")
        assert subscriptions.get_account(team).overdue_since is None


def test_a_paid_invoice_does_not_forget_what_stripe_waits_for(team, owed) -> None:
    with at(2026, 11, 20):
        invoices.note_overdue_invoices()
        subscriptions.note_overdue(team, since=moment(2026, 11, 19))
        invoices.mark_invoice_paid(team, owed.id)
        assert subscriptions.get_account(team).overdue_since == moment(2026, 11, 19)
        subscriptions.note_paid(team)
        assert subscriptions.get_account(team).overdue_since is None


def test_an_invoice_is_paid_once_and_by_the_operator_alone(team, cast, owed) -> None:
    with as_member(cast.owner, team), pytest.raises(errors.Forbidden):
        invoices.mark_invoice_paid(team, owed.id)
    with pytest.raises(errors.NotFound):
        invoices.mark_invoice_paid(cast.other, owed.id)
    results = together(4, lambda _n: invoices.mark_invoice_paid(team, owed.id))
    assert sum(isinstance(result, Invoice) for result in results) == 1
    for work in (invoices.void_invoice, invoices.give_invoice_up):
        with pytest.raises(errors.BadRequest, match="Only an open invoice"):
            work(team, owed.id)


def test_a_copy_of_stripes_invoice_is_kept_once_and_follows_it(team) -> None:
    fields = {"number": "X-1", "period": OCTOBER, "subtotal_cents": 100, "tax_cents": 19, "total_cents": 119, "page_url": "https://pay"}
    lines = [{"text": "Team", "amount_cents": 100}]
    first = invoices.mirror_invoice(team, stripe_id="in_1" + team.id.hex, state="open", lines=lines, **fields)
    again = invoices.mirror_invoice(team, stripe_id="in_1" + team.id.hex, state="paid", lines=lines * 2, **fields)
    invoice, rows = invoices.get_invoice(team, first.id)
    assert (again.id, invoice.state, invoice.total_cents, len(rows)) == (first.id, "paid", 119, 2)
    with pytest.raises(errors.BadRequest):
        invoices.mark_invoice_paid(team, first.id)


# ---------- REST ----------
def test_invoices_are_read_as_json_and_csv_and_by_nobody_else(team, cast) -> None:
    with at(2026, 10, 20):
        use(team, 260_000, key_id=cast.key.row.id)
    with at(2026, 11, 1, 1):
        close(team, OCTOBER)
    mine, stranger = client_for(cast.key), client_for(cast.other_key)
    (row,) = mine.get("/v1/invoices").json()["data"]
    assert (row["period"], row["total_cents"], row["state"]) == ("2026-10", 5_200, "open") and row["id"].startswith("in_")
    full = mine.get(f"/v1/invoices/{row['id']}").json()
    assert [(line["kind"], line["amount_cents"]) for line in full["lines"]] == [("plan", 4_900), ("usage", 300), ("detail", None)]
    assert full["lines"][2]["key"] == ids.encode(ids.KEY, cast.key.row.id)
    answer = mine.get(f"/v1/invoices/{row['id']}", {"format": "csv"})
    table = list(csv.DictReader(io.StringIO(answer.content.decode())))
    assert answer["Content-Type"].startswith("text/csv") and [line["amount_cents"] for line in table] == ["4900", "300", ""]
    assert stranger.get("/v1/invoices").json()["data"] == []
    assert stranger.get(f"/v1/invoices/{row['id']}").status_code == 404
    assert client_for(cast.key_with("predict")).get("/v1/invoices").status_code == 403


def test_the_preview_is_read_as_json_and_csv(team, cast) -> None:
    begin(team)
    use(team, 250_050, key_id=cast.key.row.id)
    found = client_for(cast.key).get("/v1/invoices/preview").json()
    assert (found["charge_cents"], found["total_cents"], found["plan"], found["units"]) == (2, 4_902, "team", 250_050)
    assert [line["kind"] for line in found["lines"]] == ["plan", "usage", "detail"]
    text = client_for(cast.key).get("/v1/invoices/preview", HTTP_ACCEPT="text/csv").content.decode()
    assert len(text.splitlines()) == 4
    wrong = client_for(cast.key).get("/v1/invoices/preview", {"period": "2026-13"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "period")
    assert client_for(cast.other_key).get("/v1/invoices/preview").json()["lines"] == []
