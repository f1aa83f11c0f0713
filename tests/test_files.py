"""Files: upload, list, download, delete, expire; and everything that can be wrong with an upload."""

import io
import json
from datetime import timedelta

import pytest
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import override_settings
from django.utils import timezone

from apps.files import bodies, services
from apps.files.models import File
from maas import errors, ids
from maas.tenancy import as_tenant

BODY = b'{"custom_id": "a"}\n' * 3


def upload(client, body=BODY, name="lines.jsonl", **fields):
    part = io.BytesIO(body or b"")
    part.name = name
    file = {"file": part} if body is not None else {}
    return client.post("/v1/files", {"purpose": "batch", **file, **fields}, format="multipart")


def make(tenant, body=BODY, purpose="batch", **options) -> File:
    return services.create_file(tenant, filename="lines.jsonl", purpose=purpose, chunks=[body], **options)


def exists(file: File) -> bool:
    return default_storage.exists(bodies.body_path(file.tenant_id, file.id))


def test_a_file_comes_back_as_it_was_sent(cast, api) -> None:
    made = upload(api(cast.key)).json()
    assert made | {"id": 0, "created_at": 0} == {
        "id": 0, "object": "file", "bytes": len(BODY), "created_at": 0, "expires_at": None, "filename": "lines.jsonl",
        "purpose": "batch", "status": "processed", "status_details": None,
    }  # fmt: skip
    answer = api(cast.key).get(f"/v1/files/{made['id']}/content", HTTP_ACCEPT="application/binary")
    assert (answer.status_code, answer["Content-Type"], answer["Content-Length"]) == (200, "application/octet-stream", str(len(BODY)))
    assert b"".join(answer.streaming_content) == BODY
    assert api(cast.key).get(f"/v1/files/{made['id']}").json() == made


TEXT = bytes(range(256)) * 4


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1), ("bytes=10-19", 10, 20), ("bytes=1000-", 1000, 1024), ("bytes=-4", 1020, 1024), ("bytes=-5000", 0, 1024),
        ("bytes=1020-5000", 1020, 1024), ("bytes=0-", 0, 1024),
    ],
)  # fmt: skip
def test_a_download_goes_on_where_it_broke_off(cast, api, asked, start, stop) -> None:
    file = make(cast.tenant, TEXT)
    answer = api(cast.key).get(f"/v1/files/{ids.encode(ids.FILE, file.id)}/content", HTTP_RANGE=asked)
    assert (answer.status_code, answer["Content-Range"]) == (206, f"bytes {start}-{stop - 1}/1024")
    assert answer["Content-Length"] == str(stop - start) and answer["Accept-Ranges"] == "bytes"
    assert b"".join(answer.streaming_content) == TEXT[start:stop]


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=1-2,5-6", "lines=1-2", "bytes=x-", "bytes=-", "x", "bytes=" + "9" * 30 + "-"])
def test_a_range_that_is_none_is_answered_with_the_whole_file(cast, api, asked) -> None:
    file = make(cast.tenant, TEXT)
    answer = api(cast.key).get(f"/v1/files/{ids.encode(ids.FILE, file.id)}/content", HTTP_RANGE=asked)
    assert (answer.status_code, b"".join(answer.streaming_content)) == (200, TEXT)


@pytest.mark.parametrize("asked", ["bytes=1024-", "bytes=5000-", "bytes=9999-10000", "bytes=-0"])
def test_a_range_beyond_the_end_is_told_where_the_end_is(cast, api, asked) -> None:
    file = make(cast.tenant, TEXT)
    answer = api(cast.key).get(f"/v1/files/{ids.encode(ids.FILE, file.id)}/content", HTTP_RANGE=asked)
    assert (answer.status_code, answer["Content-Range"], answer.json()["error"]["code"]) == (416, "bytes */1024", "invalid_range")


def test_a_range_of_other_bytes_than_those_begun_is_not_answered(cast, api) -> None:
    file = make(cast.tenant, TEXT)
    path, client = f"/v1/files/{ids.encode(ids.FILE, file.id)}/content", api(cast.key)
    name = client.get(path)["ETag"]
    asked = [client.get(path, HTTP_RANGE="bytes=5-", HTTP_IF_RANGE=named).status_code for named in (name, '"other"')]
    assert (name, asked) == (f'"{file.sha256}"', [206, 200])


