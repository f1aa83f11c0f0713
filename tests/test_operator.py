"""The operator's admin: who gets in, what it shows, and that each deed is a service and a line in the log."""

import os
import subprocess
import sys

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from apps.accounts import operators
from apps.accounts.models import User
from apps.accounts.services import get_membership
from maas import errors
from maas.actors import Permission, acting, require, require_operator
from tests.cast import browser_for, client_for, make_user
from tests.conftest import ROOT
from tests.operating import make_operator, told
from tests.signing import add_app, let_in, sign_in, signed_in

LIST = "/operator/accounts/tenant/"


# ---------- who gets in ----------
def test_the_operators_pages_have_no_sign_in_of_their_own() -> None:
    for path in ("/operator/", LIST, "/operator/login", "/operator/login/"):
        answer = Client().get(path)
        assert answer.status_code == 302 and answer["Location"].startswith("/accounts/login/?next=/operator/"), path
    assert Client().post("/operator/login/", {"username": "a", "password": "b"}).status_code == 302


def test_somebody_who_is_no_operator_is_refused_even_with_a_second_factor(cast) -> None:
    browser = signed_in(cast.owner.email)
    _secret, codes = add_app(cast.owner, browser)
    browser.post("/accounts/2fa/reauthenticate/", {"code": codes[0]})
    answer = browser.get(LIST)
    assert answer.status_code == 403 and cast.other.slug not in answer.content.decode()


def test_an_operator_without_a_second_factor_is_sent_to_add_one() -> None:
    user = make_user("operator")
    User.objects.filter(pk=user.pk).update(is_staff=True)
    assert signed_in(user.email).get(LIST)["Location"] == "/account#second-factors"


def test_a_session_that_gave_no_second_factor_is_asked_for_one(cast) -> None:
    """A password alone, or a session made in any other way, opens nothing although the person has a factor."""
    operator = make_operator()
    for browser in (browser_for(operator.user), Client()):
        answer = browser.get(LIST)
        assert answer.status_code == 302 and cast.tenant.slug not in answer.content.decode()
    assert browser_for(operator.user).get(LIST)["Location"].startswith("/accounts/2fa/reauthenticate/?next=")


def test_an_operator_who_signs_in_with_a_factor_comes_to_the_page_they_wanted() -> None:
    operator, again = make_operator(), Client()
    answer = sign_in(operator.user.email, browser=again)
    assert answer["Location"] == "/accounts/2fa/authenticate/"
    assert let_in(again.post("/accounts/2fa/authenticate/", {"code": operator.codes.pop()}))
    assert again.get(LIST).status_code == 200


def test_rights_that_are_taken_away_are_gone_with_the_next_request(cast) -> None:
    operator = make_operator()
    assert operator.browser.get(LIST).status_code == 200
    User.objects.filter(pk=operator.user.pk).update(is_staff=False)
    assert operator.browser.get(LIST).status_code == 403


def test_a_key_opens_none_of_it(cast) -> None:
    answer = client_for(cast.key).get(LIST)
    assert answer.status_code == 302 and answer["Location"].startswith("/accounts/login/")


def test_a_deed_needs_the_token_of_its_form(cast) -> None:
    forger = Client(enforce_csrf_checks=True)
    forger.cookies = make_operator().browser.cookies
    answer = forger.post(f"/operator/deeds/tenant/{cast.tenant.id}/suspend", {"reason": "x"})
    assert answer.status_code == 403 and client_for(cast.key).get("/v1/models").status_code == 200


def test_a_deed_that_nobody_declared_and_a_row_that_is_not_there_are_not_found(cast) -> None:
    browser = make_operator().browser
    for path in (f"tenant/{cast.tenant.id}/delete", f"user/{cast.tenant.id}/suspend", f"tenant/{cast.key.row.id}/suspend"):
        assert browser.post(f"/operator/deeds/{path}", {"reason": "x"}).status_code == 404, path


# ---------- the policy of content ----------
def test_only_the_operators_pages_may_evaluate_scripts(cast) -> None:
    operator = make_operator()
    theirs = operator.browser.get(LIST)["Content-Security-Policy"]
    assert "script-src 'self' 'unsafe-eval'" in theirs and "default-src 'none'" in theirs and "http" not in theirs
    for path in ("/accounts/login/", "/account", "/nothing", "/api/docs"):
        assert "unsafe" not in operator.browser.get(path)["Content-Security-Policy"], path
    assert "unsafe" not in browser_for(cast.owner).get("/keys")["Content-Security-Policy"]


def test_the_operators_pages_load_nothing_from_elsewhere() -> None:
    page = make_operator().browser.get(LIST).content.decode()
    assert 'src="http' not in page and 'href="http' not in page and "//cdn" not in page


# ---------- what it shows ----------
def test_organisations_are_found_by_slug_and_by_a_members_address(cast) -> None:
    browser = make_operator().browser
    for wanted in (cast.tenant.slug, cast.viewer.email, cast.owner.email.upper()):
        page = browser.get(LIST, {"q": wanted}).content.decode()
        assert cast.tenant.slug in page and cast.other.slug not in page, wanted


def test_organisations_are_filtered_by_plan_and_state(cast) -> None:
    operator = make_operator()
    operator.do(cast.tenant, "suspend", reason="unpaid")
    suspended = operator.browser.get(LIST, {"state": "suspended", "q": "acme"}).content.decode()
    working = operator.browser.get(LIST, {"state": "works", "q": cast.tenant.slug}).content.decode()
    assert f">{cast.tenant.slug}<" in suspended and f">{cast.tenant.slug}<" not in working
    assert f">{cast.tenant.slug}<" not in operator.browser.get(LIST, {"plan": "free", "q": cast.tenant.slug}).content.decode()


