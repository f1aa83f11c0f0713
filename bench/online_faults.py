"""Online servers under fire: python -m bench.online_faults

Calls a tiny model through the whole product while its two online servers are killed with signal 9 at random, now and then both
at once. Prints what callers saw; fails when one waits past its deadline, hears anything but an answer, 503 or 504, or when the
ledger is not exactly what was answered. Options: --seconds N --callers N --deadline SECONDS --seed N.
"""

import argparse
import json

import tests.conftest  # noqa: F401  # starts the servers that the imports below need
from tests.fire import platform
from tests.online_faults import Report, run

LATE = 1.0  # seconds after the deadline
HEARD = {"200", "503 unavailable", "503 queue_full", "504 deadline_exceeded"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.online_faults", description=__doc__)
    for name, default in (("seconds", 60.0), ("callers", 24), ("deadline", 8.0), ("seed", 0)):
        parser.add_argument(f"--{name}", type=type(default), default=default)
    options = parser.parse_args()
    with platform() as running:
        report = run(running, seconds=options.seconds, seed=options.seed, callers=options.callers, deadline=options.deadline)
    print(json.dumps(vars(report), indent=2))
    check(report)


def check(report: Report) -> None:
    """AssertionError for a promise that was not kept."""
    assert set(report.outcomes) <= HEARD, report.outcomes
    assert report.latest <= LATE, f"a caller heard {report.latest:.2f} s after its deadline"
    assert (report.unanswered, report.uncharged, report.reserved) == (0, 0, 0), report
    print("every caller heard in time, and the ledger is what was answered")


if __name__ == "__main__":
    main()
