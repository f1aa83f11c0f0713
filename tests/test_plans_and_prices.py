"""Plans: their figures, how one follows on another, and what they allow."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.db.utils import ProgrammingError
from django.utils import timezone

from apps.accounts.models import Tenant
from apps.audit import services as audit
from apps.billing import months, plans, subscriptions, terms
from apps.billing.history import plan_at_start, plan_in
from apps.billing.models import Account, PlanChange
from apps.files import room
from apps.files import services as files
from apps.files.models import File
from maas import errors
from maas.tenancy import as_tenant
from tests.cast import client_for
from tests.money import as_member, at, begin, cap, closing, moment, on_plan, together, use

NOVEMBER, DECEMBER = date(2026, 11, 1), date(2026, 12, 1)


def named(tenant) -> str:
    with as_tenant(tenant.id):
        return Tenant.objects.values_list("plan", flat=True).get(pk=tenant.pk)


def priced(tenant, period: date) -> str:
    with as_tenant(tenant.id):
        return plan_in(tenant.id, period).name


def actions(tenant) -> list[str]:
    return [entry.action for entry in audit.list_entries(tenant)[0]]


# ---------- figures ----------
def test_the_plans_cost_what_the_price_list_says() -> None:
    shown = {
        name: (plan.monthly_price, plan.included_units, plan.unit_price, plan.overage, plan.storage_gigabytes)
        for name, plan in plans.every_plan().items()
    }
    assert shown == {
        "free": (0, 10_000, 400, False, 1),
        "team": (49_000_000, 250_000, 300, True, 50),
        "scale": (299_000_000, 2_000_000, 200, True, 1_000),
        "unlimited": (0, None, 0, True, None),
    }


@pytest.mark.parametrize(
    ("text", "names"), [("overage = 1", "true or false"), ("overage = 'none'", "true or false"), ("storage_price = 1", "no field")]
)
def test_a_switch_in_the_plans_is_true_or_false(tmp_path, settings_of, text, names) -> None:
    file = tmp_path / "plans.toml"
    file.write_text(f"[free]\n{text}")
    with settings_of(MAAS_PLANS=str(file)), pytest.raises(ImproperlyConfigured, match=names):
        plans.every_plan()


def test_a_file_changes_overage_storage_and_prices(tmp_path, settings_of) -> None:
    file = tmp_path / "plans.toml"
    file.write_text('[free]\noverage = true\nstorage_gigabytes = "none"\nincluded_units = 5')
    with settings_of(MAAS_PLANS=str(file)):
        free = plans.plan_of("free")
    assert (free.overage, free.storage_gigabytes, free.included_units, free.unit_price) == (True, None, 5, 400)


# ---------- caps ----------
@pytest.mark.parametrize(("plan", "units", "reason"), [("free", 10_000, "quota_exceeded"), ("team", None, ""), ("unlimited", None, "")])
def test_a_plan_without_overage_ends_with_what_it_includes(cast, plan, units, reason) -> None:
    row = cap(on_plan(cast.tenant, plan), begin(cast.tenant))
    assert (row.cap, row.reason) == (units, reason)


def test_the_limits_tell_the_plan_and_what_is_left_of_the_month(cast) -> None:
    on_plan(cast.tenant, "free")
    use(cast.tenant, 9)
    shown = client_for(cast.key).get("/v1/limits").json()
    assert (shown["plan"]["overage"], shown["plan"]["storage_gigabytes"]) == (False, 1)
    assert shown["allowances"] == [
        {"scope": "tenant", "subject": None, "limit": 10_000, "reason": "quota_exceeded", "used": 9, "reserved": 0, "remaining": 9_991}
    ]
    assert client_for(cast.other_key).get("/v1/limits").json()["allowances"] == []


# ---------- changing ----------
def test_a_rise_holds_at_once_and_for_the_whole_month(cast) -> None:
    on_plan(cast.tenant, "free")
    with at(2026, 11, 21, 12):
        period = begin(cast.tenant)
        change = subscriptions.change_plan(cast.tenant, plan="team")
        assert (change.at_once, change.from_day, named(cast.tenant)) == (True, date(2026, 11, 21), "team")
        assert (cap(cast.tenant, period).cap, priced(cast.tenant, NOVEMBER)) == (None, "team")
    assert actions(cast.tenant)[0] == "billing.plan_changed"


def test_a_smaller_plan_waits_for_the_first_and_leaves_the_month_as_it_was(cast) -> None:
    on_plan(cast.tenant, "scale")
    with at(2026, 11, 21, 12):
        begin(cast.tenant)
        change = subscriptions.change_plan(cast.tenant, plan="free")
        assert (change.at_once, change.from_day, named(cast.tenant)) == (False, DECEMBER, "scale")
        assert subscriptions.apply_due_plans() >= 0 and named(cast.tenant) == "scale"
        assert (priced(cast.tenant, NOVEMBER), priced(cast.tenant, DECEMBER)) == ("scale", "free")
    with at(2026, 12, 1, 0, 0, 0):
        assert cap(cast.tenant, begin(cast.tenant)).cap == 10_000  # before the beat came by
        subscriptions.apply_due_plans()
        assert (named(cast.tenant), cap(cast.tenant, DECEMBER).cap) == ("free", 10_000)
        assert (priced(cast.tenant, NOVEMBER), priced(cast.tenant, DECEMBER)) == ("scale", "free")
        subscriptions.apply_due_plans()
    with as_tenant(cast.tenant.id):
        (change,) = PlanChange.objects.filter(tenant=cast.tenant)
        assert (change.before, change.after, change.effective_at) == ("scale", "free", datetime(2026, 12, 1, tzinfo=UTC))


def test_a_smaller_plan_applied_late_holds_from_the_first_moment_of_its_month(cast) -> None:
    on_plan(cast.tenant, "team")
    with at(2028, 2, 29, 23, 59, 59):
        subscriptions.change_plan(cast.tenant, plan="free")
    with at(2028, 3, 2, 8):
        change = subscriptions.change_plan(cast.tenant, plan="scale")  # nobody applied it before
        assert change.at_once and named(cast.tenant) == "scale"
        assert (priced(cast.tenant, date(2028, 2, 1)), priced(cast.tenant, date(2028, 3, 1))) == ("team", "scale")
    with as_tenant(cast.tenant.id):
        assert plan_at_start(cast.tenant.id, date(2028, 3, 1)).name == "free"


def test_the_present_plan_takes_a_change_to_come_back(cast) -> None:
    on_plan(cast.tenant, "scale")
    with at(2026, 11, 21, 12):
        subscriptions.change_plan(cast.tenant, plan="team")
        assert subscriptions.get_account(cast.tenant).next_plan == "team"
        assert subscriptions.change_plan(cast.tenant, plan="scale").from_day == date(2026, 11, 21)
        assert subscriptions.get_account(cast.tenant).next_plan == ""
    with at(2026, 12, 1, 1):
        subscriptions.apply_due_plans()
        assert named(cast.tenant) == "scale"


def test_a_rise_forgets_a_smaller_plan_that_was_to_come(cast) -> None:
    on_plan(cast.tenant, "team")
    with at(2026, 11, 20, 12):
        subscriptions.change_plan(cast.tenant, plan="free")
        subscriptions.change_plan(cast.tenant, plan="scale")
    with at(2026, 12, 1, 1):
        subscriptions.apply_due_plans()
        assert named(cast.tenant) == "scale"


def test_two_who_rise_at_the_same_moment_make_one_change(cast) -> None:
    on_plan(cast.tenant, "free")
    changes = together(4, lambda _n: subscriptions.change_plan(cast.tenant, plan="team"))
    assert [change.plan for change in changes] == ["team"] * 4
    with as_tenant(cast.tenant.id):
        assert PlanChange.objects.filter(tenant=cast.tenant).count() == 1


def test_a_month_that_begins_while_the_plan_changes_has_the_new_caps(cast) -> None:
    """Whoever begins the month waits for who changes the plan, and reads what they wrote."""
    tenant = on_plan(cast.tenant, "team")
    with ThreadPoolExecutor(1) as pool:
        with as_tenant(tenant.id):
            subscriptions.change_plan(tenant, plan="scale")
            beginning = pool.submit(closing(lambda: begin(tenant)))
            time.sleep(0.5)
            assert not beginning.done()
        period = beginning.result()
    assert cap(tenant, period).alert_at == 1_600_000  # 80% of what Scale includes


def test_who_refreshes_the_terms_waits_for_the_month_that_begins(cast) -> None:
    """Or they would find no month yet, and leave it with the old plan's caps."""
    tenant = on_plan(cast.tenant, "team")

    def change() -> None:
        with as_tenant(tenant.id):
            Tenant.objects.filter(pk=tenant.pk).update(plan="scale")
            terms.refresh(tenant)

    with ThreadPoolExecutor(1) as pool:
        with as_tenant(tenant.id):
            period = begin(tenant)
            changing = pool.submit(closing(change))
            time.sleep(0.5)
            assert not changing.done()
        changing.result()
    assert cap(tenant, period).alert_at == 1_600_000


