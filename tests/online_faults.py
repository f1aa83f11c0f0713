"""Online servers that are killed under load, and what each caller saw of it.

Used by tests/test_online_faults.py in short and by `python -m bench.online_faults` in full.
"""

import asyncio
import json
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.books import audit_books
from tests.cast import Key, make_key, make_tenant, make_user
from tests.fire import Outcome, Platform, charged, end_leases, read_answer
from tests.tiny import NAME, picture

SERVERS = ("online-1", "online-2")


@dataclass
class Report:
    """What came of a run: calls by status and code, the latest answer after its deadline in seconds, how often calls were
    put back in line, and calls that were charged and not answered, or answered and not charged."""

    seconds: float = 0.0
    kills: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    latest: float = float("-inf")
    put_back: int = 0
    unanswered: int = 0
    uncharged: int = 0
    reserved: int = 0


async def call_for(port: int, secret: str, *, seconds: float, callers: int, deadline: float) -> list[tuple[Outcome, float]]:
    """So many callers, each with one call after another; every outcome and the seconds until it was there."""
    end = time.monotonic() + seconds

    async def caller() -> list[tuple[Outcome, float]]:
        found = []
        while time.monotonic() < end:
            begun = time.monotonic()
            outcome = await _call(port, secret, deadline)
            found.append((outcome, time.monotonic() - begun))
            if outcome.status != 200:
                await asyncio.sleep(0.05)
        return found

    return [one for mine in await asyncio.gather(*(caller() for _ in range(callers))) for one in mine]


async def _call(port: int, secret: str, deadline: float) -> Outcome:
    body = json.dumps({"model": NAME, "inputs": picture()}).encode()
    head = (
        f"POST /v1/predictions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {secret}\r\n"
        f"X-Deadline-Ms: {deadline * 1000:.0f}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode() + body)
        answer = await asyncio.wait_for(reader.read(), deadline + 60)
        writer.close()
        return read_answer(answer)
    except (TimeoutError, OSError):
        return Outcome(0)


def kill_servers(running: Platform, dice: random.Random, seconds: float) -> int:
    """Kill a server at random moments, now and then both at once; how many."""
    kills, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(dice.uniform(1.0, 4.0))
        for name in SERVERS if dice.random() < 0.25 else (dice.choice(SERVERS),):
            running.kill(name)
            kills += 1
    return kills


def run(running: Platform, *, seconds: float, seed: int, callers: int = 24, deadline: float = 8.0) -> Report:
    """Calls for so long while servers are killed, and whether the ledger is what was answered."""
    key = _key()
    before = _put_back(running)
    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(asyncio.run, call_for(running.port, key.secret, seconds=seconds, callers=callers, deadline=deadline))
        kills = kill_servers(running, random.Random(seed), seconds)
        outcomes = calling.result()
    running.wait_until_ready()
    answered = {one.prediction for one, _ in outcomes if one.status == 200}
    mine = charged(key.row.tenant)
    end_leases(key.row.tenant)
    return Report(
        seconds, kills, Counter(f"{one.status} {one.code or ''}".strip() for one, _ in outcomes),
        max(took - deadline for _, took in outcomes),
        _put_back(running) - before, len(mine.keys() - answered), len(answered - mine.keys()), audit_books(key.row.tenant)["reserved"],
    )  # fmt: skip


def _key() -> Key:
    return make_key(make_tenant(make_user("faults"), "faults"))


def _put_back(running: Platform) -> int:
    """How often a server found another one dead, by the logs."""
    return sum(running.parts[name].log.read_text(errors="replace").count("are in line again") for name in SERVERS)
