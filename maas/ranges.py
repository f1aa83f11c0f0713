"""Reading something far away as a file: in ranges of bytes, of which one is held at a time."""

import io
from collections.abc import Callable
from typing import Any

FIRST, LARGEST = 2**18, 2**23  # bytes of a range
BUFFER = 2**16  # bytes


def open_ranges(fetch: Callable[[int, int], bytes], size: int) -> io.BufferedReader:
    """A file of `size` bytes for reading and seeking; `fetch` gives the bytes from a start up to a stop."""
    return io.BufferedReader(Ranges(fetch, size), BUFFER)


class Ranges(io.RawIOBase):
    """The ranges double in size while they are read one after the other: a few lines cost little, a whole file few requests."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch, self._size = fetch, size
        self._at = 0
        self._start, self._block = 0, b""
        self._window = FIRST // 2

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("A file has no bytes before its first one.")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        if not self._start <= self._at < self._start + len(self._block):
            self._load()
        piece = memoryview(self._block)[self._at - self._start :][: len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def _load(self) -> None:
        goes_on = self._at == self._start + len(self._block)
        self._window = min(2 * self._window, LARGEST) if goes_on else FIRST
        self._start, self._block = self._at, b""  # the range before is let go first
        if self._at < self._size:
            self._block = self._fetch(self._at, min(self._at + self._window, self._size))
