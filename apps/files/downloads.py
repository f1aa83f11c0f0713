"""Sending the bytes of a file, or a part of them, in pieces large enough for the way through the web server to cost little."""

import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import orjson
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.http.request import HttpRequest
from django.http.response import HttpResponseBase

from maas import errors

PIECE = 2**18  # bytes; Django sends 4 KiB at a time, and each piece crosses from a thread to the event loop and back
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


class Download(FileResponse):
    """A whole file."""

    block_size = PIECE


def send_file(request: HttpRequest, file: Any, body: BinaryIO) -> HttpResponseBase:
    """A file to keep, whatever is in it: nothing of it may run in a browser. The answer closes `body`.

    A caller who lost the connection asks for the rest by `Range` (RFC 9110, section 14): one range is answered, anything else
    with the whole file. `If-Range` with the file's ETag is honoured.
    """
    wanted = _wanted(request, file)
    answer: HttpResponseBase
    if wanted is None:
        answer = Download(body, as_attachment=True, filename=file.filename, content_type="application/octet-stream")
    elif wanted.start < wanted.stop:
        answer = _part(file, body, wanted)
    else:
        body.close()
        answer = _beyond(request, file)
    answer["Accept-Ranges"], answer["X-Content-Type-Options"], answer["ETag"] = "bytes", "nosniff", etag(file)
    return answer


def etag(file: Any) -> str:
    """Names the bytes of a file."""
    return f'"{file.sha256}"'


def _wanted(request: HttpRequest, file: Any) -> range | None:
    """The bytes that are asked for: an empty range when there are none such, None for the whole file."""
    found = RANGE.fullmatch(request.headers.get("Range", "").strip())
    if not found or not (found[1] or found[2]) or request.headers.get("If-Range", etag(file)) != etag(file):
        return None
    if not found[1]:
        return range(max(file.bytes - int(found[2]), 0), file.bytes)  # the last so many
    first, last = int(found[1]), int(found[2] or max(file.bytes, int(found[1])))
    return range(min(first, file.bytes), min(last + 1, file.bytes)) if first <= last else None


def _part(file: Any, body: BinaryIO, wanted: range) -> StreamingHttpResponse:
    body.seek(wanted.start)
    answer = StreamingHttpResponse(_pieces(body, len(wanted)), status=206, content_type="application/octet-stream")
    answer._resource_closers.append(body.close)  # type: ignore[attr-defined]  # also when nothing of it is read
    answer["Content-Range"], answer["Content-Length"] = f"bytes {wanted.start}-{wanted.stop - 1}/{file.bytes}", str(len(wanted))
    return answer


def _beyond(request: HttpRequest, file: Any) -> HttpResponse:
    error = errors.BadRequest(
        f"The file has {file.bytes:,} bytes, and none of those that Range asks for.", param="Range", code="invalid_range"
    )
    told = orjson.dumps(error.body(request.request_id))  # type: ignore[attr-defined]
    return HttpResponse(told, status=416, content_type="application/json", headers={"Content-Range": f"bytes */{file.bytes}"})


def _pieces(body: BinaryIO, left: int) -> Iterator[bytes]:
    while left and (piece := body.read(min(PIECE, left))):
        left -= len(piece)
        yield piece
