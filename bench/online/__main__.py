"""How fast online inference is, beside other servers of the same model: python -m bench.online

Serves the same ONNX files and tokenizers from maas with everything on (keys, limits, reservation, ledger), from maas
without these, and from bare FastAPI, LitServe, BentoML and MLServer in environments of their own; compares their answers,
loads each with wrk in alternating rounds, and calibrates with raw ONNX Runtime before and after each round.
"""

import argparse
import json
import signal
import sys
from pathlib import Path

from bench.online import machine, page, rounds, summary, tuning
from bench.online.answers import Different, Refused
from bench.online.environments import InstallError
from bench.online.load import LoadError, find_wrk
from bench.online.subjects import NAMES, ROOT, catalogue, open_subjects

FOLDER = ROOT / ".maas" / "bench"


def main() -> int:
    """0 when all was measured; 1 with what went wrong."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that what was started is ended
    try:
        if options.page_from:
            return page.write(json.loads(options.page_from.read_text()), ROOT / "docs")
        find_wrk()
        plan = _plan(options)
        return tuning.tune(plan) if options.tune else _run(plan, options)
    except (LoadError, InstallError, Refused, Different) as error:
        print(error, file=sys.stderr)
        return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.online", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10, help="of one window")
    parser.add_argument("--warm", type=float, default=4, help="seconds of load before the first window of a server")
    parser.add_argument("--concurrency", type=_numbers, default=[1, 16, 64], help="such as 1,16,64")
    parser.add_argument("--servers", type=_words, default=list(rounds.SERVERS), help=f"of {','.join(rounds.SERVERS)}")
    parser.add_argument("--models", type=_words, default=list(NAMES), help=f"of {','.join(NAMES)}")
    parser.add_argument("--data", type=Path, help="a folder with ag-news-18k and squad, for more inputs than the models' own samples")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the inputs")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="environments, exports and the home of maas; kept between runs")
    parser.add_argument("--json", type=Path, help="where every figure goes; default FOLDER/online.json")
    parser.add_argument("--write-docs", action="store_true", help="write docs/performance.md and its plot from this run")
    parser.add_argument("--page-from", type=Path, help="write them from the figures of an earlier run, and measure nothing")
    parser.add_argument("--tune", action="store_true", help="try the settings of each peer for a short while and print what they gave")
    return parser.parse_args()


def _plan(options: argparse.Namespace) -> rounds.Plan:
    folder = options.folder.resolve()
    models, home = catalogue(folder / "models"), folder / "home"
    subjects = open_subjects(options.models, models, home / "cache" / "exports", options.data, options.seed)
    return rounds.Plan(
        subjects, options.servers, options.concurrency, options.rounds, options.seconds, options.warm, folder, home, models
    )  # fmt: skip


def _run(plan: rounds.Plan, options: argparse.Namespace) -> int:
    figures = rounds.run(plan, lambda line: print(line, flush=True))
    found = summary.summarise(figures)
    everything = summary.as_json(figures, found, machine.describe(plan))
    path = options.json or plan.cache / "online.json"
    path.write_text(json.dumps(everything, indent=1) + "\n")
    print(summary.table(found), f"\nEvery figure is in {path}.", sep="\n")
    for what, value, wanted, reached in everything["targets"]:
        print(f"  {'reached' if reached else 'MISSED '}  {what}: {value:.2f} ({wanted})")
    return page.write(json.loads(path.read_text()), ROOT / "docs") if options.write_docs else 0


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _numbers(text: str) -> list[int]:
    return [int(word) for word in _words(text)]


if __name__ == "__main__":
    sys.exit(main())
