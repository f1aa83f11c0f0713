"""A suspended organisation: its calls and changes are refused at once, its people may read, and its log says why."""

import re

import pytest
from django.test import Client

from apps.accounts import keys, suspension
from apps.accounts.services import get_membership
from apps.jobs import services as jobs
from maas import errors, ids
from maas.actors import SYSTEM, acting
from tests.belongings import belongings
from tests.cast import browser_for, client_for, make_key, make_user
from tests.operating import make_operator, told
from tests.signing import mail_to

REASON = "invoices of June to August are not paid"


@pytest.fixture
def suspended(cast):
    suspension.suspend_tenant(cast.tenant, reason=REASON)
    return cast


def refused(answer) -> bool:
    return answer.status_code == 403 and answer.json()["error"]["code"] == "organisation_suspended"


# ---------- calls ----------
def test_every_call_is_refused_from_the_next_one_on_and_works_again_when_resumed(cast) -> None:
    caller = client_for(cast.key)
    assert caller.get("/v1/models").status_code == 200
    suspension.suspend_tenant(cast.tenant, reason=REASON)
    for path in ("/v1/models", "/v1/files", "/v1/keys", "/v1/usage"):
        assert refused(caller.get(path)), path
    assert refused(caller.post("/v1/predictions", {"model": "cifar10-resnet9", "inputs": "x"}, format="json"))
    assert client_for(cast.other_key).get("/v1/models").status_code == 200
    suspension.resume_tenant(cast.tenant)
    assert caller.get("/v1/models").status_code == 200


def test_a_call_with_a_members_session_is_refused_too(suspended) -> None:
    for user in (suspended.owner, suspended.viewer):
        assert refused(browser_for(user).get("/v1/keys"))


def test_the_face_of_openai_says_it_in_its_own_shape(suspended) -> None:
    error = client_for(suspended.key).get("/v1/models").json()["error"]
    assert "suspended" in error["message"] and error["type"] == "permission_error"


def test_a_new_key_of_a_suspended_organisation_opens_nothing(suspended) -> None:
    assert refused(client_for(make_key(suspended.tenant)).get("/v1/models"))


# ---------- the dashboard ----------
def test_pages_can_be_read_and_say_why_nothing_can_be_changed(suspended) -> None:
    browser = browser_for(suspended.owner)
    for path in ("/", "/keys", "/models", "/jobs", "/files", "/usage", "/team", "/audit", "/webhooks"):
        page = browser.get(path)
        assert page.status_code == 200 and REASON in page.content.decode(), path


def test_changes_in_the_dashboard_are_refused_with_the_reason(suspended) -> None:
    browser, before = browser_for(suspended.owner), len(keys.list_keys(suspended.tenant))
    key_id = ids.encode(ids.KEY, suspended.key.row.id)
    posts = {
        "/keys/new": {"name": "new", "scopes": ["predict"]}, f"/keys/{key_id}/revoke": {"name": "test"}, "/models/cifar10-resnet9/play": {},
        "/jobs/new": {}, "/team/invite": {"email": "a@b.org"}, f"/team/{suspended.viewer.pk}/remove": {}, "/getting-started/key": {},
    }  # fmt: skip
    for path, data in posts.items():
        answer = browser.post(path, data)
        assert answer.status_code == 403 and "suspended by the operator" in answer.content.decode(), path
    assert len(keys.list_keys(suspended.tenant)) == before
    assert get_membership(suspended.viewer, None) is not None


def test_no_service_lets_a_member_change_anything_while_reading_the_log_goes_on(suspended) -> None:
    from apps.accounts.roles import user_actor
    from apps.audit.services import list_entries

    with acting(user_actor(suspended.owner, get_membership(suspended.owner, None))):
        with pytest.raises(errors.Forbidden, match="suspended by the operator"):
            keys.create_key(suspended.tenant, name="x", scopes=["predict"])
        assert list_entries(suspended.tenant)[0]


