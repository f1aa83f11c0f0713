"""Roles hold in the services, an organisation keeps an owner, invitations let the right person in once."""

import re
from datetime import timedelta

import pytest
from django.core import mail
from django.test import Client
from django.utils import timezone

from apps.accounts import invitations, keys, members, roles, services
from apps.accounts.models import Invitation, Membership
from apps.files import services as files
from apps.inference import services as inference
from apps.inference.predictions import Wanted
from apps.jobs import services as jobs
from maas import errors, ids
from maas.actors import Actor, acting
from maas.tenancy import as_tenant
from tests.belongings import belongings
from tests.cast import PASSWORD, browser_for, client_for, make_user

ROLES = ("viewer", "developer", "admin", "owner")


@pytest.fixture(autouse=True)
def outbox(settings_of):
    with settings_of(EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend"):
        yield


def join(cast, role: str):
    """Another member of the first tenant, and a block in which they act."""
    user = make_user(role)
    member = members.admit(cast.tenant, user=user, role=role)
    return user, acting(roles.user_actor(user, member))


def link_in_last_mail(to: str) -> str:
    body = next(message.body for message in reversed(mail.outbox) if message.to == [to])
    return re.search(r"/invitations/\S+", body).group()  # type: ignore[union-attr]


# ---------- roles, in the services ----------
def changes(cast) -> dict[str, tuple[str, object]]:
    """Everything that a member can change, and the least role that may."""
    names = belongings(cast)
    job_id, file_id = ids.decode(ids.BATCH, names["batch_id"]), ids.decode(ids.FILE, names["file_id"])
    invitation_id = ids.decode(ids.INVITATION, names["invitation_id"])
    batch = {"input_file_id": names["file_id"], "endpoint": "/v1/predictions", "completion_window": "24h"}
    key_id = keys.create_key(cast.tenant, name="x", scopes=["predict"])[0].id
    viewer = cast.viewer.pk
    return {
        "call a model": ("developer", lambda: inference.predict(cast.tenant, Wanted("none", "x"))),
        "upload": ("developer", lambda: files.create_file(cast.tenant, filename="a", purpose="batch", chunks=iter([b"x"]))),
        "delete a file": ("developer", lambda: files.delete_file(cast.tenant, file_id)),
        "start a batch": ("developer", lambda: jobs.create_batch(cast.tenant, **batch)),
        "cancel a batch": ("developer", lambda: jobs.cancel_batch(cast.tenant, job_id)),
        "make a key": ("developer", lambda: keys.create_key(cast.tenant, name="x", scopes=["predict"])),
        "change a key": ("developer", lambda: keys.change_key(cast.tenant, key_id, name="y")),
        "rotate a key": ("developer", lambda: keys.rotate_key(cast.tenant, key_id)),
        "revoke a key": ("developer", lambda: keys.revoke_key(cast.tenant, key_id)),
        "make a key that reads the audit log": ("admin", lambda: keys.create_key(cast.tenant, name="x", scopes=["keys"])),
        "invite": ("admin", lambda: invitations.invite(cast.tenant, email="new@example.org", role="viewer")),
        "invite an owner": ("owner", lambda: invitations.invite(cast.tenant, email="boss@example.org", role="owner")),
        "send an invitation again": ("admin", lambda: invitations.send_again(cast.tenant, invitation_id)),
        "withdraw an invitation": ("admin", lambda: invitations.withdraw(cast.tenant, invitation_id)),
        "change a role": ("admin", lambda: members.change_role(cast.tenant, viewer, role="developer")),
        "make an owner": ("owner", lambda: members.change_role(cast.tenant, viewer, role="owner")),
        "remove a member": ("admin", lambda: members.remove_member(cast.tenant, viewer)),
        "remove an owner": ("owner", lambda: members.remove_member(cast.tenant, cast.owner.pk)),
        "ask for a second factor": ("admin", lambda: services.change_tenant(cast.tenant, require_mfa=False)),
    }


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_change_what_it_says_and_nothing_else(cast, role) -> None:
    todo = changes(cast)
    _user, acts = join(cast, role)
    allowed, forbidden = set(), set()
    with acts:
        for what, (_least, change) in todo.items():
            try:
                change()  # type: ignore[operator]
                allowed.add(what)
            except errors.Forbidden:
                forbidden.add(what)
            except errors.MaasError:
                allowed.add(what)  # it came as far as the thing itself
    assert allowed == {what for what, (least, _change) in todo.items() if ROLES.index(role) >= ROLES.index(least)}
    assert forbidden == set(todo) - allowed


def test_a_member_of_one_organisation_may_change_nothing_in_another(cast) -> None:
    todo = changes(cast)
    member = services.get_membership(cast.stranger, cast.other.id)
    with acting(roles.user_actor(cast.stranger, member)):
        for what, (_least, change) in todo.items():
            with pytest.raises((errors.Forbidden, errors.NotFound)):
                change()  # type: ignore[operator]
                pytest.fail(what)


def test_nobody_may_change_anything(cast) -> None:
    with acting(Actor("nobody")), pytest.raises(errors.Forbidden):
        keys.create_key(cast.tenant, name="x", scopes=["predict"])


def test_a_session_has_the_rights_of_its_role_over_rest_too(cast) -> None:
    developer, _acts = join(cast, "developer")
    answer = browser_for(developer).post("/v1/keys", {"name": "x", "scopes": ["keys"]}, content_type="application/json")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "role_forbids")
    answer = browser_for(cast.viewer).post("/v1/keys", {"name": "x", "scopes": ["predict"]}, content_type="application/json")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "role_forbids")


