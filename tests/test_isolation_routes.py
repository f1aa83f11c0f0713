"""Every route with another tenant's credentials: with both protections, with each alone, and with none to prove the test."""

import itertools
from contextlib import ExitStack, contextmanager, nullcontext

import pytest
from django.test import Client

from apps.accounts.services import get_membership
from apps.jobs import services as jobs
from maas import ids
from maas.actors import SYSTEM, current_actor
from tests.belongings import belongings
from tests.cast import browser_for, client_for
from tests.operating import make_operator
from tests.walk import (
    METHODS,
    NOT_OURS,
    content,
    fill,
    left_behind,
    operators_pages,
    owned,
    plain,
    private,
    routes,
    send,
    to_sign_in,
    without_filters,
    without_policies,
)

OPEN = {"healthz", "readyz", "metrics", "v1/keys/report"}  # for everybody; metrics for this machine, and of no tenant
REFUSALS = {401, 403, 404, 405}


@contextmanager
def nothing_at_all():
    with ExitStack() as stack:
        stack.enter_context(without_filters())
        stack.enter_context(without_policies())
        yield


PROTECTIONS = {"both": nullcontext, "row-level security alone": without_filters, "filters alone": without_policies}


def callers(cast) -> dict[str, Client]:
    return {"key": client_for(cast.other_key), "session": browser_for(cast.stranger)}


def found_by_stranger(cast, names: dict[str, str]) -> list[tuple[str, str, str, int]]:
    """What another tenant gets to see or do of this one's things."""
    seen = []
    for route, method, (kind, caller) in itertools.product(private(), METHODS, callers(cast).items()):
        answer = send(caller, method, fill(route, names))
        if answer.status_code not in REFUSALS and not to_sign_in(answer):
            seen.append((kind, method, route, answer.status_code))
    return seen


def marks(cast, names: dict[str, str]) -> set[str]:
    """Texts that only this tenant may read."""
    mine = {value.rpartition("_")[2].rpartition("-")[2] for name, value in names.items() if name.endswith("_id") and len(value) > 20}
    return {*mine, cast.tenant.slug, cast.owner.email, cast.viewer.email, cast.tenant.id.hex, str(cast.tenant.id)}


def told_to_stranger(cast, names: dict[str, str]) -> list[tuple[str, str, str]]:
    """Which of these texts lists, forms and figures show to another tenant."""
    told = []
    for route, (kind, caller) in itertools.product(plain(), callers(cast).items()):
        text = content(caller.get(f"/{route}"))
        told += [(kind, route, mark) for mark in marks(cast, names) if mark in text]
    return told


def test_every_argument_of_a_route_is_known_to_this_test(cast) -> None:
    """A new route with a new kind of id fails here until `belongings` makes one."""
    names = belongings(cast)
    for route in owned():
        fill(route, names)


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_another_tenants_key_and_session_find_nothing(cast, protection) -> None:
    names = belongings(cast)
    with PROTECTIONS[protection]() as taken:
        assert found_by_stranger(cast, names) == []
        assert told_to_stranger(cast, names) == []
    assert taken is None or len(taken) > 100  # the filters were really taken out


def test_without_both_protections_the_walk_does_find_things(cast) -> None:
    """Or it would prove nothing."""
    names = belongings(cast)
    with nothing_at_all():
        found = {(kind, route) for kind, _method, route, _status in found_by_stranger(cast, names)}
        told = {mark for _kind, _route, mark in told_to_stranger(cast, names)}
    assert {("key", "v1/files/<str:file_id>/content"), ("session", "jobs/<str:job_id>"), ("key", "v1/keys/<str:key_id>")} <= found
    assert names["file_id"].removeprefix(ids.FILE) in told


def test_the_stranger_has_changed_nothing_and_the_owner_finds_everything(cast) -> None:
    names = belongings(cast)
    found_by_stranger(cast, names)
    mine, session = client_for(cast.key), browser_for(cast.owner)
    missing = []
    for route in private():
        statuses = {caller.get(fill(route, names)).status_code for caller in (mine, session)}
        if not statuses & {200, 302, 405}:
            missing.append((route, statuses))
    assert missing == []


