"""Check an export of the audit log with nothing but Python: `python -m maas.verify_export FILE`.

This one file is all it takes: it can be copied to wherever the export is kept. JSON lines and CSV are both read.
"""

import csv
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

START = bytes(32)  # what stands for the hash before the first entry


class Line(NamedTuple):
    """An entry of an export. `previous` is the hash of the entry before it, or None where that one is no longer kept."""

    seq: int
    previous: bytes | None
    hash: bytes
    body: str


def link(previous: bytes, seq: int, body: str) -> bytes:
    """The hash of an entry: SHA-256 of the hash before it (32 bytes), its number (8 bytes, big-endian) and its text (UTF-8)."""
    return hashlib.sha256(previous + seq.to_bytes(8, "big", signed=True) + body.encode()).digest()


def read_lines(path: Path) -> Iterator[Line]:
    """The entries of a file, one at a time. Raises ValueError for a line that is none."""
    csv.field_size_limit(2**27)
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file) if path.suffix == ".csv" else map(json.loads, file)
        if isinstance(rows, csv.DictReader) and "body" not in (rows.fieldnames or ()):
            raise ValueError("The first row does not name the columns of an audit log.")
        for number, row in enumerate(rows, 1):
            try:
                yield Line(int(row["seq"]), _hash(row["previous"]), bytes.fromhex(row["hash"]), row["body"])
            except (KeyError, TypeError, ValueError):
                raise ValueError(f"Row {number} is not an entry of an audit log.") from None


def _hash(text: str | None) -> bytes | None:
    return bytes.fromhex(text) if text else None


def find_problems(lines: Iterator[Line]) -> Iterator[str]:
    """A sentence for every entry that was changed. Entries that filters left out are no problem: each one is checked alone."""
    before: Line | None = None
    for line in lines:
        if before and line.seq <= before.seq:
            yield f"Entry {line.seq} stands after entry {before.seq}."
        elif before and line.seq == before.seq + 1 and line.previous != before.hash:
            yield f"Entry {line.seq} does not follow from entry {before.seq}."
        if line.seq == 1 and line.previous != START:
            yield "Entry 1 does not begin the log."
        if line.previous is None and before:
            yield f"Entry {line.seq} does not name the entry before it."
        if line.previous is not None and link(line.previous, line.seq, line.body) != line.hash:
            yield f"Entry {line.seq} was changed: its text does not give its hash."
        before = line


def main(path: Path) -> int:
    """Print what was found; 0 when every entry is as it was written, else 1."""
    count, last, gaps = 0, "", 0

    def counted() -> Iterator[Line]:
        nonlocal count, last, gaps
        seen = None
        for line in read_lines(path):
            gaps += seen is not None and line.seq != seen + 1
            count, seen, last = count + 1, line.seq, f"{line.seq} ({line.hash.hex()})"
            yield line

    try:
        problems = list(find_problems(counted()))
    except (ValueError, OSError) as error:
        problems = [str(error)]
    for problem in problems:
        sys.stdout.write(problem + "\n")
    if problems:
        sys.stdout.write(f"{path.name} is not what was exported.\n")
        return 1
    whole = "without a gap" if not gaps else f"with gaps in {gaps} places where filters left entries out"
    sys.stdout.write(f"{count} entries are as they were written, {whole}. The last one is {last or 'none'}.\n")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Usage: python -m maas.verify_export FILE")
    sys.exit(main(Path(sys.argv[1])))