def test_lists_page_in_both_orders_and_filter(cast, api) -> None:
    made = [ids.encode(ids.FILE, make(cast.tenant, purpose="batch" if n % 2 else "fine-tune").id) for n in range(5)]
    client = api(cast.key)
    first = client.get("/v1/files?limit=2").json()
    assert ([row["id"] for row in first["data"]], first["has_more"], first["last_id"]) == (made[:2:-1], True, made[3])
    rest = client.get(f"/v1/files?limit=10000&after={first['last_id']}").json()
    assert ([row["id"] for row in rest["data"]], rest["has_more"]) == (made[2::-1], False)
    assert [row["id"] for row in client.get("/v1/files?order=asc&purpose=batch").json()["data"]] == made[1::2]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("limit=x", "limit"),
        ("order=up", "order"),
        ("after=nonsense", "after"),
        ("purpose=%00", "purpose"),
    ],
)
def test_a_bad_query_is_named(cast, api, query, param) -> None:
    answer = api(cast.key).get(f"/v1/files?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"body": b""}, "file", "empty_file"),
        ({"body": None}, "file", "missing_field"),
        ({"purpose": "assistants"}, "purpose", "invalid_purpose"),
        ({"purpose": "batch_output"}, "purpose", "invalid_purpose"),
        ({"purpose": "\0"}, "purpose", "invalid_purpose"),
        ({"name": "x" * 256}, "file", "invalid_filename"),
        ({"surprise": "1"}, "surprise", "unknown_field"),
        ({"expires_after[anchor]": "created_at"}, "expires_after[seconds]", "invalid_value"),
        ({"expires_after[anchor]": "now", "expires_after[seconds]": "3600"}, "expires_after[anchor]", "invalid_value"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "60"}, "expires_after[seconds]", "invalid_value"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "1e9"}, "expires_after[seconds]", "invalid_value"),
    ],
)
def test_a_bad_upload_is_named_and_leaves_nothing(cast, api, change, param, code) -> None:
    answer = upload(api(cast.key), **change)
    assert (answer.status_code, answer.json()["error"]["param"], answer.json()["error"]["code"]) == (400, param, code)
    with as_tenant(cast.tenant.id):
        assert not File.objects.exists()


def test_bodies_that_are_no_form_are_refused(cast, api) -> None:
    client = api(cast.key)
    assert client.post("/v1/files", {"purpose": "batch"}, format="json").status_code == 415
    assert client.post("/v1/files", b"--x\r\nnonsense", content_type="multipart/form-data; boundary=x").status_code == 400
    assert client.post("/v1/files", b"", content_type="multipart/form-data").status_code == 400
    form = "".join(f'--x\r\nContent-Disposition: form-data; name="f{n}"\r\n\r\n1\r\n' for n in range(2000)) + "--x--\r\n"
    assert client.post("/v1/files", form.encode(), content_type="multipart/form-data; boundary=x").status_code == 400


def test_a_file_field_of_another_name_and_two_files_are_refused(cast, api) -> None:
    client, body = api(cast.key), SimpleUploadedFile("a", b"x")
    assert client.post("/v1/files", {"purpose": "batch", "data": body}, format="multipart").json()["error"]["param"] == "data"
    two = {"purpose": "batch", "file": [SimpleUploadedFile("a", b"x"), SimpleUploadedFile("b", b"y")]}
    assert client.post("/v1/files", two, format="multipart").status_code == 400


@override_settings(MAAS_FILE_LIMIT=1000)
def test_too_large_is_refused_by_its_length_and_while_it_streams(cast, api) -> None:
    assert upload(api(cast.key), b"x" * 1000).status_code == 200
    for size in (1001, 200_000):
        answer = upload(api(cast.key), b"x" * size)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "file_too_large")
    with pytest.raises(errors.TooLarge):
        make(cast.tenant, b"x" * 1001)
    with as_tenant(cast.tenant.id):
        assert File.objects.count() == 1