def test_no_request_leaves_a_tenant_an_actor_or_a_role_behind(cast) -> None:
    """Whatever is asked, by whomever, also when it fails: the connection goes back as it came."""
    names = belongings(cast)
    all_callers = [client_for(cast.key), browser_for(cast.owner), *callers(cast).values(), Client(raise_request_exception=False)]
    for route, method, caller in itertools.product([*private(), *plain()], METHODS, all_callers):
        content(send(caller, method, fill(route, names)))
        assert (*left_behind(), current_actor()) == ("", "", "maas_app", SYSTEM), (route, method)


def test_what_a_tenant_gets_is_never_kept_by_a_shared_cache(cast) -> None:
    names = belongings(cast)
    for route, caller in itertools.product([*owned(), *plain()], (client_for(cast.key), browser_for(cast.owner))):
        answer = caller.get(fill(route, names))
        if route not in OPEN and answer.status_code == 200:
            assert "private" in answer["Cache-Control"] or "no-store" in answer["Cache-Control"], route


def test_a_body_that_names_another_tenants_file_finds_none(cast) -> None:
    names, stranger = belongings(cast), client_for(cast.other_key)
    batch = {"input_file_id": names["file_id"], "endpoint": "/v1/predictions", "completion_window": "24h"}
    assert stranger.post("/v1/batches", batch, format="json").status_code == 404
    picture = {"model": "cifar10-resnet9", "inputs": names["file_id"]}
    assert stranger.post("/v1/predictions", picture, format="json").status_code == 404
    for path in ("/v1/files", "/v1/batches"):
        after = names["file_id"] if "files" in path else names["batch_id"]
        assert content(stranger.get(path, {"after": after})).count(cast.tenant.id.hex) == 0


def test_a_message_with_the_wrong_tenant_does_nothing(cast) -> None:
    """What a worker is told is a nudge: the row decides whose it is."""
    from workers import tasks

    names = belongings(cast)
    job_id = ids.decode(ids.BATCH, names["batch_id"])
    for task in (tasks.validate_batch, tasks.finish_batch):
        task(str(cast.other.id), str(job_id))
    assert jobs.get_job(cast.tenant, job_id).state == "queued"


def test_nobody_gets_in_without_credentials() -> None:
    anonymous = Client(raise_request_exception=False)
    for route in plain():
        answer = anonymous.get("/" + route)
        assert route in OPEN or answer.status_code in {401, 405} or to_sign_in(answer), (route, answer.status_code)


def test_the_operators_pages_are_closed_to_members_keys_and_everybody_else(cast) -> None:
    nobody = Client(raise_request_exception=False)
    people = [nobody, browser_for(cast.stranger), browser_for(cast.owner), client_for(cast.key), client_for(cast.other_key)]
    paths = operators_pages(str(cast.tenant.id), str(cast.viewer.pk))
    assert len(paths) > 20
    for path, method, caller in itertools.product(paths, METHODS, people):
        answer = send(caller, method, path)
        assert to_sign_in(answer) or answer.status_code == 403 or path == "/operator", (path, method, answer.status_code)
        mine = caller is people[2]  # the frame of a refusal names one's own organisation
        assert mine or not any(mark in content(answer) for mark in marks(cast, {}) - {str(cast.tenant.id)}), (path, method)
    assert get_membership(cast.owner, None).tenant.suspended_at is None


def test_an_operators_request_leaves_nothing_behind_either(cast) -> None:
    """All tenants are seen while a page is made, and by nothing after it."""
    operator = make_operator(superuser=True)
    operator.browser.raise_request_exception = False
    for path, method in itertools.product(operators_pages(str(cast.tenant.id), str(cast.viewer.pk)), METHODS):
        if path != "/operator/logout/":
            answer = send(operator.browser, method, path)
            assert answer.status_code < 500, (path, method)
            assert (*left_behind(), current_actor()) == ("", "", "maas_app", SYSTEM), (path, method)


def test_the_walk_sees_every_route_that_django_knows() -> None:
    rest = {route for route in routes() if route.startswith(NOT_OURS)}
    assert set(owned()) | set(plain()) | rest == set(routes())
