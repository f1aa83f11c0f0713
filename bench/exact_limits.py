"""Limits under fire: python -m bench.exact_limits

Makes 1,000 calls at once on a credit for 100, 20 times, and then calls a larger credit empty while web and online processes
are killed with signal 9 at random. Options: --runs N --seconds N (of killing) --seed N. Prints the figures; fails when a unit
too many is charged, one is lost, or the books are not the ledger.
"""

import argparse
import random
import statistics
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import tests.conftest  # noqa: F401  # starts the servers that the imports below need
from tests.fire import UNITS, Platform, call_all, charged, end_leases, fire, platform
from tests.test_exact_limits import books, drain, limited


def hundred(running: Platform) -> float:
    """One run of 1,000 calls on a credit for 100; its seconds."""
    key, begun = limited(100 * UNITS), time.monotonic()
    outcomes = call_all(running.port, key.secret, 1_000, at_once=1_000)
    seconds = time.monotonic() - begun
    assert Counter(each.status for each in outcomes) == {200: 100, 402: 900}, Counter(each.status for each in outcomes)
    assert len(charged(key.row.tenant)) == 100
    assert books(key) == {"used": 100 * UNITS, "reserved": 0}
    return seconds


def killed(running: Platform, seconds: float, seed: int) -> dict[str, object]:
    """Calls for so long while parts are killed; then the rest of the limit is used up and compared."""
    key, most = limited(45_000), 45_000
    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(call_all, running.port, key.secret, int(seconds * 250), at_once=48)
        kills = fire(running, random.Random(seed), seconds)
        outcomes = calling.result()
    running.wait_until_ready()
    end_leases(key.row.tenant)
    middle = sum(charged(key.row.tenant).values())
    outcomes += drain(running, key, seconds=300)
    found = books(key)
    answered = {each.prediction for each in outcomes if each.status == 200}
    assert answered <= charged(key.row.tenant).keys()
    assert middle <= most and found == {"used": most, "reserved": 0}, (middle, found)
    return {"kills": sum(kills.values()), "units in the fire": middle, "units in the end": found["used"], "limit": most,
            "calls answered": len(answered), "connections broken": sum(each.status == 0 for each in outcomes)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.exact_limits", description=__doc__)
    for name, default in (("runs", 20), ("seconds", 60), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with platform() as running:
        times = [hundred(running) for _ in range(options.runs)]
        print(f"1,000 calls at once on a credit for 100: {len(times)} runs, each 100 answered and 900 refused; "
              f"median {statistics.median(times):.1f} s")  # fmt: skip
        print(killed(running, options.seconds, options.seed))


if __name__ == "__main__":
    main()