def test_an_organisations_money_is_changed_by_one_at_a_time_whatever_month_they_think_it_is(cast) -> None:
    def hold(period: date) -> None:
        with as_tenant(cast.tenant.id):
            months.hold(cast.tenant.id, period)

    with ThreadPoolExecutor(1) as pool:
        with as_tenant(cast.tenant.id):
            months.hold(cast.tenant.id, NOVEMBER)
            waiting = pool.submit(closing(lambda: hold(DECEMBER)))
            time.sleep(0.3)
            assert not waiting.done()
        waiting.result()


def test_what_does_not_fit_into_a_smaller_plan_stays_and_is_said(cast, monkeypatch) -> None:
    on_plan(cast.tenant, "scale")
    monkeypatch.setattr(room, "stored_bytes", lambda tenant: 3 * room.GIGABYTE)
    monkeypatch.setattr(subscriptions.members, "list_members", lambda tenant: [None] * 5)
    notes = subscriptions.change_plan(cast.tenant, plan="free").notes
    assert len(notes) == 2 and "room for 3 people and you are 5" in notes[0] and "1 GB of files and you have 3 GB" in notes[1]


def test_who_may_change_the_plan(cast) -> None:
    on_plan(cast.tenant, "free")
    with as_member(cast.viewer, cast.tenant), pytest.raises(errors.Forbidden):
        subscriptions.change_plan(cast.tenant, plan="team")
    with as_member(cast.stranger, cast.other), pytest.raises(errors.Forbidden):
        subscriptions.change_plan(cast.tenant, plan="team")
    with as_member(cast.owner, cast.tenant):
        for plan in ("unlimited", "gold"):
            with pytest.raises(errors.BadRequest) as caught:
                subscriptions.change_plan(cast.tenant, plan=plan)
            assert caught.value.param == "plan"
        assert not subscriptions.change_plan(cast.tenant, plan="free").notes
    assert subscriptions.change_plan(cast.tenant, plan="team").at_once
    assert subscriptions.change_plan(cast.tenant, plan="unlimited").at_once is False  # the operator may; it costs less


