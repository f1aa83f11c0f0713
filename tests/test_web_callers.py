"""The web server as one process with four threads: callers that leave, hold on, send too much, or come all at once."""

import json
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator

import psutil
import pytest

from apps.files import services as files
from apps.jobs import services as jobs
from maas import ids, queue
from tests.belongings import belongings
from tests.cast import Cast, make_cast
from tests.fire import Platform, call_all, charged, platform
from tests.lanes import until
from tests.tiny import NAME, picture

THREADS = 4
LARGE = b"x" * 8_000_000
BODY = json.dumps({"model": NAME, "inputs": picture()}).encode()


@pytest.fixture(scope="module")
def running() -> Iterator[Platform]:
    with platform(MAAS_WEB_THREADS=str(THREADS), MAAS_WEB_PROCESSES="1") as found:
        yield found


@pytest.fixture(scope="module")
def cast() -> Cast:
    return make_cast()


def head(method: str, path: str, secret: str = "", **more: str) -> bytes:
    given = {
        "Host": "127.0.0.1",
        "Authorization": f"Bearer {secret}" if secret else "",
        **{k.replace("_", "-"): v for k, v in more.items()},
    }
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items() if value), "", ""]
    return "\r\n".join(lines).encode()


def connect(running: Platform, sent: bytes) -> socket.socket:
    line = socket.create_connection(("127.0.0.1", running.port), timeout=30)
    line.sendall(sent)
    return line


def read(line: socket.socket) -> bytes:
    """All until the server closes."""
    found = b""
    while piece := line.recv(65536):
        found += piece
    return found


def is_healthy(running: Platform) -> bool:
    with urllib.request.urlopen(running.url + "/healthz", timeout=10) as answer:
        return bool(answer.status == 200)


def test_an_upload_that_breaks_off_stores_nothing(running, cast) -> None:
    kind = "multipart/form-data; boundary=xx"
    part = b'--xx\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    part += b'--xx\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n{"a": 1}\n'
    for _ in range(THREADS + 2):
        connect(running, head("POST", "/v1/files", cast.key.secret, Content_Type=kind, Content_Length="100000") + part).close()
    assert is_healthy(running)
    time.sleep(0.3)
    listed = read(connect(running, head("GET", "/v1/files", cast.key.secret, Connection="close")))
    assert b" 200 " in listed[:20] and b"a.jsonl" not in listed


def test_downloads_that_their_callers_leave_hold_no_thread(running, cast) -> None:
    file = files.create_file(cast.tenant, filename="large.jsonl", purpose="batch", chunks=iter([LARGE]))
    path = f"/v1/files/{ids.encode(ids.FILE, file.id)}/content"
    for _ in range(20 * THREADS):
        line = connect(running, head("GET", path, cast.key.secret))
        assert line.recv(1000)
        line.close()
    assert is_healthy(running)
    whole = read(connect(running, head("GET", path, cast.key.secret, Connection="close")))
    assert whole.endswith(LARGE)


def test_300_waiting_calls_are_all_answered_and_the_process_says_meanwhile_that_it_lives(running, cast) -> None:
    call_all(running.port, cast.key.secret, 8, at_once=1)
    for name in ("online-1", "online-2"):
        psutil.Process(running.parts[name].process.pid).suspend()
    outcomes: list = []
    callers = threading.Thread(target=lambda: outcomes.extend(call_all(running.port, cast.key.secret, 300, at_once=300)))
    callers.start()
    time.sleep(2)
    try:
        assert [is_healthy(running) for _ in range(5)] == [True] * 5
    finally:
        for name in ("online-1", "online-2"):
            psutil.Process(running.parts[name].process.pid).resume()
    callers.join(120)
    statuses = [one.status for one in outcomes]
    assert len(statuses) == 300 and set(statuses) <= {200, 503} and statuses.count(200) >= 100
    paid = charged(cast.tenant)
    assert {one.prediction for one in outcomes if one.status == 200} <= set(paid)
    assert len(paid) - 8 == statuses.count(200)


