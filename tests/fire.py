"""The serving part of the product under fire: many callers at once, processes that are killed, and what came of each call.

Used by tests/test_exact_limits.py in short and by `python -m bench.exact_limits` in full.
"""

import asyncio
import json
import os
import random
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from django.db import connection

from apps.accounts.models import Tenant
from apps.usage import reservations
from maas.tenancy import SystemUse, as_system
from tests.conftest import HOME, ROOT
from tests.live import COMMANDS
from tests.tiny import NAME, load_tiny, picture
from tests.webhook_faults import Killable, free_port

UNITS = 3  # of a call to the tiny model
PLANS = "\n".join(
    f"""[{plan}]
requests_per_minute = "none"
units_per_minute = "none"
model_requests_per_minute = "none"
model_units_per_minute = "none"
concurrent_jobs = "none"
{more}"""
    for plan, more in (("free", ""), ("team", "included_units = 1000"), ("scale", "included_units = 2000"))
)


@dataclass
class Platform:
    """Web and two online servers on a port of their own, and workers if wanted; parts can be killed and started again."""

    port: int
    parts: dict[str, Killable] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self, name: str) -> None:
        """SIGKILL a part with all its processes and start another in its place."""
        self.parts[name].kill()
        self.parts[name].start()

    def wait_until_ready(self, seconds: float = 90) -> None:
        """Until a call would be answered."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.2)
        raise AssertionError("\n".join(part.log.read_text(errors="replace")[-2000:] for part in self.parts.values()))


def plans() -> str:
    """The file of these plans."""
    path = HOME / "plans.toml"
    path.write_text(PLANS)
    return str(path)


@contextmanager
def platform(*workers: str, **settings: str) -> Iterator[Platform]:
    """Processes with plans that limit no rates, and the tiny model; `workers` are more parts of `tests.live.COMMANDS`."""
    load_tiny(HOME / "catalogue" / NAME)
    port = free_port()
    ours = {"MAAS_URL": f"http://127.0.0.1:{port}", "MAAS_BIND": f"127.0.0.1:{port}", "MAAS_PLANS": plans(), "PYTHONPATH": str(ROOT)}
    env = {**os.environ, **ours, **settings}
    running = Platform(port)
    commands = {"web": [sys.executable, "-m", "maas.web"]}
    commands |= {name: [sys.executable, "-m", "workers.online"] for name in ("online-1", "online-2")}
    commands |= {name: [*COMMANDS[name], str(HOME / "fire-beat")] if name == "beat" else COMMANDS[name] for name in workers}
    for name, command in commands.items():
        running.parts[name] = Killable(command, HOME / f"fire-{name}.log", env)
        running.parts[name].start()
    try:
        running.wait_until_ready()
        yield running
    finally:
        for part in running.parts.values():
            part.kill()


@dataclass
class Outcome:
    """What a caller saw: a status (0: the connection broke), the error's code, and the id and units of an answer."""

    status: int
    code: str | None = None
    prediction: str | None = None
    units: int = 0


def call_all(port: int, secret: str, calls: int, *, at_once: int) -> list[Outcome]:
    """Make so many calls, `at_once` of them open at any moment."""
    return asyncio.run(_call_all(port, secret, calls, at_once))


async def _call_all(port: int, secret: str, calls: int, at_once: int) -> list[Outcome]:
    gate = asyncio.Semaphore(at_once)
    return await asyncio.gather(*(_call(port, secret, gate) for _ in range(calls)))


async def _call(port: int, secret: str, gate: asyncio.Semaphore) -> Outcome:
    body = json.dumps({"model": NAME, "inputs": picture()}).encode()
    head = (
        f"POST /v1/predictions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {secret}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    async with gate:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head.encode() + body)
            answer = await asyncio.wait_for(reader.read(), 120)
            writer.close()
            return read_answer(answer)
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            await asyncio.sleep(0.05)
            return Outcome(0)


def read_answer(answer: bytes) -> Outcome:
    """The outcome in the bytes of an HTTP answer; a broken one is none."""
    head, _, body = answer.partition(b"\r\n\r\n")
    try:
        status, fields = int(head.split(b" ", 2)[1]), json.loads(body)
    except (IndexError, ValueError):
        return Outcome(0)
    if status == 200:
        return Outcome(200, prediction=fields["id"].removeprefix("pred_"), units=fields["usage"]["units"])
    return Outcome(status, code=fields["error"]["code"])


def charged(tenant: Tenant) -> dict[str, int]:
    """Units of each call in the ledger of a tenant, voids and calls that were taken back left out."""
    with as_system(SystemUse.RECONCILE_USAGE), connection.cursor() as cursor:
        cursor.execute("SELECT source, kind, units FROM usage_usagerecord WHERE tenant_id = %s", [tenant.id])
        rows = cursor.fetchall()
    back = {source.removeprefix("reversal:") for source, kind, _units in rows if kind == "reversal"}
    return {source: units for source, kind, units in rows if kind == "prediction" and source not in back}


def end_leases(tenant: Tenant) -> None:
    """As if so much time had passed that every lease of the tenant is over."""
    with as_system(SystemUse.RELEASE_RESERVATIONS), connection.cursor() as cursor:
        cursor.execute("UPDATE usage_reservation SET lease_until = now() - interval '1 second' WHERE tenant_id = %s", [tenant.id])
    reservations.sweep_reservations()


def fire(running: Platform, dice: random.Random, seconds: float) -> Counter[str]:
    """Kill parts at random for so long; what was killed how often."""
    killed: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(dice.uniform(0.3, 1.5))
        name = dice.choice(sorted(running.parts))
        running.kill(name)
        killed[name] += 1
    return killed