def test_changes_of_plans_are_never_changed(cast) -> None:
    on_plan(cast.tenant, "free")
    subscriptions.change_plan(cast.tenant, plan="team")
    with pytest.raises(ProgrammingError, match="permission denied"), as_tenant(cast.tenant.id), connection.cursor() as cursor:
        cursor.execute("UPDATE billing_planchange SET after = 'scale'")


# ---------- Stripe's ends ----------
def test_when_stripe_ends_with_a_month_the_free_plan_begins_with_the_next(cast) -> None:
    on_plan(cast.tenant, "team")
    with at(2026, 11, 5):
        subscriptions.set_collector(cast.tenant, collected_by="stripe")
    with at(2026, 12, 1, 0, 0, 9):
        subscriptions.end_subscription(cast.tenant, at=moment(2026, 12, 1))
        account = subscriptions.get_account(cast.tenant)
        assert (account.collected_by, account.stripe_until, named(cast.tenant)) == ("manual", DECEMBER, "free")
        assert priced(cast.tenant, NOVEMBER) == "team"


def test_when_stripe_ends_within_a_month_that_month_stays_its_own(cast) -> None:
    on_plan(cast.tenant, "team")
    subscriptions.set_collector(cast.tenant, collected_by="stripe")
    with at(2026, 12, 15):
        subscriptions.end_subscription(cast.tenant, at=moment(2026, 12, 14, 9))
        account = subscriptions.get_account(cast.tenant)
        assert (account.stripe_until, account.next_plan, named(cast.tenant)) == (date(2027, 1, 1), "free", "team")


