"""Files at the limit of 200 MB through the real web server, whose memory stays flat."""

import hashlib
import json
import os
import socket
import time
import urllib.request

import pytest

from tests.cast import Key, make_cast
from tests.web_alone import Web, web_alone

MEBIBYTE = 2**20
LIMIT = 200 * MEBIBYTE
GROWTH = 48 * MEBIBYTE  # of the web server, whatever passes through it
HEAD = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
HEAD += b'--b\r\nContent-Disposition: form-data; name="file"; filename="big.jsonl"\r\nContent-Type: application/octet-stream\r\n\r\n'
TAIL = b"\r\n--b--\r\n"
PIECE = os.urandom(MEBIBYTE)


@pytest.fixture(scope="module")
def web():
    with web_alone() as running:
        yield running


@pytest.fixture(scope="module")
def key() -> Key:
    return make_cast().key


def connect(web: Web, key: Key, *fields: str) -> socket.socket:
    """A connection on which the head of an upload was sent."""
    wire = socket.create_connection(("127.0.0.1", web.port), timeout=60)
    lines = ["POST /v1/files HTTP/1.1", f"Host: 127.0.0.1:{web.port}", f"Authorization: Bearer {key.secret}"]
    lines += ["Content-Type: multipart/form-data; boundary=b", "Connection: close", *fields, "", ""]
    wire.sendall("\r\n".join(lines).encode())
    return wire


def answer(wire: socket.socket) -> tuple[int, dict]:
    read = b""
    while piece := wire.recv(65536):
        read += piece
    head, _, body = read.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])


def pieces(size: int):
    yield HEAD
    for at in range(0, size, MEBIBYTE):
        yield PIECE[: min(MEBIBYTE, size - at)]
    yield TAIL


def send(web: Web, key: Key, size: int) -> tuple[int, dict]:
    """An upload of a file of so many bytes that says how long it is."""
    wire = connect(web, key, f"Content-Length: {len(HEAD) + size + len(TAIL)}")
    for piece in pieces(size):
        wire.sendall(piece)
    return answer(wire)


def send_chunked(web: Web, key: Key, size: int) -> tuple[int, tuple[int, dict]]:
    """The same in chunks, which do not say it; how many bytes were taken, and the answer."""
    wire, sent = connect(web, key, "Transfer-Encoding: chunked"), 0
    try:
        for piece in pieces(size):
            wire.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            sent += len(piece)
        wire.sendall(b"0\r\n\r\n")
    except (BrokenPipeError, ConnectionResetError):
        pass
    return sent, answer(wire)


def download(web: Web, key: Key, file_id: str) -> str:
    """The sha256 of what comes."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{web.port}/v1/files/{file_id}/content", headers={"Authorization": f"Bearer {key.secret}"}
    )
    digest = hashlib.sha256()
    with urllib.request.urlopen(request, timeout=60) as body:
        while piece := body.read(MEBIBYTE):
            digest.update(piece)
    return digest.hexdigest()


def test_a_file_of_200_megabytes_goes_up_and_comes_back_in_flat_memory(web, key) -> None:
    assert send(web, key, MEBIBYTE)[0] == 200  # what is loaded once is loaded
    stored: list = []
    grown = web.growth(lambda: stored.append(send(web, key, LIMIT)))
    status, file = stored[0]
    assert (status, file["bytes"]) == (200, LIMIT)
    assert grown < GROWTH, grown / MEBIBYTE
    digest = hashlib.sha256()
    for _ in range(200):
        digest.update(PIECE)
    told: list = []
    grown = web.growth(lambda: told.append(download(web, key, file["id"])))
    assert told == [digest.hexdigest()] and grown < GROWTH, grown / MEBIBYTE


def test_a_file_of_201_megabytes_is_refused_by_its_length_before_any_of_it_is_sent(web, key) -> None:
    size = 201 * MEBIBYTE
    wire = connect(web, key, f"Content-Length: {len(HEAD) + size + len(TAIL)}")
    assert answer(wire)[0] == 413


def test_a_file_in_chunks_is_counted_and_refused_when_it_passes_the_limit(web, key) -> None:
    sent, (status, file) = send_chunked(web, key, 3 * MEBIBYTE)
    assert (status, file.get("bytes")) == (200, 3 * MEBIBYTE), file
    told: list = []
    grown = web.growth(lambda: told.append(send_chunked(web, key, 260 * MEBIBYTE)))
    sent, (status, error) = told[0]
    assert (status, error["error"]["code"]) == (413, "file_too_large") and sent < 230 * MEBIBYTE and grown < GROWTH


def test_an_upload_that_breaks_off_is_no_file(web, key) -> None:
    wire = connect(web, key, f"Content-Length: {len(HEAD) + 9 * MEBIBYTE + len(TAIL)}")
    wire.sendall(HEAD + PIECE)
    wire.close()
    time.sleep(0.5)
    request = urllib.request.Request(f"http://127.0.0.1:{web.port}/v1/files?limit=1", headers={"Authorization": f"Bearer {key.secret}"})
    with urllib.request.urlopen(request, timeout=30) as body:
        assert all(row["bytes"] != 9 * MEBIBYTE for row in json.load(body)["data"])
