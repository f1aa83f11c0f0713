"""Alerts: each part of a budget is told once a month, by mail, webhook and in a list, however many sweep."""

from datetime import date

import pytest
from django.core import mail

from apps.accounts.models import Tenant
from apps.billing import alerts, budgets, credits, subscriptions
from apps.webhooks import services as webhooks
from apps.webhooks.models import Message
from maas import ids
from maas.tenancy import as_tenant
from tests.money import at, begin, cap, on_plan, together, use

DOLLAR = 1_000_000
HOOK = {"url": "https://hooks.invalid/", "events": ["budget.threshold"], "resolve": lambda _host, _port: ["1.1.1.1"]}
OCTOBER = date(2026, 10, 1)


@pytest.fixture(autouse=True)
def outbox(settings_of):
    with settings_of(EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend"):
        mail.outbox = []
        yield mail.outbox


@pytest.fixture
def team(cast) -> Tenant:
    webhooks.create_endpoint(cast.tenant, **HOOK)
    webhooks.create_endpoint(cast.other, **HOOK)
    return on_plan(cast.tenant, "team")


def told(tenant: Tenant) -> list[tuple[str, str, int, int, int]]:
    return sorted((row.scope, row.subject, row.threshold, row.spent, row.amount) for row in alerts.list_alerts(tenant))


def messages(tenant: Tenant) -> list[str]:
    with as_tenant(tenant.id):
        return [row.body for row in Message.objects.order_by("id")]


def mine(tenant: Tenant) -> list[str]:
    return [sent.subject for sent in mail.outbox if tenant.name in sent.subject]


def key_budget(cast, amount: int = 30_000, **fields) -> None:
    budgets.set_budget(cast.tenant, scope="key", subject=ids.encode(ids.KEY, cast.key.row.id), amount=amount, **fields)


def test_each_part_of_a_keys_limit_is_told_once(team, cast) -> None:
    key_budget(cast)
    for units, parts in ((49, []), (1, [50]), (29, [50]), (1, [50, 80]), (19, [50, 80]), (1, [50, 80, 100])):
        use(team, units, key_id=cast.key.row.id)
        alerts.sweep_alerts()
        alerts.sweep_alerts()
        assert [row[2] for row in told(team)] == parts
    assert told(team)[0] == ("key", cast.key.row.id.hex, 50, 15_000, 30_000)
    assert len(mine(team)) == 3 and len(messages(team)) == 3
    assert '"threshold":50' in messages(team)[0] and ids.encode(ids.KEY, cast.key.row.id) in messages(team)[0]
    assert messages(cast.other) == [] and told(cast.other) == []


@pytest.mark.parametrize("holding", [True, False], ids=["one after the other", "by the unique row alone"])
def test_four_sweeps_at_once_tell_once(team, cast, outbox, monkeypatch, holding) -> None:
    if not holding:
        monkeypatch.setattr(alerts, "hold", lambda *_place: True)
    key_budget(cast)
    use(team, 85, key_id=cast.key.row.id)
    together(4, lambda _n: alerts.sweep_alerts())
    assert [row[2] for row in told(team)] == [50, 80]
    assert len(messages(team)) == 2
    (sent,) = [sent for sent in outbox if team.name in sent.subject]  # one mail for the higher of the two
    assert sent.subject.startswith("80%") and sent.to == [cast.owner.email]
    assert "'test'" in sent.body and "$0.03" in sent.body and "are refused" in sent.body


def test_after_an_alert_the_next_part_is_watched(team, cast) -> None:
    key_budget(cast)
    period = begin(team)
    place = ("key", cast.key.row.id.hex)
    assert cap(team, period, *place).alert_at == 50
    use(team, 50, key_id=cast.key.row.id)
    alerts.sweep_alerts()
    assert cap(team, period, *place).alert_at == 80
    use(team, 50, key_id=cast.key.row.id)
    alerts.sweep_alerts()
    assert cap(team, period, *place).alert_at is None


def test_a_budget_set_too_late_tells_what_is_spent_already(team, cast) -> None:
    use(team, 90, key_id=cast.key.row.id)
    key_budget(cast, hard=False, thresholds=[10, 90])
    alerts.sweep_alerts()
    assert [row[2] for row in told(team)] == [10, 90]
    assert cap(team, begin(team), "key", cast.key.row.id.hex).cap is None  # one that is not hard refuses nothing


def test_the_organisations_budget_counts_what_exceeds_the_plan(team) -> None:
    budgets.set_budget(team, scope="tenant", amount=DOLLAR, thresholds=[50])
    use(team, 200_000)
    alerts.sweep_alerts()
    assert told(team) == [("included", "", 80, 200_000, 250_000)]
    use(team, 50_000 + 1_666)
    alerts.sweep_alerts()
    assert [row[:3] for row in told(team)] == [("included", "", 80), ("included", "", 100)]
    use(team, 1)
    alerts.sweep_alerts()
    assert told(team)[-1] == ("tenant", "", 50, 1_667 * 300, DOLLAR)


def test_the_plans_units_are_told_at_80_and_100_per_cent(cast) -> None:
    free = on_plan(cast.tenant, "free")
    use(free, 7_999)
    alerts.sweep_alerts()
    assert told(free) == []
    use(free, 2_001)
    alerts.sweep_alerts()
    assert told(free) == [("included", "", 80, 10_000, 10_000), ("included", "", 100, 10_000, 10_000)]
    assert mine(free) == [f"100% of the units of {free.name} are used this month"]


def test_an_amount_that_pays_for_no_whole_unit_more_is_told_as_spent(team, cast) -> None:
    key_budget(cast, amount=30_299)  # 100 units and a rest that pays for nothing
    use(team, 100, key_id=cast.key.row.id)
    alerts.sweep_alerts()
    assert told(team)[-1][2] == 100


def test_each_month_is_told_anew(team, cast) -> None:
    key_budget(cast, thresholds=[100])
    for month in (9, 10):
        with at(2026, month, 30):
            use(team, 100, key_id=cast.key.row.id)
            alerts.sweep_alerts()
    assert [(row.period, row.threshold) for row in alerts.list_alerts(team)] == [(OCTOBER, 100), (date(2026, 9, 1), 100)]


def test_what_is_reached_in_a_months_last_moment_is_told_when_it_is_closed(team, cast) -> None:
    from apps.billing import invoices

    with at(2026, 10, 31, 23, 59, 59):
        use(team, 200_000)
    with at(2026, 11, 1, 1):
        begin(team)
        alerts.sweep_alerts()
        assert told(team) == []
        invoices.close_month(team, OCTOBER)
        assert told(team) == [("included", "", 80, 200_000, 250_000)]


def test_a_richer_plan_moves_what_is_watched(cast) -> None:
    free = on_plan(cast.tenant, "free")
    period = begin(free)
    assert cap(free, period).alert_at == 8_000
    credits.grant_credit(free, amount=DOLLAR, reason="hello")
    assert cap(free, period).alert_at == 8_000
    subscriptions.change_plan(free, plan="team")
    assert cap(free, period).alert_at == 200_000


def test_a_mail_server_that_is_away_undoes_nothing(team, cast, settings_of) -> None:
    key_budget(cast, thresholds=[50])
    use(team, 60, key_id=cast.key.row.id)
    with settings_of(EMAIL_BACKEND="django.core.mail.backends.smtp.EmailBackend", EMAIL_HOST="127.0.0.1", EMAIL_PORT=1):
        alerts.sweep_alerts()
    assert len(told(team)) == 1 and len(messages(team)) == 1
