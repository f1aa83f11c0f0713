"""Running a slice in a process of its own, which may die of it.

The process is started anew, never forked: a fork would share the state of the device and of the runtime's threads.
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from uuid import UUID

import orjson
import structlog

from apps.jobs import holders, slices
from workers.batch import running
from workers.batch.leases import Lease

log = structlog.get_logger(__name__)
ROOT = Path(__file__).resolve().parent.parent.parent
BEGUN = b"begun "  # and the claim, on a line of the process's output
TURN_SECONDS = 2.0
ASKED_TO_END = {-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP}


def run_apart(claim: slices.Claim) -> None:
    """Run a slice in another process, and say so if that ends without a word. One that did not even begin blames nobody.

    The process goes on with other slices of the job that are under suspicion, so it may be one of them that ended it.
    """
    with Lease(lambda: slices.renew_slice(claim)):
        ended = _run(claim)
    if ended.returncode == 0:
        return
    begun = [line for line in ended.stdout.splitlines() if line.startswith(BEGUN)]
    last = read_claim(begun[-1].removeprefix(BEGUN)) if begun else claim
    if not begun or ended.returncode in ASKED_TO_END or holders.is_leaving():
        log.error("a slice could not be tried apart", job_id=str(last.job_id), slice=last.number, code=ended.returncode)
        slices.give_back(last, counts=False)
    else:
        log.warning("a slice ended the process that ran it", job_id=str(last.job_id), slice=last.number, code=ended.returncode)
        slices.note_death(last)


def _run(claim: slices.Claim) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "workers.batch", write_claim(claim).decode(), holders.my_node()]
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, check=False)


def write_claim(claim: slices.Claim) -> bytes:
    """A claim for another process, on one line."""
    return orjson.dumps(asdict(claim))


def read_claim(text: bytes | str) -> slices.Claim:
    """The claim that another process wrote."""
    given = orjson.loads(text)
    for name in ("id", "tenant_id", "job_id", "key_id"):
        given[name] = given[name] and UUID(given[name])
    return slices.Claim(**{**given, "repeats": tuple(given["repeats"])})


def try_all(claim: slices.Claim) -> None:
    """In the process apart: run a slice and, for a turn, the others of its job under suspicion. Says which one it begins."""
    left: slices.Claim | None = claim
    end = time.monotonic() + TURN_SECONDS
    while left:
        os.write(sys.stdout.fileno(), BEGUN + write_claim(left) + b"\n")
        running.run_slice(left)
        left = slices.claim_slice(suspects_of=claim.job_id) if time.monotonic() < end else None
