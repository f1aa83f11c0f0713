"""Who gets how much of the batch workers: python -m bench.batch_shares

1. 100 batches of ten organisations whose plans weigh 1, 2 and 4: when half of all lines are done, each one's share is within
   a tenth of its weight;
2. batches of ten lines that come while another organisation has 50,000 waiting: done after at most two further slices a worker.

Options: --batches N (of each organisation) --lines N (of a batch, times the weight) --waiting N --workers N.
Fails when a promise is not kept.
"""

import argparse

import tests.conftest  # noqa: F401  # starts the servers that the imports below need
from tests.batch_shares import measure_shares, measure_wait


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.batch_shares", description=__doc__)
    for name, default in (("batches", 10), ("lines", 120), ("waiting", 50_000), ("workers", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options, broken = parser.parse_args(), []
    for share in measure_shares(batches=options.batches, lines=options.lines, workers=options.workers):
        print(f"  {share.plan:<6} weight {share.weight}: {share.done:>6,} lines, {share.part:.4f} of all, by weight {share.wanted:.4f}")
        broken += [] if share.is_fair else [f"an organisation on {share.plan} had {share.part / share.wanted:.2f} of its share"]
    for wait in measure_wait(waiting=options.waiting, workers=options.workers, times=5):
        print(f"  ten lines behind {options.waiting:,}: {wait.slices} slices of the others ended meanwhile, {wait.seconds:.1f} s")
        broken += [] if wait.slices <= wait.most else [f"ten lines waited for {wait.slices} slices, not {wait.most}"]
    if broken:
        raise SystemExit("\n".join(broken))


if __name__ == "__main__":
    main()