# ---------- overdue ----------
def test_after_a_week_of_grace_calls_are_refused_until_it_is_paid(cast) -> None:
    on_plan(cast.tenant, "team")
    with at(2026, 11, 10):
        period = begin(cast.tenant)
        subscriptions.note_overdue(cast.tenant, since=moment(2026, 11, 10))
        subscriptions.note_overdue(cast.tenant, since=moment(2026, 11, 12))
        assert cap(cast.tenant, period).cap is None
    with at(2026, 11, 16, 23, 59, 59):
        terms.refresh_all()
        assert cap(cast.tenant, period).cap is None
    with at(2026, 11, 17):
        terms.refresh_all()
        assert (cap(cast.tenant, period).cap, cap(cast.tenant, period).reason) == (0, "payment_overdue")
        assert client_for(cast.key).get("/v1/usage").status_code == 200
        subscriptions.note_paid(cast.tenant)
        assert cap(cast.tenant, period).cap is None
    assert actions(cast.tenant)[:2] == ["billing.payment_made", "billing.payment_overdue"]


def test_members_note_no_payments(cast) -> None:
    with as_member(cast.owner, cast.tenant):
        for work in (
            lambda: subscriptions.note_paid(cast.tenant),
            lambda: subscriptions.note_overdue(cast.tenant, since=timezone.now()),
            lambda: subscriptions.set_collector(cast.tenant, collected_by="manual"),
            lambda: subscriptions.end_subscription(cast.tenant, at=timezone.now()),
        ):
            with pytest.raises(errors.Forbidden):
                work()
    with as_tenant(cast.tenant.id):
        assert not Account.objects.exists()


# ---------- storage ----------
@pytest.fixture
def small(monkeypatch, cast):
    """A plan that stores 100 bytes."""
    monkeypatch.setattr(room, "GIGABYTE", 100)
    return on_plan(cast.tenant, "free")


def upload(tenant, size: int):
    return files.create_file(tenant, filename="a.jsonl", purpose="batch", chunks=iter([b"x" * size]))


def test_an_upload_past_what_the_plan_stores_is_refused(small) -> None:
    first = upload(small, 60)
    with pytest.raises(errors.PaymentRequired, match="room for 1 GB") as caught:
        upload(small, 41)
    assert caught.value.code == "quota_exceeded"
    assert room.stored_bytes(small) == 60
    upload(small, 40)
    unread = iter([b"x"])
    with pytest.raises(errors.PaymentRequired):
        files.create_file(small, filename="a.jsonl", purpose="batch", chunks=unread)
    assert next(unread) == b"x"  # a plan that is full reads nothing
    files.delete_file(small, first.id)
    assert upload(small, 60).bytes == 60
    with as_tenant(small.id):
        assert not File.objects.filter(tenant=small, stored_at=None).exists()  # what was refused left nothing behind


def test_uploads_at_once_do_not_pass_the_limit_together(small) -> None:
    results = together(6, lambda _n: upload(small, 30))
    assert sum(isinstance(result, errors.PaymentRequired) for result in results) == 3
    assert room.stored_bytes(small) == 90


def test_what_a_job_writes_is_never_refused(small) -> None:
    upload(small, 100)
    output = files.begin_file(small, filename="out.jsonl", purpose="batch_output")
    files.write_file(output, iter([b"y" * 50]))
    with as_tenant(small.id):
        files.finish_file(output)
    assert room.stored_bytes(small) == 150


def test_an_upload_by_rest_past_the_limit_is_402(small, cast) -> None:
    from django.core.files.uploadedfile import SimpleUploadedFile

    body = {"purpose": "batch", "file": SimpleUploadedFile("a.jsonl", b"x" * 101)}
    answer = client_for(cast.key).post("/v1/files", body, format="multipart")
    assert (answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["param"]) == (402, "quota_exceeded", "file")


def test_a_member_moves_to_a_plan_that_costs_something_only_where_somebody_collects_it(cast) -> None:
    on_plan(cast.tenant, "free")
    with as_member(cast.owner, cast.tenant), pytest.raises(errors.Forbidden, match="Your operator changes plans"):
        subscriptions.change_plan(cast.tenant, plan="team")
    subscriptions.set_collector(cast.tenant, collected_by="stripe")
    with as_member(cast.owner, cast.tenant):
        assert subscriptions.change_plan(cast.tenant, plan="team").at_once
