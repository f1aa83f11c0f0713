"""Budgets: who may set them, what they refuse, and that they hold at once."""

import pytest

from apps.accounts import members
from apps.accounts.models import Tenant
from apps.audit import services as audit
from apps.billing import allowances, budgets, credits, subscriptions
from apps.catalog.shipping import load_folder
from maas import errors, ids
from maas.tenancy import as_tenant
from tests.cast import browser_for, client_for, make_user
from tests.conftest import ROOT
from tests.money import as_member, begin, cap, on_plan, together, use

DOLLAR = 1_000_000
MODEL = "minilm-squad"


@pytest.fixture
def team(cast) -> Tenant:
    list(load_folder(ROOT / "models"))
    return on_plan(cast.tenant, "team")


def of_key(cast) -> str:
    return ids.encode(ids.KEY, cast.key.row.id)


def call(cast, units: int, *, with_key: bool = True) -> None:
    """Reserve as a call does, and give it back."""
    from apps.usage import blocks

    key_id = cast.key.row.id if with_key else None
    blocks.finish(allowances.grant_call(cast.tenant, key_id=key_id, model=MODEL, units=units, seconds=60), used=0)


def refusal(work) -> tuple[str, int]:
    with pytest.raises(errors.PaymentRequired) as caught:
        work()
    return caught.value.code, caught.value.status


# ---------- what they do ----------
def test_a_hard_budget_is_units_above_what_the_plan_includes(team) -> None:
    period = begin(team)
    budgets.set_budget(team, scope="tenant", amount=DOLLAR)
    row = cap(team, period)
    assert (row.cap, row.reason) == (250_000 + 3_333, "budget_exceeded")
    budgets.set_budget(team, scope="tenant", amount=DOLLAR, hard=False)
    assert cap(team, period).cap is None


def test_a_key_and_a_model_pay_list_price_from_the_first_unit(team, cast) -> None:
    period = begin(team)
    use(team, 40, key_id=cast.key.row.id)
    budgets.set_budget(team, scope="key", subject=of_key(cast), amount=30_000)
    budgets.set_budget(team, scope="model", subject=MODEL, amount=60_000)
    key, model = cap(team, period, "key", cast.key.row.id.hex), cap(team, period, "model", MODEL)
    assert [(row.cap, row.used, row.reason) for row in (key, model)] == [(100, 40, "budget_exceeded"), (200, 40, "budget_exceeded")]


def test_the_smallest_limit_decides_and_says_whose_it_is(team, cast) -> None:
    use(team, 40, key_id=cast.key.row.id)
    budgets.set_budget(team, scope="key", subject=of_key(cast), amount=30_000)
    call(cast, 60)
    assert refusal(lambda: call(cast, 61)) == ("budget_exceeded", 402)
    call(cast, 61, with_key=False)
    budgets.set_budget(team, scope="model", subject=MODEL, amount=30_000)
    assert refusal(lambda: call(cast, 61, with_key=False)) == ("budget_exceeded", 402)


def test_a_budget_that_is_raised_or_taken_away_lets_calls_through_at_once(team, cast) -> None:
    use(team, 100, key_id=cast.key.row.id)
    budget = budgets.set_budget(team, scope="key", subject=of_key(cast), amount=30_000)
    assert refusal(lambda: call(cast, 1))
    again = budgets.set_budget(team, scope="key", subject=of_key(cast), amount=30_300)
    assert again.id == budget.id
    call(cast, 1)
    budgets.set_budget(team, scope="key", subject=of_key(cast), amount=0)
    assert refusal(lambda: call(cast, 1))
    budgets.delete_budget(team, budget.id)
    call(cast, 5_000)
    assert budgets.list_budgets(team) == []


def test_a_budget_on_a_plan_with_prepaid_credit_takes_the_smaller(cast) -> None:
    free = on_plan(cast.tenant, "free")
    period = begin(free)
    credits.grant_credit(free, amount=DOLLAR, reason="hello")
    budgets.set_budget(free, scope="tenant", amount=DOLLAR // 2)
    assert (cap(free, period).cap, cap(free, period).reason) == (10_000 + 1_250, "budget_exceeded")
    budgets.set_budget(free, scope="tenant", amount=2 * DOLLAR)
    assert (cap(free, period).cap, cap(free, period).reason) == (12_500, "insufficient_credit")


def test_a_budget_follows_the_price_of_the_plan(team) -> None:
    period = begin(team)
    budgets.set_budget(team, scope="tenant", amount=DOLLAR)
    subscriptions.change_plan(team, plan="scale")
    assert cap(team, period).cap == 2_000_000 + 5_000


def test_a_budget_that_was_set_before_the_month_holds_when_it_begins(team, cast) -> None:
    budgets.set_budget(team, scope="key", subject=of_key(cast), amount=30_000, hard=True)
    assert refusal(lambda: call(cast, 101)) == ("budget_exceeded", 402)


def test_budgets_set_at_once_leave_one(team) -> None:
    begin(team)
    together(6, lambda n: budgets.set_budget(team, scope="tenant", amount=DOLLAR * (n + 1)))
    (budget,) = budgets.list_budgets(team)
    assert cap(team, begin(team)).cap == 250_000 + budget.amount // 300


# ---------- who may ----------
@pytest.mark.parametrize(("role", "may"), [("viewer", set()), ("developer", {"key"}), ("admin", {"tenant", "key", "model"})])
def test_who_may_set_budgets(team, cast, role, may) -> None:
    member = make_user(role)
    members.admit(team, user=member, role=role)
    for scope, subject in {"tenant": "", "key": of_key(cast), "model": MODEL}.items():
        budget = budgets.set_budget(team, scope=scope, subject=subject, amount=DOLLAR)
        with as_member(member, team):
            for work in (
                lambda scope=scope, subject=subject: budgets.set_budget(team, scope=scope, subject=subject, amount=DOLLAR),
                lambda budget=budget: budgets.delete_budget(team, budget.id),
            ):
                if scope in may:
                    work()
                    continue
                with pytest.raises(errors.Forbidden):
                    work()


def test_a_key_never_lifts_the_limit_that_holds_it(team, cast) -> None:
    body = {"scope": "key", "subject": of_key(cast), "amount": 10**9}
    answer = client_for(cast.key).post("/v1/budgets", body, format="json")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "missing_scope")


