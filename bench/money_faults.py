"""Faults around a paying organisation, then every figure compared: python -m bench.money_faults

Kills web, online servers, workers and beat, empties Redis, lets Stripe fail, repeats and reorders its webhooks, tells usage
twice at once and changes the plan, while calls and batches run. Options: --faults N --seed N. Prints the figures; fails when
ledger, allowance, meter events and invoice are not the same to the unit and cent, or anything happened twice.
"""

import argparse

import tests.conftest  # noqa: F401  # starts the servers that the imports below need
from tests.money_faults import run
from tests.test_money_faults import turn


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.money_faults", description=__doc__)
    for name, default in (("faults", 500), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    report = run(faults=options.faults, seed=options.seed, after=turn)
    for name, value in vars(report).items():
        print(f"{name}: {dict(value) if isinstance(value, dict) else value}")


if __name__ == "__main__":
    main()
