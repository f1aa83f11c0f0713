"""The two forms of an export. Both carry each entry's text as it is hashed, so that both can be verified offline."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from maas.verify_export import START

COLUMNS = (
    "seq", "at", "actor", "actor_kind", "actor_id", "role", "action", "target", "label", "address", "result", "request_id",
    "before", "after", "previous", "hash", "body",
)  # fmt: skip
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what makes a spreadsheet run a cell instead of showing it


def json_lines(chunks: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    """`{"seq", "previous", "hash", "body"}` a line; the body is a text that holds JSON."""
    for entries in chunks:
        rows = ({"seq": entry.seq, **_hashes(entry), "body": entry.body} for entry in entries)
        yield "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows).encode()


def csv_rows(chunks: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    """One column a field, the same ones at the end."""
    yield (",".join(COLUMNS) + "\n").encode()
    for entries in chunks:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([_cells(entry) for entry in entries])
        yield text.getvalue().encode()


FORMS: dict[str, Callable[[Iterable[Sequence[Any]]], Iterator[bytes]]] = {"jsonl": json_lines, "csv": csv_rows}


def _hashes(entry: Any) -> dict[str, str | None]:
    """In hex; nothing before the oldest entry that is kept, and zeros before the first one of all."""
    previous = START if entry.seq == 1 else entry.previous
    return {"previous": bytes(previous).hex() if previous is not None else None, "hash": bytes(entry.hash).hex()}


def _cells(entry: Any) -> list[Any]:
    said = json.loads(entry.body)
    actor = said["actor"]
    row = {
        **said, "seq": entry.seq, "at": datetime.fromtimestamp(said["at"] / 1000, UTC).isoformat(timespec="milliseconds"),
        "actor": actor["name"], "actor_kind": actor["kind"], "actor_id": actor["id"], "role": actor["role"],
        "before": _json(said["before"]), "after": _json(said["after"]), **_hashes(entry), "body": entry.body,
    }  # fmt: skip
    return [_harmless(row[name]) for name in COLUMNS]


def _json(value: Any) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _harmless(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula gets an apostrophe; the body starts with a brace and stays as it is."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