def test_callers_that_hang_up_take_their_calls_out_of_the_line(running, cast) -> None:
    call_all(running.port, cast.key.secret, 8, at_once=1)
    for name in ("online-1", "online-2"):
        psutil.Process(running.parts[name].process.pid).suspend()
    try:
        before = len(charged(cast.tenant))
        sent = head("POST", "/v1/predictions", cast.key.secret, Content_Type="application/json", Content_Length=str(len(BODY))) + BODY
        lines = [connect(running, sent) for _ in range(20)]
        until(lambda: sum(queue.depths().values()) >= 20)
        for line in lines:
            line.close()
        until(lambda: bodies() <= 4)  # those that the servers have taken before they stood still
    finally:
        for name in ("online-1", "online-2"):
            psutil.Process(running.parts[name].process.pid).resume()
    assert call_all(running.port, cast.key.secret, 1, at_once=1)[0].status == 200
    assert len(charged(cast.tenant)) - before <= 1 + 4


def bodies() -> int:
    return sum(queue.connect().hlen(key) for key in queue.connect().scan_iter("maas:online:bodies:*"))


def test_heads_and_files_that_are_known_have_no_body(running) -> None:
    def get(method: str, path: str, **more: str) -> tuple[bytes, bytes]:
        first, _, body = read(connect(running, head(method, path, Connection="close", **more))).partition(b"\r\n\r\n")
        return first, body

    first, body = get("HEAD", "/healthz")
    assert b" 200 " in first and body == b""
    page, _ = get("GET", "/accounts/login/")
    found, css = get("GET", static_path(running))
    assert b" 200 " in found and css and b" 200 " in page
    when = next(line for line in found.split(b"\r\n") if line.lower().startswith(b"last-modified")).split(b": ", 1)[1].decode()
    known, nothing = get("GET", static_path(running), If_Modified_Since=when)
    assert b" 304 " in known and nothing == b""


def static_path(running: Platform) -> str:
    """Where the style of the pages is."""
    with urllib.request.urlopen(running.url + "/accounts/login/", timeout=10) as answer:
        return answer.read().decode().partition(".css")[0].rpartition('"')[2] + ".css"


def test_a_body_that_is_too_large_is_told_in_json(running, cast) -> None:
    size = 33 * 2**20
    sent = head("POST", "/v1/predictions", cast.key.secret, Content_Type="application/json", Content_Length=str(size), Connection="close")
    line = connect(running, sent)
    try:
        for _ in range(33):
            line.sendall(b" " * 2**20)
    except OSError:
        pass  # it need not read what it refuses
    told = read(line)
    assert b" 413 " in told[:20] and json.loads(told.partition(b"\r\n\r\n")[2])["error"]["code"]


def test_a_stream_comes_piece_by_piece_and_its_thread_ends_with_its_caller(running) -> None:
    cast = make_cast()
    path = f"/v1/batches/{belongings(cast)['batch_id']}/events?stream=true"
    for _ in range(3):
        line = follow(running, path, cast.key.secret)
        read_until(line, b"event: batch")
        line.close()
    line = follow(running, path, cast.key.secret)
    read_until(line, b"event: batch")
    jobs.cancel_batch(cast.tenant, ids.decode(ids.BATCH, path.split("/")[3]))
    read_until(line, b"cancelled")
    line.close()


def follow(running: Platform, path: str, secret: str) -> socket.socket:
    """A stream; this process has room for one, which has to come free soon."""
    end = time.monotonic() + 8
    while True:
        line = connect(running, head("GET", path, secret))
        if b" 200 " in line.recv(20):
            return line
        assert time.monotonic() < end
        line.close()
        time.sleep(0.2)


def read_until(line: socket.socket, wanted: bytes) -> None:
    found = b""
    while wanted not in found:
        piece = line.recv(65536)
        assert piece
        found += piece


def test_told_to_stop_it_lets_waiting_calls_finish(running, cast) -> None:
    call_all(running.port, cast.key.secret, 4, at_once=1)
    for name in ("online-1", "online-2"):
        psutil.Process(running.parts[name].process.pid).suspend()
    outcomes: list = []
    callers = threading.Thread(target=lambda: outcomes.extend(call_all(running.port, cast.key.secret, 30, at_once=30)))
    callers.start()
    until(lambda: bodies() >= 30)
    running.parts["web"].process.terminate()
    time.sleep(1)
    for name in ("online-1", "online-2"):
        psutil.Process(running.parts[name].process.pid).resume()
    callers.join(30)
    running.parts["web"].process.wait(30)
    assert [one.status for one in outcomes] == [200] * 30
    running.parts["web"].start()
