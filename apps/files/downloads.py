"""Sending the bytes of a file, in pieces that are large enough for the way through the web server to cost little."""

from typing import Any, BinaryIO

from django.http import FileResponse


class Download(FileResponse):
    """Django sends 4 KiB at a time; each piece crosses from a thread to the event loop and back."""

    block_size = 2**18  # bytes


def send_file(file: Any, body: BinaryIO) -> FileResponse:
    """A file to keep, whatever is in it: nothing of it may run in a browser. The answer closes `body`."""
    answer = Download(body, as_attachment=True, filename=file.filename, content_type="application/octet-stream")
    answer["X-Content-Type-Options"] = "nosniff"
    return answer
