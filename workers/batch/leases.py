"""Keeping what was claimed while working on it."""

import threading
import time
from collections.abc import Callable
from types import TracebackType

import structlog
from django.db import Error, connection

from apps.jobs import holders

log = structlog.get_logger(__name__)
RENEW_SECONDS = 5.0  # a third of a lease: two renewals may fail before another worker takes over
LOOK_SECONDS = 0.5  # between looks at whether this process was asked to stop


class Lease:
    """Renews a claim from a thread for as long as the block runs. `lost` says that another worker has it by now."""

    def __init__(self, renew: Callable[[], bool]) -> None:
        self.renew = renew
        self.lost = False
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Lease":
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.done.set()
        self.thread.join()

    def _run(self) -> None:
        try:
            while not self.lost and not self._is_done():
                self._renew()
        finally:
            connection.close()  # this thread's own

    def _is_done(self) -> bool:
        """Wait until it is time to renew: at once when the process was asked to stop meanwhile, so that the row knows."""
        until, was_leaving = time.monotonic() + RENEW_SECONDS, holders.is_leaving()
        while time.monotonic() < until and holders.is_leaving() == was_leaving:
            if self.done.wait(LOOK_SECONDS):
                return True
        return self.done.is_set()

    def _renew(self) -> None:
        try:
            self.lost = not self.renew()
        except Error as error:
            log.warning("a lease could not be renewed", error=str(error))
            connection.close()
