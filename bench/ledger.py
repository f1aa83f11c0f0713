"""Questions to a large ledger and how long they take: python -m bench.ledger --rows 10000000

Fills an embedded PostgreSQL of its own, asks what the usage page and /v1/usage ask for the largest and the smallest
tenant, then archives the oldest month. Options: --rows N --tenants N --times N. Fails when a p95 is over the limit.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.utils import timezone

import tests.conftest  # noqa: F401  # starts the servers that the imports below need
from apps.usage.archiving import archive_month
from apps.usage.periods import month_after, month_of
from apps.usage.reconciling import differences
from apps.usage.rollups import roll_up
from tests.ledger_load import Load, analyze, fill, percentiles, questions, settle_rate

LIMIT = 200.0  # milliseconds at p95


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.ledger", description=__doc__)
    for name, default in (("rows", 10_000_000), ("tenants", 300), ("times", 40)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    load = fill(options.rows, tenants=options.tenants)
    print(f"inserted {load.lines:,} lines of {options.tenants} tenants, {load.lines / load.insert_seconds:,.0f} a second", flush=True)
    print(f"rolled up in {load.roll_up_seconds:.0f} s, {load.lines / load.roll_up_seconds:,.0f} lines a second", flush=True)
    analyze()
    print(f"charged one after another in batches of 32: {settle_rate(load.tenants[0], 100):,.0f} calls/s")
    timed("next roll-up", roll_up)
    slow = ask(load, options.times)
    print(f"roll-ups differ from the ledger in {timed('reconcile', lambda: len(list(differences())))} lines")
    oldest = month_after(month_of(timezone.now()), -2)
    with tempfile.TemporaryDirectory() as folder:
        archive = timed("archive and drop", lambda: archive_month(oldest, Path(folder)))
        print(f"archived {archive.lines:,} lines of {oldest:%Y-%m} in {Path(archive.file).stat().st_size / 1e6:.0f} MB")
    raise SystemExit(f"{slow} questions are over the limit." if slow else 0)


def timed(what: str, work: Callable[[], Any]) -> Any:
    begun = time.monotonic()
    result = work()
    print(f"{what}: {time.monotonic() - begun:.2f} s", flush=True)
    return result


def ask(load: Load, times: int) -> int:
    """Print the percentiles of every question; how many are over the limit."""
    slow = 0
    for size, tenant in (("large", load.tenants[0]), ("small", load.tenants[-1])):
        for name, question in questions(tenant):
            taken = percentiles(question, times)
            slow += taken.p95 > LIMIT
            print(f"{size} tenant, {name:34} p50 {taken.p50:7.1f} ms  p95 {taken.p95:7.1f} ms  limit {LIMIT:.0f} ms", flush=True)
    return slow


if __name__ == "__main__":
    main()
