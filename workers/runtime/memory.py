"""How much memory this process holds, and what a piece of work added to it."""

import ctypes
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Made = TypeVar("Made")
STATM = Path("/proc/self/statm")  # Linux: pages in all, resident, shared, ...
PAGE = resource.getpagesize()
TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
READINGS = 5  # runs of other threads come and go; the least of several readings is what stays


def grown(make: Callable[[], Made]) -> tuple[Made, int]:
    """What `make` returns, and the bytes by which this process is larger afterwards, at least 0.

    What `make` freed is given back to the system first. 0 where the system does not tell.
    """
    before = settled()
    made = make()
    return made, max(settled() - before, 0)


def settled() -> int:
    """Bytes of private resident memory after freed memory went back to the system: the least of a few readings."""
    give_back()
    return min(_resident() for _ in range(READINGS))


def _resident() -> int:
    """Resident bytes that are no pages of files; 0 where the system does not tell."""
    time.sleep(0.005)
    try:
        _, resident, shared, *_ = map(int, STATM.read_text().split())
    except OSError:
        return 0
    return (resident - shared) * PAGE


def give_back() -> None:
    """Return freed memory to the system, where the C library can."""
    if TRIM is not None:
        TRIM(0)
