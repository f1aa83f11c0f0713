"""What the largest batch costs in memory: python -m bench.batch_memory

Uploads a file of 50,000 lines, just below 200 MB, through the real web server, lets one worker check and run it and downloads
the answers. Prints the peaks of resident memory above what the processes had before; fails when the worker grows by more than
64 MB while it checks or 300 MB while it runs, or the web server by more than 64 MB. Options: --lines N --seed N.
"""

import argparse

import tests.conftest  # noqa: F401  # starts the servers that the imports below need
from tests.batch_sizes import MIB, measure, site

MOST = {"upload": 64, "check": 64, "run": 300, "download": 64}  # MiB


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.batch_memory", description=__doc__)
    for name, default in (("lines", 50_000), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with site() as where:
        found = measure(where, options.lines, seed=options.seed)
    print(f"{found.lines:,} lines, {found.file / MIB:.0f} MiB; an idle loaded worker has {found.idle_worker / MIB:.0f} MiB")
    for name, most in MOST.items():
        print(f"  {name:<9} +{getattr(found, name) / MIB:6.1f} MiB, of {most} allowed")
    if broken := [name for name, most in MOST.items() if getattr(found, name) > most * MIB]:
        raise SystemExit(f"too much memory: {', '.join(broken)}")


if __name__ == "__main__":
    main()
