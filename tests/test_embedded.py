"""The embedded servers start, stop, survive a kill, and leave nothing behind."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from maas import embedded, processes

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="maas-embedded-"))
    yield folder
    embedded.stop_redis(folder)
    embedded.stop_postgres(folder)
    shutil.rmtree(folder, ignore_errors=True)


def test_postgres_survives_a_kill(place: Path) -> None:
    with psycopg.connect(embedded.start_postgres(place)) as connection:
        connection.execute("CREATE TABLE kept (number int)")
        connection.execute("INSERT INTO kept VALUES (7)")
    os.kill(int((place / "run/postgres.pid").read_text().split()[0]), signal.SIGKILL)
    with psycopg.connect(embedded.start_postgres(place)) as connection:
        assert connection.execute("SELECT number FROM kept").fetchall() == [(7,)]


def test_the_login_is_no_superuser(place: Path) -> None:
    with psycopg.connect(embedded.start_postgres(place)) as connection:
        row = connection.execute("SELECT rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user").fetchone()
        assert row == (False, False)


def test_redis_survives_a_kill_and_wants_its_password(place: Path) -> None:
    url = embedded.start_redis(place)
    redis.Redis.from_url(url).set("kept", "yes")
    time.sleep(1.2)  # the append-only file is written every second
    os.kill(int((place / "run/redis.pid").read_text().split()[0]), signal.SIGKILL)
    url = embedded.start_redis(place)
    assert redis.Redis.from_url(url).get("kept") == b"yes"
    with pytest.raises(redis.AuthenticationError):
        redis.Redis.from_url(url.replace(url.split("@")[0], "redis://:wrong")).ping()


def test_secrets_are_the_owners_alone(place: Path) -> None:
    embedded.start_redis(place)
    assert (place / "secrets").stat().st_mode & 0o777 == 0o700
    assert (place / "secrets/redis").stat().st_mode & 0o777 == 0o600


def test_servers_do_not_outlive_the_process_that_started_them(place: Path) -> None:
    code = (
        f"import os, pathlib; from maas import embedded; home = pathlib.Path({str(place)!r});"
        "embedded.start_postgres(home); embedded.start_redis(home); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT)
    limit = time.monotonic() + 15
    folders = (place / "postgres/data", place / "redis")
    while any(processes.processes_in(folder) for folder in folders) and time.monotonic() < limit:
        time.sleep(0.1)
    assert not any(processes.processes_in(folder) for folder in folders)
