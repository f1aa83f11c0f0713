"""Storage in a bucket, against a server that speaks S3: whole or not at all, in pieces, and told when it is away."""

import io
import os
import threading
from pathlib import Path

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage, storages
from django.test import override_settings

from apps.audit import anchors
from apps.files import services as files
from apps.jobs import parts
from maas import env, ids, ranges, s3
from maas.storage import StorageAway
from tests.bucket import Breaking, BucketServer, peak, stored_in
from tests.cast import browser_for
from tests.test_files import BODY, exists, make, upload

MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def server():
    running = BucketServer()
    running.start()
    yield running
    running.stop()


@pytest.fixture
def bucket(server):
    with stored_in(server):
        yield server


def chunks(mebibytes: int):
    """Different bytes in every chunk, none of which is kept."""
    for number in range(mebibytes):
        yield number.to_bytes(4, "big") * (MEBIBYTE // 4)


def save(name: str, mebibytes: int) -> None:
    from apps.files.bodies import Measured

    default_storage.save(name, Measured(chunks(mebibytes), None))


def test_a_file_goes_up_comes_back_and_goes_away(bucket, cast, api) -> None:
    client = api(cast.key)
    made = upload(client).json()
    assert b"".join(client.get(f"/v1/files/{made['id']}/content").streaming_content) == BODY
    assert client.get(f"/v1/files/{made['id']}/content")["Content-Length"] == str(len(BODY))
    part = client.get(f"/v1/files/{made['id']}/content", HTTP_RANGE="bytes=5-9")
    assert (part.status_code, b"".join(part.streaming_content)) == (206, BODY[5:10])
    client.delete(f"/v1/files/{made['id']}")
    key = f"here/tenants/{cast.tenant.id.hex}/files/{ids.decode(ids.FILE, made['id']).hex}"
    assert key in bucket.names()
    files.sweep_files()
    assert key not in bucket.names()


def test_saving_under_a_name_replaces_all_of_it(bucket) -> None:
    assert default_storage.save("twice", ContentFile(b"first, and longer")) == "twice"
    assert default_storage.save("twice", ContentFile(b"second")) == "twice"
    assert default_storage.open("twice").read() == b"second"
    assert (default_storage.size("twice"), default_storage.exists("twice"), default_storage.exists("never")) == (6, True, False)
    default_storage.save("empty", ContentFile(b""))
    assert default_storage.open("empty").read() == b""


def test_objects_are_private(bucket) -> None:
    default_storage.save("private", ContentFile(b"x"))
    grants = bucket.client.get_object_acl(Bucket=bucket.bucket, Key="here/private")["Grants"]
    assert [grant["Grantee"]["Type"] for grant in grants] == ["CanonicalUser"]


def test_what_is_not_there_is_a_missing_file(bucket) -> None:
    for ask in (default_storage.open, default_storage.size):
        with pytest.raises(FileNotFoundError):
            ask("never")
    default_storage.delete("never")


def test_a_file_is_read_from_any_place_in_ranges(bucket, monkeypatch) -> None:
    monkeypatch.setattr(ranges, "FIRST", 10)
    monkeypatch.setattr(ranges, "LARGEST", 40)
    monkeypatch.setattr(ranges, "BUFFER", 7)
    text = b"".join(b"line %d\n" % number for number in range(100))
    default_storage.save("lines", ContentFile(text))
    with default_storage.open("lines") as body:
        assert list(body) == text.splitlines(keepends=True)
        for place in (0, 5, 400, 12, len(text), len(text) + 9):
            assert (body.seek(place), body.readline(), body.read(30)) == (place, *_read(text, place))
        assert (body.seek(-3, io.SEEK_END), body.read(), body.tell()) == (len(text) - 3, text[-3:], len(text))


def _read(text: bytes, place: int) -> tuple[bytes, bytes]:
    body = io.BytesIO(text)
    body.seek(place)
    return body.readline(), body.read(30)


def test_ranges_grow_while_they_are_read_on_and_a_jump_costs_little() -> None:
    asked: list[int] = []
    text = os.urandom(4 * MEBIBYTE)

    def fetch(start: int, stop: int) -> bytes:
        asked.append(stop - start)
        return text[start:stop]

    with ranges.open_ranges(fetch, len(text)) as body:
        assert body.read() == text and sum(asked) == len(text) and len(asked) <= 6
        asked.clear()
        body.seek(3 * MEBIBYTE)
        assert body.readline(100) and sum(asked) == ranges.FIRST


def test_an_object_that_is_replaced_while_it_is_read_is_no_mixture(bucket) -> None:
    default_storage.save("changing", ContentFile(b"a" * MEBIBYTE))
    with default_storage.open("changing") as body:
        assert body.read(10) == b"a" * 10
        default_storage.save("changing", ContentFile(b"b" * MEBIBYTE))
        with pytest.raises(StorageAway):
            body.read()


def test_many_megabytes_pass_through_little_memory(bucket) -> None:
    save("warm", 10)
    parts.write_part(ids.uuid7(), 0, 1, b"a", b"b")
    grown = peak(carry)
    assert bucket.client.head_object(Bucket=bucket.bucket, Key="here/large")["ContentLength"] == 200 * MEBIBYTE
    assert grown < 64 * MEBIBYTE, grown / MEBIBYTE


def carry() -> None:
    """200 MB up and down again."""
    save("large", 200)
    with default_storage.open("large") as body:
        for number in range(200):
            assert body.read(MEBIBYTE) == number.to_bytes(4, "big") * (MEBIBYTE // 4)


def test_a_source_that_breaks_off_leaves_nothing(bucket, cast) -> None:
    def breaks():
        yield from chunks(20)
        raise ConnectionError("the caller went away")

    with pytest.raises(ConnectionError):
        files.create_file(cast.tenant, filename="a", purpose="batch", chunks=breaks())
    assert not [name for name in bucket.names() if cast.tenant.id.hex in name] and not bucket.uploads()


def test_a_connection_lost_in_an_upload_shows_nothing_and_can_be_done_again(server, cast, monkeypatch) -> None:
    monkeypatch.setattr(s3, "TIMES", s3.TIMES | {"connect_timeout": 1, "read_timeout": 2})
    way = Breaking(server.port, after=20 * MEBIBYTE)
    name = "lost/upload"
    with stored_in(server, way.port):
        with pytest.raises(StorageAway):
            save(name, 40)
        assert f"here/{name}" not in server.names()
        way.is_cut, way.after = False, 2**40
        save(name, 40)
        assert default_storage.size(name) == 40 * MEBIBYTE
        default_storage.delete(name)
    assert f"here/{name}" not in server.names() and not server.uploads()


def test_a_connection_lost_in_a_read_is_taken_up_again(server, monkeypatch) -> None:
    monkeypatch.setattr(s3, "TIMES", s3.TIMES | {"connect_timeout": 1, "read_timeout": 2})
    way = Breaking(server.port, after=2**40)
    with stored_in(server, way.port):
        save("read", 20)
        with default_storage.open("read") as body:
            body.read(MEBIBYTE)
            way.after = 4 * MEBIBYTE
            threading.Timer(1.0, lambda: (setattr(way, "after", 2**40), setattr(way, "is_cut", False))).start()
            assert len(body.read()) == 19 * MEBIBYTE


def test_the_parts_of_a_job_go_with_its_folder(bucket) -> None:
    job, other = ids.uuid7(), ids.uuid7()
    for number in range(3):
        parts.write_part(job, number, 1, b"out", b"err")
    parts.write_part(other, 0, 1, b"out", b"err")
    assert b"".join(parts.read_part(job, 1, 1, 3, None)) == b"err" and b"".join(parts.read_part(job, 1, 1, 0, 3)) == b"out"
    bucket.client.create_multipart_upload(Bucket=bucket.bucket, Key=f"here/{parts.part_path(job, 9, 1)}")
    parts.delete_parts(job)
    parts.delete_parts(job)
    assert not [name for name in (*bucket.names(), *bucket.uploads()) if job.hex in name]
    assert f"here/{parts.part_path(other, 0, 1)}" in bucket.names()


def test_a_bucket_that_is_away_is_told_and_nothing_is_lost(server, cast, api, monkeypatch) -> None:
    monkeypatch.setattr(s3, "TIMES", s3.TIMES | {"connect_timeout": 1, "retries": {"total_max_attempts": 1}})
    with stored_in(server):
        file = make(cast.tenant)
        assert default_storage.is_reachable()
    client, path = api(cast.key), f"/v1/files/{ids.encode(ids.FILE, file.id)}"
    with stored_in(server, port=1):
        for answer in (upload(client), client.get(f"{path}/content")):
            assert (answer.status_code, answer.json()["error"]["code"], answer["Retry-After"]) == (503, "storage_unavailable", "5")
        assert not default_storage.is_reachable()
        client.delete(path)
        files.sweep_files()
    with stored_in(server):
        assert exists(file)
        files.sweep_files()
        assert not exists(file)


def test_an_upload_that_was_never_finished_goes_when_its_name_is_deleted(bucket) -> None:
    for name in ("never", "never-else"):
        bucket.client.create_multipart_upload(Bucket=bucket.bucket, Key=f"here/{name}")
    default_storage.delete("never")
    assert bucket.uploads() == ["here/never-else"]
    default_storage.delete("never-else")


def test_a_page_says_that_the_storage_is_away(server, cast, monkeypatch) -> None:
    monkeypatch.setattr(s3, "TIMES", s3.TIMES | {"connect_timeout": 1, "retries": {"total_max_attempts": 1}})
    with stored_in(server):
        file = make(cast.tenant)
    with stored_in(server, port=1):
        answer = browser_for(cast.owner).get(f"/files/{ids.encode(ids.FILE, file.id)}/content")
    assert answer.status_code == 503 and "try again" in answer.content.decode()


def test_readyz_tells_of_the_storage_and_stays_ready_for_calls(server, api, cast, monkeypatch) -> None:
    from maas import health

    monkeypatch.setattr(health.queue, "alive", lambda: True)
    for port, is_there in ((server.port, True), (1, False)):
        health._storage.cache_clear()
        with stored_in(server, port):
            answer = api(cast.key).get("/readyz")
        assert (answer.status_code, answer.json()["storage"]) == (200, is_there)
    health._storage.cache_clear()


def test_anchors_of_the_audit_log_can_lie_in_a_bucket(server, cast, monkeypatch) -> None:
    with stored_in(server):
        monkeypatch.setenv("MAAS_ANCHORS", f"s3://{server.bucket}")
        with override_settings(STORAGES={**settings.STORAGES, "anchors": env.storage("MAAS_ANCHORS", Path("/x"))}):
            assert list(anchors.read_anchors(storages["anchors"])) == []
            assert anchors.write_anchors() > 0
            found = [anchor for anchor in anchors.read_anchors(storages["anchors"]) if not isinstance(anchor, str)]
    assert f"org_{cast.tenant.id.hex}" in {anchor.tenant for anchor in found}


@pytest.mark.parametrize("place", ["s3://", "http://bucket", "s3:///prefix"])
def test_a_place_that_is_none_stops_the_process(monkeypatch, place) -> None:
    monkeypatch.setenv("MAAS_STORAGE", place)
    with pytest.raises(ImproperlyConfigured, match="MAAS_STORAGE"):
        env.storage("MAAS_STORAGE", Path("/x"))


def test_a_folder_is_the_default_and_a_bucket_needs_no_credentials_of_ours(monkeypatch) -> None:
    for name in ("MAAS_STORAGE", "MAAS_S3_KEY", "MAAS_S3_SECRET", "MAAS_S3_ENDPOINT", "MAAS_S3_REGION"):
        monkeypatch.setenv(name, "")
    assert env.storage("MAAS_STORAGE", Path("/x"))["OPTIONS"] == {"location": "/x"}
    monkeypatch.setenv("MAAS_STORAGE", "s3://bucket/a/b/")
    assert env.storage("MAAS_STORAGE", Path("/x"))["OPTIONS"] == {"bucket_name": "bucket", "location": "a/b"}
