"""An operator looks at an organisation: read-only, for an hour, written down, and never by a session that was made up."""

import itertools
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import time_machine
from allauth.mfa.models import Authenticator
from django.test import Client

from apps.accounts import impersonation, keys, operators
from apps.accounts.models import User, Visit
from apps.accounts.roles import user_actor
from apps.accounts.services import get_membership
from maas import errors
from maas.actors import acting
from maas.tenancy import as_tenant
from tests.belongings import belongings
from tests.cast import browser_for
from tests.operating import Operator, make_operator, told
from tests.walk import fill, owned, plain, send

REASON = "they ask why their batch failed"


@pytest.fixture
def operator() -> Operator:
    return make_operator()


@pytest.fixture
def looking(cast, operator) -> Operator:
    answer = operator.look(cast.tenant, REASON)
    assert answer.status_code == 302 and answer["Location"] == "/", answer.content
    return operator


def sees(browser: Client, tenant) -> bool:
    return f"You look at {tenant.slug} as its operator" in browser.get("/keys").content.decode()


def put_into_session(browser: Client, tenant_id: object, visit_id: object) -> None:
    session = browser.session
    session[impersonation.SESSION_KEY] = [str(tenant_id), str(visit_id)]
    session.save()


def visit_of(cast) -> Visit:
    with as_tenant(cast.tenant.id):
        return Visit.objects.get(tenant=cast.tenant)


# ---------- looking ----------
def test_every_page_shows_whom_the_operator_looks_at_and_a_way_out(cast, looking) -> None:
    for path in ("/", "/keys", "/models", "/jobs", "/files", "/usage", "/team", "/webhooks", "/account", "/nothing-here"):
        page = looking.browser.get(path).content.decode()
        assert f"You look at {cast.tenant.slug} as its operator" in page and 'action="/operator/leave"' in page, path
    assert cast.viewer.email in looking.browser.get("/team").content.decode()


def test_the_audit_log_stays_closed_as_it_is_for_viewers(looking) -> None:
    assert looking.browser.get("/audit").status_code in {302, 403}
    assert looking.browser.get("/v1/audit").status_code == 403


def test_the_organisations_log_says_who_looks_from_where_and_why(cast, looking) -> None:
    (said,) = told(cast.tenant, "operator.entered")
    assert said["after"]["reason"] == REASON and said["address"] == "127.0.0.1"
    assert (said["actor"]["kind"], said["actor"]["role"], said["actor"]["name"]) == ("user", "operator", looking.user.email)
    assert looking.browser.post("/operator/leave").status_code == 302
    (end,) = told(cast.tenant, "operator.left")
    assert end["after"] == {"reason": REASON, "ended": "left"} and end["actor"] == said["actor"]
    assert not sees(looking.browser, cast.tenant)


def test_nothing_can_be_changed_whatever_is_sent_to_whatever_address(cast, looking) -> None:
    """Every route of the product, each with every method that is not reading."""
    names, before = defaultdict(lambda: "x", belongings(cast)), len(keys.list_keys(cast.tenant, with_revoked=True))
    let = [
        (route, method, answer.status_code)
        for route, method in itertools.product([*owned(), *plain()], ("post", "put", "patch", "delete"))
        if not route.startswith("operator") and (answer := send(looking.browser, method, fill(route, names))).status_code != 403
    ]
    assert let == []
    assert len(keys.list_keys(cast.tenant, with_revoked=True)) == before and sees(looking.browser, cast.tenant)


def test_changes_are_refused_in_the_shape_that_the_caller_reads(looking) -> None:
    answer = looking.browser.post("/v1/predictions", {"model": "x", "inputs": "y"}, content_type="application/json")
    assert answer.status_code == 403 and answer.json()["error"]["code"] == "looking"
    note = looking.browser.post("/models/cifar10-resnet9/play", {}, headers={"HX-Request": "true"})
    assert note.status_code == 403 and "which only reads" in note.content.decode() and "<html" not in note.content.decode()


def test_no_service_lets_the_visitor_change_anything(cast, looking) -> None:
    with acting(impersonation.visitor_actor(visit_of(cast))), pytest.raises(errors.Forbidden, match="only reads"):
        keys.create_key(cast.tenant, name="x", scopes=["predict"])


def test_the_operators_own_deeds_go_on_while_looking(cast, looking) -> None:
    assert looking.do(cast.other, "suspend", reason="spam").status_code == 302
    assert told(cast.other, "tenant.suspended")[0]["actor"]["name"] == looking.user.email


# ---------- entering ----------
def test_a_reason_is_needed(cast, operator) -> None:
    for reason in ("", "  ", "x" * 301):
        assert operator.look(cast.tenant, reason).status_code == 422
    assert not sees(operator.browser, cast.tenant) and not told(cast.tenant, "operator.entered")


def test_a_second_factor_is_asked_for_again_when_the_last_one_is_some_minutes_old(cast, operator) -> None:
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=6)):
        for answer in (operator.browser.get(f"/operator/deeds/tenant/{cast.tenant.id}/look"), operator.look(cast.tenant)):
            assert answer["Location"].startswith("/accounts/2fa/reauthenticate/?next=")
        assert not sees(operator.browser, cast.tenant)
        operator.prove()
        assert operator.look(cast.tenant).status_code == 302
        assert sees(operator.browser, cast.tenant)


def test_nobody_but_an_operator_with_a_second_factor_enters_by_the_service(cast, operator) -> None:
    member = user_actor(cast.owner, get_membership(cast.owner, None))
    with acting(member), pytest.raises(errors.Forbidden):
        impersonation.start_visit(cast.tenant, user=cast.owner, session_key="s", reason="x")
    with acting(operators.operator_actor(cast.stranger, cast.tenant)), pytest.raises(errors.Forbidden):
        impersonation.start_visit(cast.tenant, user=cast.stranger, session_key="s", reason="x")
    with acting(operators.operator_actor(operator.user, cast.other)), pytest.raises(errors.Forbidden):
        impersonation.start_visit(cast.tenant, user=operator.user, session_key="s", reason="x")


