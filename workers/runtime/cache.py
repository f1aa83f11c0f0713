"""Folders that are made once by whichever process comes first, whole or not at all."""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def key(*facts: object) -> str:
    """A folder name for everything that the content depends on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def made_once(target: Path, make: Callable[[Path], None]) -> Path:
    """`target`, filled by `make(new folder)` if it is not there yet; other processes wait meanwhile.

    What `make` raises goes to the caller, and nothing is left behind.
    """
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_name(f".{target.name}.lock")):
        if not target.is_dir():
            _fill(target, make)
    return target


def _fill(target: Path, make: Callable[[Path], None]) -> None:
    new = Path(tempfile.mkdtemp(dir=target.parent, prefix=".new-"))
    try:
        make(new)
        new.chmod(0o755)
        new.rename(target)
    finally:
        shutil.rmtree(new, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock goes with the process that holds it, however that ends."""
    held = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)
