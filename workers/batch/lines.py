"""The lines of a batch's files: reading them, what is wrong with one, and the lines of output and error files."""

import json
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO
from uuid import UUID, uuid5

import orjson

from maas import errors, ids

LINE_BYTES = 2**20
LINE_COUNT = 50_000
CUSTOM_ID_LENGTH = 512  # characters
FIELDS = ("custom_id", "method", "url", "body")
BOM = b"\xef\xbb\xbf"
REPEATED = "duplicate_custom_id"


class LineError(Exception):
    """What is wrong with a line, in a form that programs can read."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param

    def told(self, number: int | None) -> dict[str, Any]:
        """The error of a line as batches list it."""
        return {"code": self.code, "line": number, "message": self.message, "param": self.param}


def repeated(custom_id: str) -> LineError:
    """The error of a line whose custom_id stands on an earlier one."""
    return LineError(REPEATED, f"The custom_id {show(custom_id)} was used on a line before.", "custom_id")


@dataclass(frozen=True)
class Line:
    """One line of an input file: its number counted from 1, the byte at which it begins, its bytes cut off past the limit."""

    number: int
    start: int
    raw: bytes

    @property
    def is_blank(self) -> bool:
        return not self.raw.strip()


def read_lines(body: BinaryIO, *, number: int = 1, start: int = 0, count: int | None = None) -> Iterator[Line]:
    """The lines from the byte `start` on, blank ones included; at most `count`. Never holds more than one of them."""
    body.seek(start)
    while count is None or count > 0:
        raw = body.readline(LINE_BYTES + 2)
        if not raw:
            return
        length = len(raw)
        while not raw.endswith(b"\n") and (rest := body.readline(LINE_BYTES)):  # a line too long is passed by in pieces
            length += len(rest)
            if rest.endswith(b"\n"):
                break
        yield Line(number, start, raw.removeprefix(BOM) if start == 0 else raw)
        number, start, count = number + 1, start + length, None if count is None else count - 1


def read_row(line: Line, endpoint: str, repeats: Container[int] = ()) -> dict[str, Any]:
    """The request on a line, its `body` not looked at yet. `repeats` are numbers of lines whose custom_id was used before.

    Raises LineError with what fails a whole batch.
    """
    row = _parse(line.raw)
    for name in row:
        if name not in FIELDS:
            raise LineError("unknown_parameter", f"Unknown field {show(name)}. Known: {', '.join(FIELDS)}.", name[:100].replace("\0", ""))
    _check_custom_id(row)
    _check_constant(row, "method", "POST", "invalid_method")
    _check_constant(row, "url", endpoint, "invalid_url")
    if line.number in repeats:
        raise repeated(row["custom_id"])
    return row


def custom_id_of(line: Line) -> str | None:
    """The custom_id of a line that may be broken in any way, if it has one that can be read."""
    try:
        row = _parse(line.raw)
        _check_custom_id(row)
    except LineError:
        return None
    return str(row["custom_id"])


def _parse(raw: bytes) -> dict[str, Any]:
    if len(raw.rstrip(b"\r\n")) > LINE_BYTES:
        message = f"The line is longer than {LINE_BYTES:,} bytes. Refer to large pictures by the id of an uploaded file."
        raise LineError("line_too_long", message)
    try:
        row = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if not _is_utf8(raw):
            raise LineError("invalid_encoding", "The line is not UTF-8.") from None
        raise LineError("invalid_json_line", f"The line is not valid JSON: {error}.") from None
    if not isinstance(row, dict):
        raise LineError("invalid_json_line", "The line is not a JSON object.")
    return row


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_custom_id(row: dict[str, Any]) -> None:
    custom_id = _required(row, "custom_id")
    if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= CUSTOM_ID_LENGTH:
        raise LineError("invalid_custom_id", f"'custom_id' must be a text of 1 to {CUSTOM_ID_LENGTH} characters.", "custom_id")


def _check_constant(row: dict[str, Any], name: str, wanted: str, code: str) -> None:
    if _required(row, name) != wanted:
        raise LineError(code, f"'{name}' is {show(row[name])} and must be '{wanted}'.", name)


def _required(row: dict[str, Any], name: str) -> Any:
    if name not in row:
        raise LineError("missing_required_parameter", f"'{name}' is missing.", name)
    return row[name]


def show(value: Any) -> str:
    """A caller's value in a message: short, and with control characters spelled out."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:60] + "…"


# ---------- lines of output and error files ----------
def line_id(job_id: UUID, number: int) -> UUID:
    """The one identity of a line of a job: the same however often it is run."""
    return uuid5(job_id, str(number))


def answered(identity: UUID, custom_id: str, status: int, body: dict[str, Any]) -> bytes:
    """A line whose request was answered, with success or with an error."""
    response = {"status_code": status, "request_id": ids.encode(ids.REQUEST, identity), "body": body}
    return _dump(identity, custom_id, response, None)


def passed_by(job_id: UUID, line: Line, code: str, message: str) -> bytes:
    """A line that was never answered."""
    return _dump(line_id(job_id, line.number), custom_id_of(line), None, {"code": code, "message": message})


def unreadable(job_id: UUID, line: Line, error: LineError) -> bytes:
    """A line that is no request, told as a batch that fails of it would; its custom_id is null where it cannot be read."""
    return _dump(line_id(job_id, line.number), custom_id_of(line), None, error.told(line.number))


def refused(identity: UUID, custom_id: str, error: errors.MaasError) -> bytes:
    """A line whose request was refused: 400 whatever is wrong with its body, 500 when it was our fault."""
    status = 400 if error.status < 500 else error.status
    return answered(identity, custom_id, status, error.body(ids.encode(ids.REQUEST, identity)))


def _dump(identity: UUID, custom_id: str | None, response: Any, error: Any) -> bytes:
    row = {"id": ids.encode("batch_req_", identity), "custom_id": custom_id, "response": response, "error": error}
    return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
