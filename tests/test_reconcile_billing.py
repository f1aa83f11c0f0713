"""`reconcile_billing` is content with what was made, and names every figure that somebody changed."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from io import StringIO
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import connection, transaction

from apps.accounts.models import Tenant
from apps.billing import budgets, credits, invoices, reconciling, subscriptions
from apps.billing.reconciling import Told
from apps.usage import reservations
from apps.usage.reservations import Work
from maas import ids
from tests.money import at, begin, on_plan, use

CENT = 10_000
OCTOBER, NOVEMBER = date(2026, 10, 1), date(2026, 11, 1)


@pytest.fixture
def team(cast) -> Tenant:
    """An October that is closed with credit and an invoice, and a November with work that goes on."""
    team = on_plan(cast.tenant, "team")
    key = ids.encode(ids.KEY, cast.key.row.id)
    with at(2026, 10, 5):
        budgets.set_budget(team, scope="key", subject=key, amount=10**9)
        credits.grant_credit(team, amount=7 * CENT, reason="hello")
        use(team, 260_000, key_id=cast.key.row.id)
    with at(2026, 11, 1, 1):
        invoices.close_month(team, OCTOBER)
    with at(2026, 11, 5):
        use(team, 40, key_id=cast.key.row.id)
        reservations.reserve(Work(team.id, begin(team), cast.key.row.id, "minilm-squad"), 10, seconds=600)
    return team


def found(tenant: Tenant) -> list[str]:
    return [str(difference) for difference in reconciling.differences() if tenant.id.hex in str(difference).replace("-", "")]


def run() -> tuple[int, str]:
    out = StringIO()
    try:
        call_command("reconcile_billing", stdout=out)
    except SystemExit as ended:
        return int(ended.code or 0), out.getvalue()
    return 0, out.getvalue()


@contextmanager
def changed(table: str, statement: str, *values: object) -> Iterator[None]:
    """Somebody with every right in the database changes a table; it is rolled back in the end."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL ROLE maas_owner")
        cursor.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        cursor.execute(statement, values)
        assert cursor.rowcount
        cursor.execute("SET LOCAL ROLE maas_app")
        yield
        transaction.set_rollback(True)


def test_what_was_made_agrees(team) -> None:
    assert found(team) == []


FIGURES = [
    ("usage_allowance", "UPDATE usage_allowance SET used = used + 1 WHERE tenant_id = %s AND period = '2026-11-01' AND scope = 'tenant'",
     "units used: {place}, 2026-11: 40 units in the ledger, 41 used"),
    ("usage_allowance", "UPDATE usage_allowance SET used = used - 1 WHERE tenant_id = %s AND period = '2026-11-01' AND scope = 'key'",
     "units used: {place}, 2026-11, key {key}: 40 units in the ledger, 39 used"),
    ("usage_allowance", "UPDATE usage_allowance SET reserved = 0 WHERE tenant_id = %s AND period = '2026-11-01' AND scope = 'tenant'",
     "units reserved: {place}, 2026-11: 10 units in open reservations, 0 reserved"),
    ("usage_allowance", "DELETE FROM usage_allowance WHERE tenant_id = %s AND period = '2026-11-01'",
     "units not counted: {place}, 2026-11: 40 units in the ledger, no allowance"),
    ("billing_closedmonth", "UPDATE billing_closedmonth SET units = units + 1 WHERE tenant_id = %s",
     "units closed: {place}, 2026-10: 260000 units in the ledger, 260001 closed"),
    ("billing_closedmonth", "UPDATE billing_closedmonth SET usage_cents = 299 WHERE tenant_id = %s",
     "charge: {place}, 2026-10: 300 cents by its units, 299 cents closed"),
    ("billing_closedmonth", "UPDATE billing_closedmonth SET credit_cents = 6 WHERE tenant_id = %s",
     "credit drawn: {place}, 2026-10: 6 cents by credit, 70000 micro-dollars drawn"),
    ("billing_creditentry", "UPDATE billing_creditentry SET amount = -80000 WHERE tenant_id = %s AND kind = 'draw'",
     "credit drawn: {place}, 2026-10: 7 cents by credit, 80000 micro-dollars drawn"),
    ("billing_invoice", "UPDATE billing_invoice SET total_cents = total_cents + 1 WHERE tenant_id = %s",
     "invoice total: {place}, 2026-10, invoice {number}: 5194 cents, 5193 by its lines"),
    ("billing_invoiceline", "UPDATE billing_invoiceline SET amount_cents = 301 WHERE tenant_id = %s AND kind = 'usage'",
     "invoiced units: {place}, 2026-10, invoice {number}: 293 cents due, 294 on the invoice"),
    ("billing_invoiceline", "UPDATE billing_invoiceline SET amount = 5 WHERE tenant_id = %s AND kind = 'detail'",
     "invoice details: {place}, 2026-10, invoice {number}: 3000000 micro-dollars of units, 5 by model and key"),
    ("billing_invoice", "DELETE FROM billing_invoice WHERE tenant_id = %s", "invoice missing: {place}, 2026-10: 293 cents due, no invoice"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "statement", "said"), FIGURES, ids=[row[2].partition(":")[0] + f" {n}" for n, row in enumerate(FIGURES)])
def test_a_figure_that_somebody_changed_is_named(team, cast, table, statement, said) -> None:
    (invoice,), _more = invoices.list_invoices(team)
    words = {"place": f"tenant {team.id}", "key": cast.key.row.id.hex, "number": invoice.number}
    with changed(table, statement, team.id):
        assert said.format(**words) in found(team)
        status, text = run()
        assert status == 1 and said.format(**words) in text and "differences." in text
    assert found(team) == []


def test_a_number_that_is_missing_is_named(team) -> None:
    with changed("billing_invoice", "DELETE FROM billing_invoice WHERE tenant_id = %s", team.id):
        assert any(difference.what == "invoice numbers" for difference in reconciling.differences())


def test_a_coupon_that_was_counted_wrong_is_named() -> None:
    coupon = credits.create_coupon(code=f"X-{uuid4().hex[:12]}", amount=CENT)
    with changed("billing_coupon", "UPDATE billing_coupon SET redeemed = 3 WHERE id = %s", coupon.pk):
        assert f"coupons: coupon {coupon.code}: 3 counted, 0 redeemed" in map(str, reconciling.differences())


def test_what_stripe_was_told_is_compared_with_the_closed_months_that_it_collects(cast, monkeypatch) -> None:
    team = on_plan(cast.tenant, "team")
    with at(2026, 10, 5):
        subscriptions.set_collector(team, collected_by="stripe")
        use(team, 260_000)
    with at(2026, 11, 1, 1):
        invoices.close_month(team, OCTOBER)
    monkeypatch.setattr(reconciling, "_told", [])
    assert found(team) == []
    told = [Told(team.id, OCTOBER, 260_000, 300)]
    reconciling.declare_told(lambda: told)
    assert found(team) == []
    told[0] = Told(team.id, OCTOBER, 259_999, 299)
    place = f"tenant {team.id}, 2026-10"
    assert found(team) == [
        f"units told to Stripe: {place}: 260000 in the ledger, 259999 told",
        f"charge told to Stripe: {place}: 300 cents due, 299 told",
    ]
    told.clear()
    assert len(found(team)) == 2


def test_when_all_is_equal_the_command_says_what_was_compared(team, monkeypatch) -> None:
    monkeypatch.setattr(reconciling, "QUESTIONS", ())
    monkeypatch.setattr(reconciling, "_told", [])
    status, text = run()
    assert status == 0 and text.startswith("All is equal: ") and text.count("\n") == 1
