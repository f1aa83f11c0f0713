"""maas with everything on: what bin/up starts, with a home of its own, and an organisation whose every limit is checked.

Web server, online server, batch worker, light worker, beat, embedded PostgreSQL and Redis all run, under the real supervisor.
The organisation is on a paid plan whose limits are large but finite, so that each call is authenticated, counted against
four limits a minute, reserved from the month's allowance, settled and entered into the ledger.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.online.load import LoadError, Target
from bench.online.serving import Running, free_port, stop
from bench.online.subjects import ROOT
from maas.processes import last_lines
from maas.product import is_ready

START_SECONDS = 300.0  # the first start makes the database and exports the models
PLANS = """# Every limit is there and is counted, none is reached.
[scale]
requests_per_minute = 10000000
units_per_minute = 10000000
model_requests_per_minute = 10000000
model_units_per_minute = 10000000
included_units = 1000000000000
overage = false
"""


class Stack:
    """A running maas and a key that calls it."""

    def __init__(self, home: Path, url: str, pid: int, key: str, tenant: str) -> None:
        self.home, self.url, self.pid, self.key, self.tenant = home, url, pid, key, tenant

    def running(self, model: str) -> Running:
        """The server as one that serves this model."""
        target = Target(
            self.url, "/v1/predictions", lambda value: {"model": model, "inputs": value}, lambda found: found["outputs"], self.key
        )  # fmt: skip
        return Running(target, self.pid)

    def ledger(self, model: str) -> tuple[int, int]:
        """Calls and units that the ledger holds of this organisation and model."""
        found: list[int] = json.loads(_ask(self.home, "ledger", self.tenant, model))
        return found[0], found[1]


@contextmanager
def full_stack(home: Path, models: Path, **settings: str) -> Iterator[Stack]:
    """maas on a free port with this catalogue. LoadError with the end of its log when it does not start."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "plans.toml").write_text(PLANS)
    with started(home, ["-m", "maas.up"], models, **settings) as (url, pid):
        key, tenant = json.loads(_ask(home, "key"))
        yield Stack(home, url, pid, key, tenant)


@contextmanager
def bare_stack(home: Path, models: Path, **settings: str) -> Iterator[Stack]:
    """The same programs without authentication, limits, reservation and settlement, in a home that the full stack has set up."""
    with started(home, ["-m", "bench.online.bare_up"], models, **settings) as (url, pid):
        yield Stack(home, url, pid, "", "")


@contextmanager
def started(home: Path, command: list[str], models: Path, **settings: str) -> Iterator[tuple[str, int]]:
    """A supervisor on a free port: its address once calls would be answered, and its process."""
    port, log = free_port(), home / "bench.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command, "--port", str(port)], cwd=ROOT, env=_environment(home, models, settings),
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(process, url, home, log)
        yield url, process.pid
    finally:
        stop(process, patience=40)


def _environment(home: Path, models: Path, settings: dict[str, str]) -> dict[str, str]:
    """Whoever measures may set anything with MAAS_ but where the stores, the home and the plans are."""
    ours = {"MAAS_HOME": str(home), "MAAS_MODELS": str(models), "MAAS_PLANS": str(home / "plans.toml"), "PYTHONPATH": str(ROOT)}
    kept = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "REDIS_URL", "MAAS_SECRET_KEY"}}
    return {**kept, **ours, **settings}


def _wait(process: subprocess.Popen[bytes], url: str, home: Path, log: Path) -> None:
    limit = time.monotonic() + START_SECONDS
    while not is_ready(url):
        if process.poll() is not None or time.monotonic() > limit:
            raise LoadError("\n".join([f"maas did not start; the end of {log}:", *last_lines(log, 25)]))
        time.sleep(0.2)


def _ask(home: Path, *words: str) -> str:
    """What a process inside the running stack answers: it has the environment of the web server."""
    pid = int((home / "run" / "web.pid").read_text().split()[0])
    pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    environment = dict(pair.decode().split("=", 1) for pair in pairs if b"=" in pair)
    command = [sys.executable, "-m", "bench.online.stack", *words]
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise LoadError(f"{words[0]} failed inside the stack:\n{done.stderr[-2000:]}")
    return done.stdout.splitlines()[-1]


# ---------- inside the stack ----------
def _make_key() -> tuple[str, str]:
    """A new organisation on a paid plan, and its key."""
    from uuid import uuid4

    from apps.accounts import keys
    from apps.accounts import services as accounts
    from apps.accounts.models import User

    user = User(email=f"bench-{uuid4().hex[:10]}@example.org")
    user.set_unusable_password()
    user.save()
    slug = f"bench-{uuid4().hex[:10]}"
    tenant = accounts.create_tenant(user, name=slug, slug=slug, plan="scale")
    _, secret = keys.create_key(tenant, name="bench", scopes=["predict", "files", "jobs"])
    return secret, tenant.id.hex


def _read_ledger(tenant: str, model: str) -> list[Any]:
    from uuid import UUID

    from django.db import connection

    from maas.tenancy import as_tenant

    with as_tenant(UUID(tenant)), connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(sum(requests), 0)::bigint, coalesce(sum(units), 0)::bigint FROM usage_usagerecord WHERE model = %s", [model]
        )
        return list(cursor.fetchone() or (0, 0))


def _main() -> None:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "maas.settings")
    django.setup()
    print(json.dumps(_make_key() if sys.argv[1] == "key" else _read_ledger(*sys.argv[2:4])))


if __name__ == "__main__":
    _main()
