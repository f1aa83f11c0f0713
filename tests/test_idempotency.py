"""A POST that is repeated with the same Idempotency-Key makes one thing, whatever happens in between."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection, connections
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from apps.accounts import keys
from apps.accounts.models import ApiKey
from apps.files.models import File
from apps.idempotency import services
from apps.idempotency.models import StoredAnswer
from maas import ids, sealing
from maas.api import MaasView
from maas.tenancy import as_tenant
from tests.cast import client_for

NOT_CREATING = {"batches_cancel": "stops one", "keys_report": "ends keys; a repeat finds them ended"}


def make_key(client, key, **fields):
    body = {"name": "once", "scopes": ["predict"], **fields}
    return client.post("/v1/keys", body, format="json", HTTP_IDEMPOTENCY_KEY=key)


def made(cast) -> int:
    return sum(key.name == "once" for key in keys.list_keys(cast.tenant))


def code(answer) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_every_post_of_the_api_is_either_idempotent_or_makes_nothing() -> None:
    """A new endpoint that forgets the decorator fails here."""

    def views(resolver):
        for entry in resolver.url_patterns:
            if isinstance(entry, URLResolver):
                yield from views(entry)
            elif isinstance(entry, URLPattern) and issubclass(getattr(entry.callback, "cls", object), MaasView):
                yield entry.callback.cls

    forgotten = []
    for view in views(get_resolver()):
        post = getattr(view, "post", None)
        if post and not getattr(post, "is_idempotent", False):
            forgotten.append(post.__qualname__)
    assert sorted(forgotten) == ["Cancel.post", "Report.post"]


def test_a_repeat_gets_the_first_answer_with_the_same_secret(cast) -> None:
    client, key = client_for(cast.key), uuid4().hex
    first, second = make_key(client, key), make_key(client, key)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert "Idempotency-Replayed" not in first
    assert second["Idempotency-Replayed"] == "true"
    assert made(cast) == 1
    assert client_for(first.json()["secret"]).get("/v1/usage").status_code == 403


def test_fifty_equal_requests_at_once_make_one_key(cast) -> None:
    key, start = uuid4().hex, threading.Barrier(50)

    def send(_number):
        try:
            start.wait()
            return make_key(client_for(cast.key), key)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(send, range(50)))
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) <= {201, 409}, statuses
    assert len({answer.json()["secret"] for answer in answers if answer.status_code == 201}) == 1
    refused = [answer for answer in answers if answer.status_code == 409]
    assert all(code(answer) == (409, "idempotency_in_progress") and answer["Retry-After"] for answer in refused)
    assert made(cast) == 1
    assert make_key(client_for(cast.key), key).status_code == 201
    assert made(cast) == 1


def test_the_same_key_with_another_body_is_refused(cast) -> None:
    client, key = client_for(cast.key), uuid4().hex
    make_key(client, key)
    assert code(make_key(client, key, scopes=["files"])) == (422, "idempotency_key_reused")
    assert made(cast) == 1


def test_another_tenant_may_use_the_same_key(cast) -> None:
    key = uuid4().hex
    first, second = make_key(client_for(cast.key), key), make_key(client_for(cast.other_key), key)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["secret"] != second.json()["secret"]


def test_a_call_that_failed_frees_its_key(cast) -> None:
    client, key = client_for(cast.key), uuid4().hex
    assert make_key(client, key, scopes=["everything"]).status_code == 400
    assert make_key(client, key).status_code == 201


def test_what_a_call_did_is_undone_when_its_answer_cannot_be_stored(cast, monkeypatch) -> None:
    """As if the process died between the two: the effect and the answer are one transaction."""
    client, key = client_for(cast.key), uuid4().hex

    def die(*args: object, **kwargs: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("apps.idempotency.services.store", die)
        make_key(client, key)
    assert made(cast) == 0
    assert code(make_key(client, key)) == (409, "idempotency_in_progress")
    end_lease(cast, key)
    assert make_key(client, key).status_code == 201
    assert made(cast) == 1


def test_a_slow_call_that_lost_its_lease_undoes_itself(cast) -> None:
    lease = timedelta(0)
    slow = services.claim(cast.tenant.id, "slow", fingerprint=b"1" * 32, lease=lease)
    fast = services.claim(cast.tenant.id, "slow", fingerprint=b"1" * 32, lease=timedelta(minutes=1))
    assert isinstance(slow, services.Claim) and isinstance(fast, services.Claim)
    assert (fast.id, fast.before) == (slow.id, slow.fence)
    services.store(fast, status=200, data={"by": "fast"})
    with pytest.raises(services.errors.Conflict):
        services.store(slow, status=200, data={"by": "slow"})
    again = services.claim(cast.tenant.id, "slow", fingerprint=b"1" * 32, lease=lease)
    assert again == services.Answer(200, {"by": "fast"})


def end_lease(cast, key: str) -> None:
    with as_tenant(cast.tenant.id):
        assert StoredAnswer.objects.filter(key=key).update(lease_until=timezone.now()) == 1


def upload(client, key, content=b'{"a": 1}\n', **fields):
    file = SimpleUploadedFile("lines.jsonl", content)
    return client.post("/v1/files", {"purpose": "batch", "file": file, **fields}, format="multipart", HTTP_IDEMPOTENCY_KEY=key)


def test_an_upload_is_told_by_its_content_not_by_its_multipart_boundary(cast) -> None:
    client, key = client_for(cast.key), uuid4().hex
    first, second = upload(client, key), upload(client, key)
    assert first.json()["id"] == second.json()["id"]
    assert code(upload(client, key, b'{"a": 2}\n')) == (422, "idempotency_key_reused")
    assert code(upload(client, key, purpose="vision")) == (422, "idempotency_key_reused")
    with as_tenant(cast.tenant.id):
        assert File.objects.count() == 1


def test_an_upload_whose_process_died_is_stored_once(cast, monkeypatch) -> None:
    client, key = client_for(cast.key), uuid4().hex

    def die(*args: object, **kwargs: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("apps.idempotency.services.store", die)
        upload(client, key)
    end_lease(cast, key)
    answer = upload(client, key)
    assert answer.status_code == 200
    with as_tenant(cast.tenant.id):
        assert [ids.encode(ids.FILE, file.id) for file in File.objects.all()] == [answer.json()["id"]]


@pytest.mark.parametrize("header", ["", " ", "x" * 256, "é", "a\tb", '""'])
def test_a_malformed_key_is_refused_before_anything_is_done(cast, header) -> None:
    answer = make_key(client_for(cast.key), header)
    assert code(answer) == (400, "invalid_header")
    assert answer.json()["error"]["param"] == "Idempotency-Key"
    assert made(cast) == 0


def test_a_key_that_came_twice_is_refused(cast) -> None:
    assert code(make_key(client_for(cast.key), "one,two")) == (400, "duplicate_header")


def test_quotes_around_a_key_do_not_matter(cast) -> None:
    client, key = client_for(cast.key), uuid4().hex
    assert make_key(client, f'"{key}"').json() == make_key(client, key).json()


def test_the_stored_answer_is_sealed(cast) -> None:
    """It holds a new key's secret, which is nowhere else."""
    key = uuid4().hex
    secret = make_key(client_for(cast.key), key).json()["secret"]
    with as_tenant(cast.tenant.id), connection.cursor() as cursor:
        cursor.execute("SELECT body FROM idempotency_storedanswer WHERE key = %s", [key])
        stored = cursor.fetchone()[0]
    assert secret not in stored
    assert secret in sealing.unseal(stored)


def test_answers_are_forgotten_after_a_day(cast) -> None:
    client, key = client_for(cast.key), uuid4().hex
    make_key(client, key)
    with as_tenant(cast.tenant.id):
        StoredAnswer.objects.filter(key=key).update(created_at=timezone.now() - timedelta(hours=25))
    services.sweep_answers()
    with as_tenant(cast.tenant.id):
        assert not StoredAnswer.objects.filter(key=key).exists()
    assert make_key(client, key).status_code == 201
    assert made(cast) == 2


def test_a_key_with_a_scope_less_cannot_replay(cast) -> None:
    """The answer belongs to the tenant, but who may not make keys does not get one from the store either."""
    key = uuid4().hex
    make_key(client_for(cast.key), key)
    assert code(make_key(client_for(cast.key_with("predict")), key)) == (403, "missing_scope")
    with as_tenant(cast.tenant.id):
        assert ApiKey.objects.filter(name="once").count() == 1