def test_a_person_can_work_in_another_organisation_of_theirs(suspended) -> None:
    from apps.accounts import members

    members.admit(suspended.other, user=suspended.owner, role="admin")
    browser = browser_for(suspended.owner)
    browser.post("/organisations/switch", {"organisation": suspended.other.slug})
    assert REASON not in browser.get("/keys").content.decode()
    assert browser.post("/keys/new", {"name": "new", "scopes": ["predict"], "expires": "never"}).status_code != 403


def test_nobody_joins_a_suspended_organisation(cast) -> None:
    from apps.accounts import invitations

    guest = make_user("guest")
    with acting(SYSTEM):
        invitations.invite(cast.tenant, email=guest.email, role="viewer")
        suspension.suspend_tenant(cast.tenant, reason=REASON)
    path = re.search(r"/invitations/\S+", mail_to(guest.email)[-1]).group()
    assert browser_for(guest).post(path).status_code == 400
    suspension.resume_tenant(cast.tenant)
    assert browser_for(guest).post(path).status_code == 302


# ---------- work ----------
def test_a_job_that_was_started_before_goes_on_and_no_new_one_starts(cast) -> None:
    from workers import tasks

    names = belongings(cast)
    suspension.suspend_tenant(cast.tenant, reason=REASON)
    tasks.validate_batch(str(cast.tenant.id), str(ids.decode(ids.BATCH, names["batch_id"])))
    job = jobs.get_job(cast.tenant, ids.decode(ids.BATCH, names["batch_id"]))
    assert job.state == "running"
    body = {"input_file_id": names["file_id"], "endpoint": "/v1/predictions", "completion_window": "24h"}
    assert refused(client_for(cast.key).post("/v1/batches", body, format="json"))
    assert browser_for(cast.owner).post("/jobs/new", body).status_code == 403


# ---------- who, and what is told ----------
def test_the_operators_page_suspends_and_resumes_and_the_log_names_who_did_it(cast) -> None:
    operator = make_operator()
    assert operator.do(cast.tenant, "suspend", reason=REASON).status_code == 302
    assert operator.do(cast.tenant, "resume").status_code == 302
    before, after = told(cast.tenant, "tenant.suspended")[0], told(cast.tenant, "tenant.resumed")[0]
    assert before["after"] == {"reason": REASON} and before["address"] == "127.0.0.1"
    for said in (before, after):
        assert (said["actor"]["kind"], said["actor"]["role"], said["actor"]["name"]) == ("user", "operator", operator.user.email)
    mails = mail_to(cast.owner.email)
    assert any(REASON in mail and "suspended" in mail for mail in mails) and any("works again" in mail for mail in mails)
    assert not any(REASON in mail for mail in mail_to(cast.viewer.email))


def test_a_reason_is_asked_for_and_without_one_nothing_happens(cast) -> None:
    operator = make_operator()
    for reason in ("", "   ", "x" * 301):
        assert operator.do(cast.tenant, "suspend", reason=reason).status_code == 422
    assert client_for(cast.key).get("/v1/models").status_code == 200 and not told(cast.tenant, "tenant.suspended")


def test_suspending_twice_keeps_the_first_reason_and_writes_one_entry(suspended) -> None:
    assert suspension.suspend_tenant(suspended.tenant, reason="another").suspended_reason == REASON
    suspension.resume_tenant(suspended.tenant)
    assert suspension.resume_tenant(suspended.tenant).suspended_at is None
    assert len(told(suspended.tenant, "tenant.suspended")) == len(told(suspended.tenant, "tenant.resumed")) == 1


def test_an_owner_cannot_suspend_or_resume_by_the_service_or_the_page(suspended) -> None:
    from apps.accounts.roles import user_actor

    with acting(user_actor(suspended.owner, get_membership(suspended.owner, None))):
        for deed in (lambda: suspension.resume_tenant(suspended.tenant), lambda: suspension.suspend_tenant(suspended.tenant, reason="x")):
            with pytest.raises(errors.Forbidden):
                deed()
    path = f"/operator/deeds/tenant/{suspended.tenant.id}/resume"
    assert browser_for(suspended.owner).post(path).status_code == 403
    assert Client().post(path).status_code == 302
    with acting(SYSTEM):
        assert get_membership(suspended.owner, None).tenant.suspended_at