def test_an_organisations_page_shows_people_and_keys_and_never_a_hash(cast) -> None:
    browser = make_operator().browser
    page = browser.get(f"{LIST}{cast.tenant.id}/change/")
    text = page.content.decode()
    assert page.status_code == 200 and cast.viewer.email in text and cast.key.row.prefix in text
    assert cast.key.secret not in text and bytes(cast.key.row.hash).hex() not in text and str(cast.key.row.hash) not in text
    assert 'name="_save"' not in text and cast.other.slug not in text


def test_nothing_of_an_organisation_can_be_changed_added_or_deleted_by_hand(cast) -> None:
    operator = make_operator(superuser=True)
    for path in (f"{cast.tenant.id}/change/", f"{cast.tenant.id}/delete/", "add/"):
        answer = operator.browser.post(LIST + path, {"plan": "free", "name": "mine", "post": "yes"})
        assert answer.status_code == 403, path
    answer = operator.browser.post(LIST, {"action": "delete_selected", "_selected_action": str(cast.tenant.id), "post": "yes"})
    assert browser_for(cast.owner).get("/").status_code == 200 and answer.status_code in {200, 302, 403}
    tenant = get_membership(cast.owner, cast.tenant.id).tenant
    assert (tenant.plan, tenant.name) == ("unlimited", cast.tenant.name)


def test_every_plan_is_listed_with_its_figures() -> None:
    page = make_operator().browser.get("/operator/plans/").content.decode()
    assert all(text in page for text in ("Team", "$49.00", "$0.045", "Unlimited"))


# ---------- people ----------
def test_people_are_shown_without_a_password_and_only_superusers_say_who_operates(cast) -> None:
    operator, path = make_operator(), f"/operator/accounts/user/{cast.owner.pk}/change/"
    page = operator.browser.get(path).content.decode()
    assert (
        cast.owner.email in page
        and f"{cast.tenant.slug} (Owner)" in page
        and "scrypt" not in page
        and "password" not in page.lower().replace("/password", "")
    )
    assert operator.browser.post(path, {"is_staff": "on"}).status_code == 403
    assert not User.objects.get(pk=cast.owner.pk).is_staff


def test_a_superuser_makes_an_operator_and_their_organisations_logs_tell(cast) -> None:
    boss, path = make_operator(superuser=True), f"/operator/accounts/user/{cast.owner.pk}/change/"
    boss.browser.post(path, {"is_staff": "on", "email": "other@example.org", "is_superuser": "on"})
    changed = User.objects.get(pk=cast.owner.pk)
    assert (changed.is_staff, changed.is_superuser, changed.email) == (True, False, cast.owner.email)
    said = told(cast.tenant, "user.security_changed")[-1]
    assert said["actor"]["name"] == boss.user.email and said["actor"]["role"] == "operator"
    boss.browser.post(path, {})
    assert not User.objects.get(pk=cast.owner.pk).is_staff


def test_a_superuser_cannot_lock_themselves_out() -> None:
    boss = make_operator(superuser=True)
    boss.browser.post(f"/operator/accounts/user/{boss.user.pk}/change/", {})
    assert User.objects.get(pk=boss.user.pk).is_staff


# ---------- rights ----------
def test_an_operator_may_do_an_operators_deeds_and_nothing_else(cast) -> None:
    with acting(operators.operator_actor(make_operator().user, cast.tenant)):
        require(cast.tenant.id, Permission.OPERATE)
        require_operator()
        for permission in set(Permission) - {Permission.OPERATE, Permission.BILLING}:
            with pytest.raises(errors.Forbidden):
                require(cast.tenant.id, permission)
        with pytest.raises(errors.Forbidden):
            require(cast.other.id, Permission.OPERATE)


def test_no_role_and_no_scope_has_an_operators_rights(cast) -> None:
    from apps.accounts.restrictions import SCOPES
    from apps.accounts.roles import MAY

    theirs = {Permission.OPERATE, Permission.APPOINT}
    assert not theirs & set(SCOPES) and not any(theirs & may for may in MAY.values())


# ---------- the command ----------
def test_the_command_makes_an_account_that_can_choose_a_password(capsys) -> None:
    email = make_user("x").email.replace("x-", "new-operator-")
    call_command("make_operator", email, "--superuser")
    out = capsys.readouterr().out
    user = User.objects.get(email=email)
    assert user.is_staff and user.is_superuser and not user.has_usable_password()
    path = out.split("Choose a password: ")[1].split()[0].partition(":8000")[2]
    assert Client().get(path, follow=True).status_code == 200
    assert "password1" in Client().get(path, follow=True).content.decode()


def test_the_command_promotes_somebody_who_has_an_account(cast, capsys) -> None:
    call_command("make_operator", cast.owner.email.upper())
    changed = User.objects.get(pk=cast.owner.pk)
    assert changed.is_staff and not changed.is_superuser and changed.password == cast.owner.password
    assert "Choose a password" not in capsys.readouterr().out
    with pytest.raises(CommandError, match="no e-mail address"):
        call_command("make_operator", "nobody")


# ---------- processes ----------
def test_workers_never_load_the_admin() -> None:
    code = "import django; django.setup(); import workers.tasks, sys; print([n for n in sys.modules if n.endswith('.admin')])"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert out.stdout.splitlines()[-1] in {"[]", "['django.contrib.admin']"}, out.stdout + out.stderr
