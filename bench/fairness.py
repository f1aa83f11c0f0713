"""What a flood of one organisation does to the others: python -m bench.fairness

Real tenants, the real queue, a real online server that charges every batch. For a tiny picture model and a MiniLM encoder:

1. one full batch's time, by what the server finishes under a flood, and the quiet tenant's p95 without one;
2. the quiet tenant's p95 beside a tenant that keeps 400 calls open: at most two full batches and its own;
3. a tenant that asks for half beside that flood: its share is at least 45%;
4. three floods of weight 1, 2 and 4: their shares are 1/7, 2/7 and 4/7, each within a tenth of itself.

Options: --seconds N (of each part) --models tiny,minilm. Fails when a promise is not kept.
"""

import argparse
import os
from typing import Any

from django.conf import settings

import tests.conftest  # noqa: F401  # starts the servers that the imports below need
from apps.catalog import shipping
from apps.catalog.services import Version
from maas import pictures
from tests.conftest import HOME, ROOT
from tests.fairness import Flow, flow, online_server, run_together
from tests.tiny import NAME, load_tiny, picture

FLOOD = 400  # calls that a flooding tenant keeps open
HALF = settings.MAAS_BATCH_LIMIT * settings.MAAS_RUNNERS  # of one that wants half: so half of every batch can be its own
WEIGHTS = (1, 2, 4)
MILLISECONDS = {"full batch", "p95 alone", "p95 beside a flood", "bound"}


def models() -> dict[str, tuple[Version, Any]]:
    """The models and one input of each."""
    minilm = shipping.load_model(ROOT / "models" / "minilm-embed")[0]
    text = "The pump sits behind the left panel and is cooled by water from the tank above it. " * 2
    return {"tiny": (load_tiny(HOME / "catalogue" / NAME), pictures.decode(picture())), "minilm": (minilm, text)}


def p95(values: list[float]) -> float:
    return values[min(int(len(values) * 0.95), len(values) - 1)]


def measure(version: Version, value: Any, seconds: float) -> dict[str, float]:
    """The figures of one model; times in milliseconds."""
    quiet = flow("quiet", version, [value], pause=0.02)
    since, until = run_together([quiet], seconds)
    alone = p95(quiet.latencies(since, until))
    quiet = flow("quiet", version, [value], pause=0.02)
    loud = flow("loud", version, [value], open_calls=FLOOD)
    since, until = run_together([quiet, loud], seconds)
    beside = p95(quiet.latencies(since, until))
    rate = (len(loud.latencies(since, until)) + len(quiet.latencies(since, until))) / (until - since)
    batch = settings.MAAS_BATCH_LIMIT * settings.MAAS_RUNNERS / rate
    seconds = max(seconds, 20 * batch)  # shares mean something over many batches
    half, loud = flow("half", version, [value], open_calls=HALF), flow("loud", version, [value], open_calls=FLOOD)
    shares = shares_of([half, loud], seconds)
    weighted = [flow(f"weight{weight}", version, [value], open_calls=120, weight=weight) for weight in WEIGHTS]
    by_weight = shares_of(weighted, seconds)
    return {
        "calls a second": rate, "full batch": batch * 1000, "p95 alone": alone * 1000, "p95 beside a flood": beside * 1000,
        "bound": (2 * batch + alone) * 1000, "share of half": shares[0],
        **{f"share of weight {weight}": share for weight, share in zip(WEIGHTS, by_weight, strict=True)},
    }  # fmt: skip


def shares_of(flows: list[Flow], seconds: float) -> list[float]:
    """What part of all answers each tenant got while all of them were asking."""
    since, until = run_together(flows, seconds)
    counts = [len(one.latencies(since, until)) for one in flows]
    return [count / sum(counts) for count in counts]


def check(found: dict[str, float]) -> list[str]:
    """Promises that were not kept."""
    broken = []
    if found["p95 beside a flood"] > found["bound"]:
        broken.append("the quiet tenant waits for more than two full batches and its own time")
    if found["share of half"] < 0.45:
        broken.append("a tenant that asks for half gets less than 45%")
    broken += [f"weight {w} does not get {w}/7" for w in WEIGHTS if abs(found[f"share of weight {w}"] * 7 / w - 1) > 0.1]
    return broken


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.fairness", description=__doc__)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--models", default="tiny,minilm")
    options = parser.parse_args()
    chosen, broken = models(), []
    with online_server():
        print(f"{os.cpu_count()} cores, {settings.MAAS_RUNNERS} runners, batches of {settings.MAAS_BATCH_LIMIT}")
        for name in options.models.split(","):
            found = measure(*chosen[name], options.seconds)
            print(f"\n{name}")
            for what, figure in found.items():
                print(f"  {what:<22}{figure:>10.3f}" + (" ms" if what in MILLISECONDS else ""))
            broken += [f"{name}: {text}" for text in check(found)]
    if broken:
        raise SystemExit("\n".join(broken))


if __name__ == "__main__":
    main()
