"""Batches under fire, then every line, file and unit compared: python -m bench.batch_faults --n 200 --seed 0

Rounds of ten faults in the middle of running batches of three organisations: workers are killed (SIGKILL), drained (SIGTERM)
and stopped until their slice is another's (SIGSTOP, SIGCONT); PostgreSQL crashes, Redis is emptied, beat is killed, messages
come again, batches are cancelled. Prints a line a round; exits 1 when a promise was not kept, with how to run that round again.
"""

import argparse
import sys
import time

import tests.conftest  # noqa: F401  # starts the servers that the imports below need
from tests.batch_faults import run
from tests.batch_parts import batch_parts


def main() -> int:
    """0 when every round was whole."""
    parser = argparse.ArgumentParser(prog="python -m bench.batch_faults", description=__doc__)
    parser.add_argument("--n", type=int, default=200, help="faults")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; the others count up from it")
    options, begun = parser.parse_args(), time.monotonic()
    reports = []
    with batch_parts() as running:
        for report in run(running, faults=options.n, seed=options.seed):
            reports.append(report)
            print(report, *report.wrong, sep="\n  ", flush=True)
    wrong = [report.seed for report in reports if report.wrong]
    faults, lines = sum(report.faults.total() for report in reports), sum(report.lines for report in reports)
    print(f"{faults} faults, {lines:,} lines, {len(wrong)} of {len(reports)} rounds wrong, {time.monotonic() - begun:.0f} s")
    for seed in wrong:
        print(f"Run it again: python -m bench.batch_faults --n 10 --seed {seed}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