def test_a_key_needs_the_scope(cast, api) -> None:
    assert upload(api(cast.key_with("predict"))).status_code == 403


def test_deleting_hides_at_once_and_removes_the_bytes_with_the_next_sweep(cast, api) -> None:
    file = make(cast.tenant)
    path = f"/v1/files/{ids.encode(ids.FILE, file.id)}"
    assert api(cast.key).delete(path).json() == {"id": path[10:], "object": "file", "deleted": True}
    assert [api(cast.key).get(path + end).status_code for end in ("", "/content")] == [404, 404]
    assert api(cast.key).delete(path).status_code == 404
    assert exists(file)
    services.sweep_files()
    assert not exists(file)


def test_expired_files_go_with_the_sweep_but_not_while_they_are_held(cast) -> None:
    plain, held = make(cast.tenant, expires_in=3600), make(cast.tenant, expires_in=3600)
    with as_tenant(cast.tenant.id):
        services.hold_file(cast.tenant, held.id)
        File.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    services.sweep_files()
    assert (exists(plain), exists(held)) == (False, True)
    with pytest.raises(errors.NotFound):
        services.get_file(cast.tenant, plain.id)
    with as_tenant(cast.tenant.id):
        services.release_file(held.id)
    services.sweep_files()
    assert not exists(held)


def test_an_upload_that_breaks_off_leaves_nothing(cast) -> None:
    def breaks():
        yield b"some"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        services.create_file(cast.tenant, filename="a", purpose="batch", chunks=breaks())
    with as_tenant(cast.tenant.id):
        assert not File.objects.exists()


def test_a_body_whose_process_died_is_invisible_and_swept(cast) -> None:
    file = services.begin_file(cast.tenant, filename="a", purpose="batch")
    services.write_file(file, [b"x"])
    assert services.list_files(cast.tenant) == ([], False)
    with as_tenant(cast.tenant.id):
        File.objects.update(created_at=timezone.now() - timedelta(hours=25))
    services.sweep_files()
    assert not exists(file)
    with pytest.raises(errors.Unavailable), as_tenant(cast.tenant.id):
        services.finish_file(file)


def test_another_tenant_finds_nothing(cast, api) -> None:
    path = f"/v1/files/{ids.encode(ids.FILE, make(cast.tenant).id)}"
    stranger = api(cast.other_key)
    assert [stranger.get(path).status_code, stranger.get(path + "/content").status_code, stranger.delete(path).status_code] == [404] * 3
    assert stranger.get("/v1/files").json()["data"] == []


@pytest.mark.parametrize("file_id", ["file-1", "x", "file-" + "g" * 32, "batch_" + "0" * 32])
def test_an_id_that_is_none_is_not_found(cast, api, file_id) -> None:
    assert api(cast.key).get(f"/v1/files/{file_id}").status_code == 404


def test_a_member_uploads_with_a_session_and_a_viewer_does_not(cast) -> None:
    from tests.cast import browser_for

    def send(user):
        return browser_for(user).post("/v1/files", {"purpose": "batch", "file": SimpleUploadedFile("a", BODY)})

    assert send(cast.owner).status_code == 200, json.dumps(send(cast.owner).json())
    assert send(cast.viewer).status_code == 403


def test_a_large_file_is_not_read_as_a_picture(cast) -> None:
    file = make(cast.tenant, b"x" * 100)
    with pytest.raises(errors.BadRequest):
        services.read_bytes(cast.tenant, file.id, limit=99)
    assert services.read_bytes(cast.tenant, file.id, limit=100) == b"x" * 100


def test_the_page_of_files_shows_each_purpose_and_says_when_none_has_it(cast) -> None:
    from tests.cast import browser_for

    make(cast.tenant, purpose="vision")
    browser = browser_for(cast.owner)
    assert "lines.jsonl" in browser.get("/files?purpose=vision").content.decode()
    text = browser.get("/files?purpose=fine-tune").content.decode()
    assert "No file is kept as “Training data”" in text and "lines.jsonl" not in text