def test_a_removed_member_is_out_with_the_next_request(cast) -> None:
    user, _acts = join(cast, "developer")
    browser = browser_for(user)
    assert browser.get("/keys").status_code == 200
    members.remove_member(cast.tenant, user.pk)
    answer = browser.get("/keys")
    assert (answer.status_code, answer["Location"]) == (302, "/organisations/new")
    assert browser.get("/v1/keys").status_code == 401


# ---------- owners ----------
def test_the_last_owner_stays(cast) -> None:
    for change in (
        lambda: members.change_role(cast.tenant, cast.owner.pk, role="viewer"),
        lambda: members.remove_member(cast.tenant, cast.owner.pk),
    ):
        with pytest.raises(errors.BadRequest) as caught:
            change()
        assert caught.value.code == "last_owner"


def test_ownership_goes_over_whole(cast) -> None:
    members.transfer_ownership(cast.tenant, from_user=cast.owner, to_user_id=cast.viewer.pk)
    assert {member.user_id: member.role for member in members.list_members(cast.tenant)} == {
        cast.owner.pk: "admin", cast.viewer.pk: "owner",
    }  # fmt: skip


def test_only_an_owner_hands_over_and_only_to_another_member(cast) -> None:
    admin, acts = join(cast, "admin")
    with acts, pytest.raises(errors.Forbidden):
        members.transfer_ownership(cast.tenant, from_user=admin, to_user_id=admin.pk)
    for user_id, kind in ((cast.owner.pk, errors.BadRequest), (cast.stranger.pk, errors.NotFound)):
        with pytest.raises(kind):
            members.transfer_ownership(cast.tenant, from_user=cast.owner, to_user_id=user_id)


def test_everybody_may_leave(cast) -> None:
    browser = browser_for(cast.viewer)
    assert browser.get(f"/team/{cast.viewer.pk}/remove").status_code == 200
    assert browser.post(f"/team/{cast.viewer.pk}/remove").status_code == 302
    assert [member.user_id for member in members.list_members(cast.tenant)] == [cast.owner.pk]


