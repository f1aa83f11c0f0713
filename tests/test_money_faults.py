"""Ledger = allowance = what Stripe is told = invoice, whatever is killed, lost or repeated on the way.

The full size is `python -m bench.money_faults`.
"""

from datetime import date, timedelta

import time_machine

from apps.billing import reconciling
from apps.billing.invoices import close_month
from apps.billing.months import end_of
from tests.money_faults import Run, find, run


def turn(mine: Run, period: date) -> None:
    """An hour into the next month."""
    with time_machine.travel(end_of(period) + timedelta(hours=1, minutes=5), tick=True):
        assert close_month(mine.tenant, period)
        mine.invoice(period)
        assert find(mine.tenant.id, list(reconciling.differences())) == []


def test_thirty_faults_change_no_figure() -> None:
    report = run(faults=30, seed=1, after=turn)
    assert report.invoiced_cents == report.told_cents
    assert report.calls[200] > 0 and report.jobs == 1
