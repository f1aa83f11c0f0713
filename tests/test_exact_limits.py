"""Prepaid credit under a thousand callers and under kill -9: never a unit more, and in the end not one less.

The full size is `python -m bench.exact_limits`.
"""

import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.utils import timezone

from apps.accounts import services as accounts
from apps.billing import credits
from apps.billing.allowances import begin_month
from apps.billing.plans import plan_of
from apps.usage import services as usage
from apps.usage.periods import month_of
from maas.tenancy import as_tenant
from tests.books import audit_books
from tests.cast import Key, make_key, make_user
from tests.fire import UNITS, Platform, call_all, charged, end_leases, fire, platform
from tests.test_usage import line

INCLUDED = plan_of("free").included_units or 0


@pytest.fixture(scope="module")
def running() -> Iterator[Platform]:
    with platform() as parts:
        yield parts


def limited(units: int) -> Key:
    """A key of a new tenant that has used what its plan includes, and has prepaid credit for so many units more."""
    owner = make_user("exact")
    slug = f"exact-{owner.pk}"
    tenant = accounts.create_tenant(owner, name=slug, slug=slug)
    begin_month(tenant, month_of(timezone.now()))
    with as_tenant(tenant.id):
        usage.record(tenant.id, [line(kind="slice", units=INCLUDED)])
    credits.grant_credit(tenant, amount=units * plan_of("free").unit_price, reason="for the test")
    return make_key(tenant)


def books(key: Key) -> dict[str, int]:
    """Units used beyond what the plan includes, and reserved."""
    found = audit_books(key.row.tenant)
    return {**found, "used": found["used"] - INCLUDED}


@pytest.mark.parametrize("number", range(2))
def test_of_a_thousand_calls_at_once_a_credit_for_a_hundred_lets_a_hundred_pass(running, number) -> None:
    key = limited(100 * UNITS)
    outcomes = call_all(running.port, key.secret, 1_000, at_once=1_000)
    assert Counter((each.status, each.code) for each in outcomes) == {(200, None): 100, (402, "insufficient_credit"): 900}
    assert charged(key.row.tenant) == {each.prediction: UNITS for each in outcomes if each.status == 200}
    assert books(key) == {"used": 100 * UNITS, "reserved": 0}
    assert credits.left(key.row.tenant) == 0


def test_blocks_under_kill_9_overrun_nothing_and_lose_nothing_once_their_leases_end(running) -> None:
    """Blocks are leased above 4,096 units, so the limit is well above."""
    key, dice, calls = limited(9_000), random.Random(4), 2_600
    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(call_all, running.port, key.secret, calls, at_once=48)
        killed = fire(running, dice, 8)
        first = calling.result()
    running.wait_until_ready()
    assert sum(charged(key.row.tenant).values()) <= 9_000
    end_leases(key.row.tenant)
    assert books(key)["reserved"] == 0
    second = drain(running, key)
    mine = charged(key.row.tenant)
    assert sum(mine.values()) == 9_000, (killed, Counter(each.status for each in first + second))
    assert {each.prediction for each in first + second if each.status == 200} <= mine.keys()
    assert books(key) == {"used": 9_000, "reserved": 0}
    assert credits.left(key.row.tenant) == 0


def drain(running: Platform, key: Key, *, seconds: float = 60) -> list:
    """Use what is left, to the first refusal that stands when every lease is over."""
    outcomes, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        outcomes += call_all(running.port, key.secret, 400, at_once=32)
        if outcomes[-1].status == 402:
            end_leases(key.row.tenant)
            if call_all(running.port, key.secret, 1, at_once=1)[0].status == 402:
                return outcomes
    raise AssertionError(Counter((each.status, each.code) for each in outcomes))