# ---------- a second factor for everybody ----------
def test_members_without_a_second_factor_are_sent_to_set_one_up(cast) -> None:
    services.change_tenant(cast.tenant, require_mfa=True)
    browser = browser_for(cast.viewer)
    assert browser.get("/keys")["Location"] == "/account"
    assert browser.get("/account").status_code == 200
    assert browser.get("/v1/keys").json()["error"]["code"] == "second_factor_required"
    assert client_for(cast.key).get("/v1/keys").status_code == 200  # programs have keys


def test_a_person_without_an_organisation_has_an_account_page() -> None:
    page = browser_for(make_user("alone")).get("/account")
    assert page.status_code == 200 and "New organisation" in page.content.decode()


def test_who_asks_for_a_second_factor_has_one(cast) -> None:
    answer = browser_for(cast.owner).post("/team/second-factor", {"require_mfa": "on"}, follow=True)
    assert "lock yourself out" in answer.content.decode()
    assert not services.list_tenants(cast.owner)[0].require_mfa


# ---------- invitations ----------
def invited(cast, email: str = "new@example.org", role: str = "developer") -> tuple[Invitation, str]:
    invitation = invitations.invite(cast.tenant, email=email, role=role, invited_by=cast.owner)
    return invitation, link_in_last_mail(email).rpartition("/")[2]


def code(call) -> str:
    with pytest.raises(errors.MaasError) as caught:
        call()
    return caught.value.code


def test_an_invitation_lets_its_person_in_once(cast) -> None:
    user = make_user("guest")
    _invitation, secret = invited(cast, user.email)
    assert invitations.accept(user, secret).role == "developer"
    assert services.get_membership(user, cast.tenant.id).role == "developer"
    assert code(lambda: invitations.accept(user, secret)) == "invitation_used"


def test_two_clicks_in_a_race_make_one_member(cast, monkeypatch) -> None:
    """Both have read that the invitation is open before either accepts it."""
    user = make_user("quick")
    _invitation, secret = invited(cast, user.email)
    seen = invitations.find_invitation(secret)
    monkeypatch.setattr(invitations, "find_invitation", lambda _secret: seen)
    invitations.accept(user, secret)
    members.remove_member(cast.tenant, user.pk)
    assert code(lambda: invitations.accept(user, secret)) == "invitation_used"


def test_another_person_cannot_use_it(cast) -> None:
    _invitation, secret = invited(cast)
    assert code(lambda: invitations.accept(cast.stranger, secret)) == "invitation_for_another"
    answer = browser_for(cast.stranger).post(f"/invitations/{secret}")
    assert answer.status_code == 403 and "new@example.org" in answer.content.decode()
    with as_tenant(cast.tenant.id):
        assert not Membership.objects.filter(user=cast.stranger).exists()


