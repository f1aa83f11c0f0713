"""The audit log's page: plain words, filters without a script, and for those alone who may see it."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from apps.dashboard import deeds
from maas import ids
from maas.actors import Actor, acting
from maas.events import KeyCreated, SignInRefused, publish
from maas.tenancy import as_tenant
from tests.cast import browser_for
from tests.logbook import all_events, fill, tell


@pytest.mark.parametrize("kind", all_events(), ids=lambda kind: kind.__name__)
def test_every_event_has_words_on_the_page(kind) -> None:
    assert kind.name in deeds.DEEDS


def page(cast, query: str = "", user=None):
    return browser_for(user or cast.owner).get(f"/audit{query}")


def test_the_page_says_who_did_what(cast) -> None:
    tell(cast.tenant, KeyCreated(tenant_id=cast.tenant.id, key_id=ids.uuid7(), label="edge-camera", after={"scopes": ["predict"]}))
    text = page(cast).content.decode()
    for words in (
        "ada@example.org",
        "made a key",
        "edge-camera",
        "203.0.113.24",
        "scopes: predict",
        "Kept for good.",
        "Export CSV",
    ):
        assert words in text
    with acting(Actor("nobody", address="192.0.2.88")), as_tenant(cast.tenant.id):
        publish(SignInRefused(tenant_id=cast.tenant.id, user_id=cast.owner.pk, label=cast.owner.email))
    assert '<span class="state bad">sign-in refused</span>' in page(cast, "?what=sign-in").content.decode()


def test_the_page_filters_without_a_script(cast) -> None:
    fill(cast, 3)
    assert "change 1" not in page(cast, "?q=change+2").content.decode()
    assert "change 2" in page(cast, "?q=change+2&who=user_42&what=organisation").content.decode()
    nothing = page(cast, "?who=user_42&what=keys").content.decode()
    assert "Nothing by “ada@example.org” on keys" in nothing
    assert "Clear the filters" in nothing
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date().isoformat()
    assert "No entries in these days" in page(cast, f"?from={tomorrow}").content.decode()
    assert page(cast, "?from=x&to=9999-99-99&what=%00&who=%00&after=nonsense&q=%00").status_code == 200


def test_the_page_turns_and_its_exports_carry_the_filters(cast) -> None:
    fill(cast, 55)
    first = page(cast, "?who=user_42").content.decode()
    older = first[first.index("after=aud_") :].partition('"')[0]
    second = page(cast, f"?who=user_42&{older}").content.decode()
    assert (first.count("<tr id="), second.count("<tr id=")) == (50, 5)
    link = first[first.index("/v1/audit/export") :].partition('"')[0].replace("&amp;", "&")
    assert parse_qs(urlsplit(link).query) == {"format": ["csv"], "actor": ["user_42"]}
    assert browser_for(cast.owner).get(link).status_code == 200


def test_htmx_gets_the_part_alone(cast) -> None:
    answer = browser_for(cast.owner).get("/audit", HTTP_HX_REQUEST="true")
    assert b"<html" not in answer.content
    assert b"made the organisation" in answer.content


def test_others_are_told_whom_to_ask_and_have_no_link_to_it(cast) -> None:
    answer = page(cast, user=cast.viewer)
    assert (answer.status_code, b"This page is for owners and admins." in answer.content) == (403, True)
    assert b'href="/audit"' not in browser_for(cast.viewer).get("/usage").content
    assert b'href="/audit"' in browser_for(cast.owner).get("/usage").content


def test_how_long_entries_are_kept_depends_on_the_plan(cast) -> None:
    words = {"free": "Kept for 30 days.", "team": "Kept for a year.", "scale": "Kept for 2 years.", "unlimited": "Kept for good."}
    for plan, kept in words.items():
        with as_tenant(cast.tenant.id):
            type(cast.tenant).objects.filter(pk=cast.tenant.pk).update(plan=plan)
        assert kept in page(cast).content.decode()


def test_what_a_change_looks_like() -> None:
    assert deeds.change_lines({"role": "viewer", "x": 1}, {"role": "admin", "x": 1}) == ["- role: viewer", "+ role: admin"]
    assert deeds.summary({"role": "viewer"}, {"role": "admin"}) == "viewer to admin"
    assert deeds.summary({}, {"name": "ci", "scopes": ["predict"], "expires_at": None}) == "name: ci, scopes: predict"
    assert deeds.change_lines({}, {"scopes": ["predict", "files"], "expires_at": None}) == ["scopes: predict, files", "expires_at: none"]
