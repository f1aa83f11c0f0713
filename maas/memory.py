"""The resident memory of the whole running system: `python -m maas.memory`.

RSS counts pages that processes share once for each of them; PSS divides them, so its sum is what the system takes.
"""

import json
import os
import sys
from pathlib import Path

import psutil

from maas.product import ROOT
from maas.terminal import say, table

MEBIBYTE = 2**20


def main() -> int:
    """Print a row for each part and the total; 1 if nothing runs."""
    home = Path(os.environ.get("MAAS_HOME", ROOT / ".maas")).resolve()
    try:
        supervisor = psutil.Process(json.loads((home / "run" / "state.json").read_text())["pid"])
    except (OSError, ValueError, psutil.NoSuchProcess):
        say(f"maas does not run on {home}.")
        return 1
    rows = measure(supervisor, home)
    say(table(["part", "processes", "RSS MiB", "PSS MiB"], [*rows, _total(rows)]))
    return 0


def measure(supervisor: psutil.Process, home: Path) -> list[list[object]]:
    """A row for the supervisor and for each of its children: name, processes, RSS and PSS in MiB."""
    names = {_pid(path): path.stem for path in (home / "run").glob("*.pid")}
    rows = [_row("supervisor", [supervisor])]
    for child in supervisor.children():
        rows.append(_row(names.get(child.pid, child.name()), [child, *child.children(recursive=True)]))
    return rows


def _row(name: str, family: list[psutil.Process]) -> list[object]:
    sizes = [process.memory_full_info() for process in family if process.is_running()]
    return [name, len(sizes), sum(size.rss for size in sizes) // MEBIBYTE, sum(size.pss for size in sizes) // MEBIBYTE]


def _total(rows: list[list[object]]) -> list[object]:
    return ["total", *(sum(int(str(row[index])) for row in rows) for index in (1, 2, 3))]


def _pid(path: Path) -> int:
    return int(path.read_text().split()[0])


if __name__ == "__main__":
    sys.exit(main())