def test_an_expired_a_withdrawn_and_a_made_up_link_say_so(cast) -> None:
    user = make_user("late")
    invitation, secret = invited(cast, user.email)
    with as_tenant(cast.tenant.id):
        Invitation.objects.filter(pk=invitation.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert code(lambda: invitations.accept(user, secret)) == "invitation_expired"
    invitations.withdraw(cast.tenant, invitation.pk)
    assert code(lambda: invitations.accept(user, secret)) == "invitation_withdrawn"
    assert code(lambda: invitations.accept(user, "made-up")) == "invitation_not_found"
    for link, status in ((secret, 400), ("made-up", 404)):
        page = Client().get(f"/invitations/{link}")
        assert page.status_code == status and "req_" in page.content.decode()


def test_sending_again_makes_the_first_link_useless(cast) -> None:
    user = make_user("again")
    invitation, first = invited(cast, user.email)
    invitations.send_again(cast.tenant, invitation.pk)
    second = link_in_last_mail(user.email).rpartition("/")[2]
    assert code(lambda: invitations.accept(user, first)) == "invitation_not_found"
    assert invitations.accept(user, second).user_id == user.pk


def test_who_is_a_member_or_invited_already_is_not_invited(cast) -> None:
    invited(cast, "twice@example.org")
    assert code(lambda: invited(cast, "TWICE@example.org ")) == "already_invited"
    assert code(lambda: invited(cast, cast.viewer.email)) == "already_member"
    assert code(lambda: invited(cast, "no address")) == "invalid_value"
    assert code(lambda: invited(cast, "a@example.org", "king")) == "invalid_value"


def test_whoever_is_invited_signs_up_into_the_organisation(cast, settings_of) -> None:
    """Also where sign-up is closed; the mailed link has proven the address."""
    address = make_user("unused").email.replace("unused", "fresh")
    _invitation, secret = invited(cast, address)
    browser = Client()
    with settings_of(MAAS_SIGNUP_OPEN=False):
        assert "Create an account" in browser.get(f"/invitations/{secret}").content.decode()
        wrong = browser.post("/accounts/signup/", {"email": "other@example.org", "password1": PASSWORD})
        assert "Sign up with that address" in wrong.content.decode()
        browser.post("/accounts/signup/", {"email": address, "password1": PASSWORD})
    assert browser.get("/team").status_code == 200
    user = next(member.user for member in members.list_members(cast.tenant) if member.user.email == address)
    assert user.emailaddress_set.get().verified
    assert len(services.list_tenants(user)) == 1


def test_the_secret_of_a_link_is_not_stored(cast) -> None:
    invitation, secret = invited(cast)
    with as_tenant(cast.tenant.id):
        assert secret.encode() not in bytes(Invitation.objects.get(pk=invitation.pk).hash)


def test_a_plan_has_so_many_seats_and_an_invitation_takes_one(cast, monkeypatch) -> None:
    monkeypatch.setitem(members.SEATS, "unlimited", 3)  # the owner, the viewer, and one more
    user = make_user("third")
    _invitation, secret = invited(cast, user.email)
    assert code(lambda: invited(cast, "fourth@example.org")) == "member_limit"
    assert "2 of 3 people" in browser_for(cast.owner).get("/team").content.decode()
    monkeypatch.setitem(members.SEATS, "unlimited", 2)
    assert code(lambda: invitations.accept(user, secret)) == "member_limit"
    monkeypatch.setitem(members.SEATS, "unlimited", 3)
    assert invitations.accept(user, secret).user_id == user.pk


def test_every_plan_declares_its_seats() -> None:
    assert {name: members.SEATS[name] for name in ("free", "unlimited")} == {"free": 3, "unlimited": None}


# ---------- the page ----------
def test_the_team_page_does_all_of_it(cast) -> None:
    browser = browser_for(cast.owner)
    assert browser.post("/team/invite", {"email": "page@example.org", "role": "viewer"}).status_code == 302
    page = browser.get("/team").content.decode()
    assert "page@example.org" in page and cast.viewer.email in page
    again = browser.post("/team/invite", {"email": "page@example.org", "role": "viewer"})
    assert again.status_code == 422 and "invited already" in again.content.decode()
    invitation = ids.encode(ids.INVITATION, invitations.list_open(cast.tenant)[0].id)
    assert browser.post(f"/team/invitations/{invitation}/again").status_code == 302
    assert browser.post(f"/team/invitations/{invitation}/withdraw").status_code == 302
    assert browser.post(f"/team/{cast.viewer.pk}/role", {"role": "developer"}).status_code == 302
    assert services.get_membership(cast.viewer, cast.tenant.id).role == "developer"
    assert browser.post("/team/transfer", {"user": str(cast.viewer.pk)}).status_code == 302
    assert services.get_membership(cast.viewer, cast.tenant.id).role == "owner"


def test_a_viewer_sees_the_team_without_its_controls(cast) -> None:
    page = browser_for(cast.viewer).get("/team").content.decode()
    assert cast.owner.email in page and "/team/invite" not in page and "/role" not in page
    assert browser_for(cast.viewer).post("/team/invite", {"email": "x@example.org", "role": "viewer"}).status_code == 403