def test_a_member_who_posts_to_the_operators_address_does_not_enter(cast) -> None:
    browser = browser_for(cast.stranger)
    assert browser.post(f"/operator/deeds/tenant/{cast.tenant.id}/look", {"reason": "x"}).status_code == 403
    assert not sees(browser, cast.tenant)


# ---------- sessions that were made up ----------
@pytest.mark.parametrize("named", [None, "nonsense", [], ["a", "b"], [1, 2], {"a": 1}, ["", "", ""]])
def test_a_session_with_anything_odd_in_it_leads_nowhere(cast, named) -> None:
    browser = browser_for(cast.stranger)
    session = browser.session
    session[impersonation.SESSION_KEY] = named
    session.save()
    page = browser.get("/keys")
    assert page.status_code == 200 and cast.other.slug in page.content.decode()


def test_a_session_that_names_a_visit_which_never_began_leads_nowhere(cast, operator) -> None:
    for browser in (browser_for(cast.stranger), operator.browser):
        put_into_session(browser, cast.tenant.id, uuid4())
        assert not sees(browser, cast.tenant) and cast.key.row.name not in browser.get("/keys").content.decode().split("<main")[0]


def test_somebody_elses_visit_leads_nowhere_and_goes_on_for_them(cast, looking) -> None:
    visit, another = visit_of(cast), make_operator()
    for browser in (browser_for(cast.stranger), another.browser):
        put_into_session(browser, cast.tenant.id, visit.id)
        assert not sees(browser, cast.tenant)
    assert sees(looking.browser, cast.tenant)


def test_a_visit_in_a_copied_session_of_somebody_else_leads_nowhere(cast) -> None:
    """The same session key, as after a theft of the table, but another person: both have to fit."""
    another = make_operator()
    with as_tenant(cast.tenant.id):
        digest = impersonation._digest(another.browser.session.session_key)
        visit = Visit.objects.create(tenant=cast.tenant, user=make_operator().user, reason="x", session=digest)
    put_into_session(another.browser, cast.tenant.id, visit.id)
    assert not sees(another.browser, cast.tenant)


def test_the_visit_of_another_session_of_the_same_person_leads_nowhere(cast, looking) -> None:
    browser = browser_for(looking.user)
    put_into_session(browser, cast.tenant.id, visit_of(cast).id)
    assert not sees(browser, cast.tenant) and sees(looking.browser, cast.tenant)


def test_a_visit_does_not_lead_into_another_organisation(cast, looking) -> None:
    put_into_session(looking.browser, cast.other.id, visit_of(cast).id)
    assert not sees(looking.browser, cast.other) and cast.other.slug not in looking.browser.get("/keys", follow=True).content.decode()


def test_a_visit_that_ended_cannot_be_put_back(cast, looking) -> None:
    visit = visit_of(cast)
    looking.browser.post("/operator/leave")
    put_into_session(looking.browser, cast.tenant.id, visit.id)
    assert not sees(looking.browser, cast.tenant)


def test_a_row_of_somebody_who_is_no_operator_leads_nowhere(cast) -> None:
    """Even if one could be written."""
    browser = browser_for(cast.stranger)
    with as_tenant(cast.tenant.id):
        digest = impersonation._digest(browser.session.session_key)
        visit = Visit.objects.create(tenant=cast.tenant, user=cast.stranger, reason="x", session=digest)
    put_into_session(browser, cast.tenant.id, visit.id)
    assert not sees(browser, cast.tenant)


# ---------- leaving ----------
def test_it_ends_after_an_hour_and_the_log_says_so(cast, looking) -> None:
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=59)):
        assert sees(looking.browser, cast.tenant)
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=61)):
        assert not sees(looking.browser, cast.tenant)
    (end,) = told(cast.tenant, "operator.left")
    assert end["after"]["ended"] == "time was up" and end["actor"]["name"] == looking.user.email


def test_a_visit_that_nobody_comes_back_to_is_ended_by_the_sweep(cast, looking) -> None:
    from workers import tasks

    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=61)):
        tasks.end_visits()
        tasks.end_visits()
    assert [said["after"]["ended"] for said in told(cast.tenant, "operator.left")] == ["time was up"]


def test_it_ends_when_the_rights_are_gone(cast, looking) -> None:
    User.objects.filter(pk=looking.user.pk).update(is_staff=False)
    assert not sees(looking.browser, cast.tenant)
    assert told(cast.tenant, "operator.left")[0]["after"]["ended"] == "not an operator any more"
    User.objects.filter(pk=looking.user.pk).update(is_staff=True)
    assert not sees(looking.browser, cast.tenant)


def test_it_ends_when_the_second_factor_is_taken_away(cast, looking) -> None:
    Authenticator.objects.filter(user=looking.user).delete()
    assert not sees(looking.browser, cast.tenant)


def test_proving_a_factor_once_more_does_not_end_it(cast, looking) -> None:
    looking.prove()
    assert sees(looking.browser, cast.tenant)


def test_signing_out_ends_it(cast, looking) -> None:
    looking.browser.post("/accounts/logout/")
    assert told(cast.tenant, "operator.left")[0]["after"]["ended"] == "signed out"


def test_beginning_another_ends_the_first(cast, looking) -> None:
    assert looking.look(cast.other).status_code == 302
    assert sees(looking.browser, cast.other) and not sees(looking.browser, cast.tenant)
    assert [said["after"]["ended"] for said in told(cast.tenant, "operator.left")] == ["another was begun"]
