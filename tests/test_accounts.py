"""Sign-up makes a tenant; sign-in, sign-out and password reset work; roles hold."""

import re
from pathlib import Path
from uuid import uuid4

import pytest
from django.conf import settings
from django.test import Client

from apps.accounts import keys, services
from apps.accounts.models import User
from maas import errors, events
from maas.tenancy import as_tenant
from tests.cast import PASSWORD, make_user


def sign_up(**fields: str):
    name = uuid4().hex[:12]
    form = {"email": f"{name}@example.org", "organisation": f"org-{name}", "password1": PASSWORD, **fields}
    return Client().post("/accounts/signup/", form), form


def mails() -> list[str]:
    return [path.read_text() for path in sorted(Path(settings.EMAIL_FILE_PATH).glob("*"), key=lambda path: path.stat().st_mtime)]


def test_signing_up_makes_an_organisation_that_one_owns() -> None:
    answer, form = sign_up()
    assert (answer.status_code, answer["Location"]) == (302, "/")
    user = User.objects.get(email=form["email"])
    member = services.get_membership(user, None)
    assert (member.role, member.tenant.slug, member.tenant.plan) == ("owner", form["organisation"], "free")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", "nobody"), ("email", ""), ("organisation", "A"), ("organisation", "Über org"), ("organisation", "x" * 41),
        ("organisation", "admin"), ("organisation", "-x"), ("password1", "short"), ("password1", "qwerty123456"), ("password1", ""),
    ],
)  # fmt: skip
def test_a_bad_sign_up_is_shown_again_and_makes_nothing(field, value) -> None:
    answer, form = sign_up(**{field: value})
    assert answer.status_code == 200
    assert not User.objects.filter(email=form["email"]).exists()


def test_a_taken_organisation_is_refused_and_leaves_no_user() -> None:
    _, first = sign_up()
    answer, form = sign_up(organisation=first["organisation"])
    assert answer.status_code == 200
    assert "is taken" in answer.content.decode()
    assert not User.objects.filter(email=form["email"]).exists()


def test_sign_up_can_be_closed(settings_of) -> None:
    with settings_of(MAAS_SIGNUP_OPEN=False):
        _, form = sign_up()
    assert not User.objects.filter(email=form["email"]).exists()


def test_signing_in_and_out() -> None:
    user, browser = make_user("inout"), Client()
    services.create_tenant(user, name="x", slug=f"t-{uuid4().hex[:10]}")
    assert browser.get("/").status_code == 302
    browser.post("/accounts/login/", {"login": user.email, "password": PASSWORD})
    assert browser.get("/").status_code == 200
    browser.post("/accounts/logout/")
    assert browser.get("/").status_code == 302


def test_a_wrong_password_does_not_sign_in() -> None:
    user, browser = make_user("wrong"), Client()
    answer = browser.post("/accounts/login/", {"login": user.email, "password": "not the password"})
    assert answer.status_code == 200
    assert browser.get("/").status_code == 302


def test_a_forgotten_password_is_reset_by_mail() -> None:
    user, browser = make_user("forgot"), Client()
    browser.post("/accounts/password/reset/", {"email": user.email})
    mail = next(text for text in reversed(mails()) if user.email in text)
    link = re.search(r"http://testserver(/accounts/password/reset/key/\S+)", mail)[1]
    form = browser.get(link, follow=True).redirect_chain[-1][0]
    browser.post(form, {"password1": "another long sentence", "password2": "another long sentence"})
    assert browser.login(username=user.email, password="another long sentence") or User.objects.get(pk=user.pk).check_password(
        "another long sentence"
    )


def test_a_slug_is_unique_whatever_the_form_said() -> None:
    user, slug = make_user("slug"), f"t-{uuid4().hex[:10]}"
    services.create_tenant(user, name="x", slug=slug)
    with pytest.raises(errors.BadRequest, match="is taken"):
        services.create_tenant(user, name="x", slug=slug)


def test_a_removed_tenant_choice_falls_back_to_the_first(cast) -> None:
    assert services.get_membership(cast.owner, cast.other.id).tenant_id == cast.tenant.id


def test_facts_are_published_in_the_transaction(cast) -> None:
    heard: list[events.Event] = []
    events.subscribe(events.KeyCreated, heard.append)
    key, _ = keys.create_key(cast.tenant, name="heard", scopes=["predict"])
    assert [event.key_id for event in heard if event.tenant_id == cast.tenant.id] == [key.id]
    with pytest.raises(RuntimeError, match="outside of a transaction"):
        events.publish(events.KeyCreated(tenant_id=cast.tenant.id, key_id=key.id))


def test_a_subscriber_that_fails_undoes_the_fact(cast) -> None:
    class Unlucky(events.KeyCreated):
        pass

    def fail(event: events.Event) -> None:
        raise ValueError("subscriber")

    events.subscribe(Unlucky, fail)
    before = len(keys.list_keys(cast.tenant))
    with pytest.raises(ValueError, match="subscriber"), as_tenant(cast.tenant.id):
        keys.create_key(cast.tenant, name="undone", scopes=["predict"])
        events.publish(Unlucky(tenant_id=cast.tenant.id, key_id=cast.key.row.id))
    assert len(keys.list_keys(cast.tenant)) == before
