"""Running a slice in a process of its own, which may die of it.

The process is started anew, never forked: a fork would share the state of the device and of the runtime's threads.
"""

import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from uuid import UUID

import orjson
import structlog

from apps.jobs import holders, slices
from workers.batch.leases import Lease

log = structlog.get_logger(__name__)
ROOT = Path(__file__).resolve().parent.parent.parent
BEGUN = b"begun\n"
ASKED_TO_END = {-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP}


def run_apart(claim: slices.Claim) -> None:
    """Run a slice in another process, and say so if that ends without a word. One that did not even begin blames nobody."""
    with Lease(lambda: slices.renew_slice(claim)):
        ended = _run(claim)
    if ended.returncode == 0:
        return
    if not ended.stdout.startswith(BEGUN) or ended.returncode in ASKED_TO_END or holders.is_leaving():
        log.error("a slice could not be tried apart", job_id=str(claim.job_id), slice=claim.number, code=ended.returncode)
        slices.give_back(claim, counts=False)
    else:
        log.warning("a slice ended the process that ran it", job_id=str(claim.job_id), slice=claim.number, code=ended.returncode)
        slices.note_death(claim)


def _run(claim: slices.Claim) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "workers.batch", orjson.dumps(asdict(claim)).decode()]
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, check=False)


def read_claim(text: str) -> slices.Claim:
    """The claim that `run_apart` gave."""
    given = orjson.loads(text)
    for name in ("id", "tenant_id", "job_id", "key_id"):
        given[name] = given[name] and UUID(given[name])
    return slices.Claim(**{**given, "repeats": tuple(given["repeats"])})
