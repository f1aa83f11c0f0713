"""The web server as a process: what it says, what it survives, how it ends."""

import json
import logging
import logging.config
import threading
import time
import urllib.error
import urllib.request

import psutil
import pytest

from maas import web
from tests.cast import make_cast
from tests.fire import Platform, platform
from tests.tiny import NAME, picture

SECRET = "maas_T17vI38VDR3TWPQsmGxF94ovfJ5zHZpEcdF0nTij0vm5du"


@pytest.fixture(scope="module")
def running():
    with platform(MAAS_ACCESS_LOG="1") as found:
        yield found


def get(running: Platform, path: str) -> int:
    try:
        with urllib.request.urlopen(running.url + path, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def call(running: Platform, secret: str, *, deadline_ms: int = 30_000) -> tuple[int, dict]:
    body = json.dumps({"model": NAME, "inputs": picture()}).encode()
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json", "X-Deadline-Ms": str(deadline_ms)}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{running.url}/v1/predictions", body, headers), timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def children(running: Platform) -> list[psutil.Process]:
    return [child for child in psutil.Process(running.parts["web"].process.pid).children() if child.is_running()]


def test_the_access_log_names_calls_and_hides_secrets(running) -> None:
    get(running, f"/invitations/{'aB3' * 15}/accept")
    get(running, f"/healthz?key={SECRET}")
    time.sleep(0.5)
    said = running.parts["web"].log.read_text()
    assert '"GET /invitations/[redacted]/accept" 404' in said and '"GET /healthz" 200' in said and SECRET not in said


def test_every_line_of_the_server_goes_without_secrets(capsys) -> None:
    line = web.Line(fmt="%(message)s").format(logging.LogRecord("x", logging.INFO, "", 0, f"key {SECRET}", None, None))
    assert SECRET not in line
    assert {one["()"] for one in web.logging_config()["formatters"].values()} == {"maas.web.Line"}


def test_a_process_that_is_killed_is_replaced(running) -> None:
    before = {child.pid for child in children(running)}
    children(running)[0].kill()
    end = time.monotonic() + 20
    while len({child.pid for child in children(running)} - before) < 1 and time.monotonic() < end:
        time.sleep(0.1)
    assert len(children(running)) == len(before)
    running.wait_until_ready()
    assert [get(running, "/healthz") for _ in range(20)] == [200] * 20


def test_told_to_stop_it_finishes_what_runs(running) -> None:
    secret, answers = make_cast().key.secret, []
    assert call(running, secret)[0] == 200
    for name in ("online-1", "online-2"):
        psutil.Process(running.parts[name].process.pid).suspend()
    caller = threading.Thread(target=lambda: answers.append(call(running, secret, deadline_ms=3000)))
    caller.start()
    time.sleep(1)
    running.parts["web"].process.terminate()
    caller.join(30)
    running.parts["web"].process.wait(30)
    assert answers[0][0] == 504 and "Nothing was charged" in answers[0][1]["error"]["message"]
    running.parts["web"].start()
