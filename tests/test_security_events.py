"""What happens to an account is told to every organisation of the person, in the same transaction."""

from uuid import uuid4

from allauth.account.models import EmailAddress
from django.test import Client

from apps.accounts.models import User
from maas import events
from tests.cast import PASSWORD, Cast, make_tenant
from tests.signing import LOCKED, add_app, fail, heard, mail_to, prove, sign_in, signed_in, told


# ---------- what the audit log hears ----------
def test_signing_in_and_out_is_told_to_every_organisation_of_the_person(cast: Cast) -> None:
    second = make_tenant(cast.owner, "second")
    with heard(cast.owner) as found:
        browser = Client()
        sign_in(cast.owner.email, browser=browser, address="192.0.2.4")
        browser.post("/accounts/logout/")
    signed = [(event, actor) for event, actor in found if isinstance(event, events.SignedIn)]
    assert [event.tenant_id for event, _ in signed] == sorted([cast.tenant.id, second.id])
    assert {actor.tenant_id for _, actor in signed} == {cast.tenant.id, second.id}
    event, actor = signed[0]
    assert (event.label, event.after) == (cast.owner.email, {"with": ["password"]})
    assert (actor.kind, actor.name, actor.role, actor.address) == ("user", cast.owner.email, "owner", "192.0.2.4")
    assert actor.request_id.startswith("req_")
    assert told(found, events.SessionEnded) == [{"by": "signing out"}] * 2


def test_a_refused_try_and_a_lock_out_are_told_once_each_and_name_nobody(cast: Cast, settings_of) -> None:
    with settings_of(**LOCKED), heard(cast.owner) as found:
        fail(cast.owner.email, 6)
        fail(f"nobody-{uuid4().hex}@example.org", 1)
    assert told(found, events.SignInRefused) == [{"with": "password"}] * 3
    assert told(found, events.UserLockedOut) == [{"with": "password", "minutes": 15}]
    assert {(actor.kind, actor.address) for _, actor in found} == {("nobody", "127.0.0.1")}


def test_changes_of_factors_passwords_addresses_and_sessions_are_told(cast: Cast) -> None:
    browser = signed_in(cast.owner.email)
    EmailAddress.objects.update_or_create(user=cast.owner, email=cast.owner.email, defaults={"verified": True, "primary": True})
    with heard(cast.owner) as found:
        add_app(cast.owner, browser)
        browser.post("/accounts/2fa/recovery-codes/generate/")
        browser.post("/accounts/2fa/totp/deactivate/")
        browser.post("/accounts/email/", {"email": f"more-{cast.owner.email}", "action_add": ""})
        browser.post("/accounts/email/", {"email": f"more-{cast.owner.email}", "action_remove": ""})
        browser.post(
            "/accounts/password/change/",
            {"oldpassword": PASSWORD, "password1": "another long sentence", "password2": "another long sentence"},
        )
        signed = Client()
        sign_in(cast.owner.email, "another long sentence", browser=signed)
        browser.post("/accounts/sessions/")
    changes = [after["what"] for after in told(found, events.SecurityChanged)]
    assert changes == [
        "authenticator app added", "recovery codes made", "recovery codes made", "authenticator app removed",
        "e-mail address added", "e-mail address removed", "password changed",
    ]  # fmt: skip
    assert told(found, events.SessionEnded) == [{"device": "An unknown device", "address": "127.0.0.1"}]
    assert all(actor.kind == "user" and actor.name == cast.owner.email for _, actor in found)
    subjects = "".join(mail_to(cast.owner.email))
    for subject in ("An authenticator app was added", "New recovery codes were made", "was removed", "Your password was changed"):
        assert f"Subject: {subject}" in subjects or subject in subjects


def test_a_change_that_cannot_be_told_does_not_happen(cast: Cast) -> None:
    browser = signed_in(cast.owner.email)
    browser.raise_request_exception = False
    prove(browser)

    def fail_for_owner(event: events.Event) -> None:
        if event.label == cast.owner.email:
            raise RuntimeError("the audit log is away")

    events.subscribe(events.SecurityChanged, fail_for_owner)
    try:
        change = {"oldpassword": PASSWORD, "password1": "another long sentence", "password2": "another long sentence"}
        assert browser.post("/accounts/password/change/", change).status_code == 500
    finally:
        events.unsubscribe(events.SecurityChanged, fail_for_owner)
    assert User.objects.get(pk=cast.owner.pk).check_password(PASSWORD)
    assert not any("Your password was changed" in mail for mail in mail_to(cast.owner.email))
