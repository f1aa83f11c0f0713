"""The webhook pages: what an owner does there, what a viewer sees, and where the secret shows."""

import re
from collections.abc import Iterator

import pytest

from apps.webhooks import deliveries, delivering, services
from maas import ids
from tests.cast import browser_for
from tests.hooks import listening
from tests.receiver import Receiver

FORM = {"description": "shop", "events": ["key.created", "key.revoked"]}


@pytest.fixture(autouse=True)
def target(settings_of) -> Iterator[Receiver]:
    with listening(settings_of) as told:
        yield told


def text(answer) -> str:
    assert answer.status_code == 200, (answer.status_code, answer.content[:300])
    return answer.content.decode()


def made(cast, target) -> tuple[services.Endpoint, str]:
    endpoint, _secret = services.create_endpoint(cast.tenant, url=target.url, events=["*"])
    return endpoint, f"/webhooks/{ids.encode(ids.WEBHOOK, endpoint.id)}"


def test_a_webhook_is_added_and_its_secret_is_shown_once(cast, target) -> None:
    browser = browser_for(cast.owner)
    assert "No webhooks" in text(browser.get("/webhooks"))
    answer = browser.post("/webhooks/new", {"url": target.url, **FORM})
    (secret,) = set(re.findall(r"whsec_[A-Za-z0-9+/]{43}=", text(answer)))
    assert "no-store" in answer["Cache-Control"]
    (endpoint,) = services.list_endpoints(cast.tenant)
    assert (endpoint.url, endpoint.events, endpoint.description) == (target.url, FORM["events"], "shop")
    for path in ("/webhooks", f"/webhooks/{ids.encode(ids.WEBHOOK, endpoint.id)}"):
        assert secret not in text(browser.get(path)) and target.url in text(browser.get(path))


def test_what_does_not_fit_stands_under_its_field(cast) -> None:
    browser = browser_for(cast.owner)
    answer = browser.post("/webhooks/new", {"url": "https://10.0.0.1/", **FORM})
    assert answer.status_code == 422 and "not public" in answer.content.decode()
    assert browser.post("/webhooks/new", {"url": "https://1.1.1.1/"}).status_code == 422


def test_the_answer_of_a_test_is_shown_and_escaped(cast, target) -> None:
    _endpoint, path = made(cast, target)
    target.answer = (500, {"X-Odd": "<i>"}, b"<script>alert(1)</script>")
    browser = browser_for(cast.owner)
    there = browser.post(f"{path}/test")["Location"]
    assert "Not sent yet" in text(browser.get(there))
    delivering.deliver_due()
    shown = text(browser.get(there))
    assert "status 500" in shown and "&lt;script&gt;alert(1)" in shown and "<script>alert" not in shown
    assert "webhook-signature" in shown


def test_one_delivery_and_all_failed_ones_are_sent_again(cast, target, settings_of) -> None:
    endpoint, path = made(cast, target)
    target.answer, browser = (500, {}, b""), browser_for(cast.owner)
    there = browser.post(f"{path}/test")["Location"]
    with settings_of(MAAS_WEBHOOK_RETRIES=[]):
        delivering.deliver_due()
    assert "Send 1 failed one again" in text(browser.get(path))
    target.answer = (200, {}, b"")
    browser.post(f"{path}/replay")
    delivering.deliver_due()
    browser.post(f"{there}/replay")
    delivering.deliver_due()
    (row,), _more = deliveries.list_deliveries(cast.tenant, endpoint.id)
    assert (row.state, row.attempts) == ("delivered", 3)


def test_edit_switch_rotate_and_delete(cast, target) -> None:
    endpoint, path = made(cast, target)
    browser = browser_for(cast.owner)
    services.change_endpoint(cast.tenant, endpoint.id, events=["budget.threshold"])
    assert "budget.threshold" in text(browser.get(f"{path}/edit"))
    browser.post(f"{path}/edit", {"url": target.url, "description": "", "events": ["budget.threshold", "key.created"]})
    browser.post(f"{path}/switch", {"enabled": "false"})
    found = services.get_endpoint(cast.tenant, endpoint.id)
    assert (found.events, found.enabled) == (["budget.threshold", "key.created"], False)
    assert "Switch on" in text(browser.get(path))
    browser.post(f"{path}/switch", {"enabled": "true"})
    assert "Rotate the secret?" in text(browser.get(f"{path}/rotate"))
    assert "whsec_" in text(browser.post(f"{path}/rotate", {"grace": "7"}))
    assert services.get_endpoint(cast.tenant, endpoint.id).rotating_until
    assert "Delete this webhook?" in text(browser.get(f"{path}/delete"))
    assert browser.post(f"{path}/delete").status_code == 302
    assert browser.get(path).status_code == 404


def test_deliveries_have_pages_and_filters(cast, target) -> None:
    endpoint, path = made(cast, target)
    for _test in range(26):
        deliveries.send_test(cast.tenant, endpoint.id)
    browser = browser_for(cast.owner)
    first = text(browser.get(path))
    older = re.search(r'href="(\?[^"]*after=[^"]+)"', first)
    assert older and first.count("webhook.test") == 25
    assert text(browser.get(path + older[1].replace("&amp;", "&"))).count("webhook.test") == 1
    assert "No delivery is in this state" in text(browser.get(f"{path}?state=failed"))


def test_a_viewer_sees_everything_and_changes_nothing(cast, target) -> None:
    endpoint, path = made(cast, target)
    sent = deliveries.send_test(cast.tenant, endpoint.id)
    there = f"{path}/deliveries/{ids.encode(ids.DELIVERY, sent.id)}"
    browser = browser_for(cast.viewer)
    for page in ("/webhooks", path, there):
        shown = text(browser.get(page))
        assert not re.search(r'<form[^>]*action="/webhooks', shown) and "Add webhook" not in shown and "Rotate" not in shown
    for page in (
        "/webhooks/new",
        *(f"{path}/{word}" for word in ("edit", "switch", "rotate", "delete", "test", "replay")),
        f"{there}/replay",
    ):
        assert browser.post(page, {"url": target.url, "enabled": "false", **FORM}).status_code == 403
    assert services.get_endpoint(cast.tenant, endpoint.id).enabled
