"""500 events to a receiver that is killed and restarted at random, by a worker that is too: python -m bench.webhook_faults

Options: --events N --receiver-kills N --worker-kills N --seed N. Prints the figures; fails when an event is missing or a
repeat differs.
"""

import argparse

import tests.conftest  # noqa: F401  # starts the servers that the imports below need
from tests.cast import make_cast
from tests.webhook_faults import drain, run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.webhook_faults", description=__doc__)
    for name, default in (("events", 500), ("receiver-kills", 20), ("worker-kills", 8), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    drain()
    report = run(make_cast().tenant, **vars(options))
    print(", ".join(f"{name} {value:.1f}" if isinstance(value, float) else f"{name} {value}" for name, value in vars(report).items()))


if __name__ == "__main__":
    main()