def test_another_organisation_sees_and_changes_nothing(team, cast) -> None:
    budget = budgets.set_budget(team, scope="key", subject=of_key(cast), amount=DOLLAR)
    with as_member(cast.stranger, cast.other):
        assert budgets.list_budgets(cast.other) == []
        for work in (
            lambda: budgets.get_budget(cast.other, budget.id),
            lambda: budgets.delete_budget(cast.other, budget.id),
            lambda: budgets.set_budget(cast.other, scope="key", subject=of_key(cast), amount=1),
        ):
            with pytest.raises(errors.NotFound):
                work()
        with pytest.raises(errors.Forbidden):
            budgets.set_budget(team, scope="tenant", amount=1)
    assert len(budgets.list_budgets(team)) == 1


# ---------- what cannot be meant ----------
@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"scope": "team"}, "scope"), ({"subject": "x"}, "subject"), ({"amount": -1}, "amount"), ({"amount": True}, "amount"),
        ({"amount": 10**16}, "amount"), ({"thresholds": [0]}, "thresholds"), ({"thresholds": [101]}, "thresholds"),
        ({"thresholds": list(range(1, 12))}, "thresholds"), ({"scope": "key", "subject": "mine"}, "subject"),
    ],
)  # fmt: skip
def test_a_budget_that_cannot_be_meant_is_named(team, wrong, param) -> None:
    with pytest.raises(errors.BadRequest) as caught:
        budgets.set_budget(team, **{"scope": "tenant", "amount": DOLLAR, **wrong})
    assert caught.value.param == param


def test_a_model_or_key_that_is_not_there_is_not_found(team, cast) -> None:
    for scope, subject in (("model", "no-such-model"), ("key", ids.encode(ids.KEY, ids.uuid7()))):
        with pytest.raises(errors.NotFound):
            budgets.set_budget(team, scope=scope, subject=subject, amount=DOLLAR)


def test_what_changes_is_in_the_audit_log(team) -> None:
    for amount in (DOLLAR, DOLLAR, 2 * DOLLAR):
        budget = budgets.set_budget(team, scope="tenant", amount=amount)
    budgets.delete_budget(team, budget.id)
    entries = [entry for entry in audit.list_entries(team)[0] if entry.action == "billing.budget_changed"]
    assert len(entries) == 3  # the same again is no change


# ---------- REST ----------
def test_budgets_over_rest(team, cast) -> None:
    session = browser_for(cast.owner)
    made = session.post("/v1/budgets", {"scope": "model", "subject": MODEL, "amount": DOLLAR}, content_type="application/json")
    shown = made.json()
    assert made.status_code == 201 and shown["id"].startswith("bgt_")
    assert (shown["subject"], shown["hard"], shown["thresholds"]) == (MODEL, True, [50, 80, 100])
    own = session.post("/v1/budgets", {"scope": "tenant", "amount": 5, "hard": False, "thresholds": []}, content_type="application/json")
    assert (own.json()["subject"], own.json()["thresholds"]) == (None, [])
    reader = client_for(cast.key_with("usage"))
    assert [row["scope"] for row in reader.get("/v1/budgets").json()["data"]] == ["tenant", "model"]
    assert reader.get(f"/v1/budgets/{shown['id']}").json()["id"] == shown["id"]
    assert reader.delete(f"/v1/budgets/{shown['id']}").status_code == 403
    assert session.delete(f"/v1/budgets/{shown['id']}").status_code == 204
    assert session.delete(f"/v1/budgets/{shown['id']}").status_code == 404
    wrong = session.post("/v1/budgets", {"scope": "tenant", "amount": 1, "colour": "red"}, content_type="application/json").json()["error"]
    assert (wrong["param"], wrong["code"]) == ("colour", "unknown_field")
    with as_tenant(team.id):
        assert budgets.Budget.objects.count() == 1
