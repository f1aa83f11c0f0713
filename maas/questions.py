"""Questions that are asked with every call: prepared once a connection, and past what Django does around a query.

The threads of a process share a few connections for them, the one used last first: a thread that waits for a model holds
none, and PostgreSQL serves ten busy connections with less work than a hundred idle ones.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Any

from django.db import InterfaceError, NotSupportedError, OperationalError, connection
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import RawCursor

Question = tuple[str, Sequence[Any]]
CONNECTIONS = 8  # of one process; more threads than that wait for each other, for less than a millisecond
PREPARE_AFTER = 1  # times that a question was asked


class _Shared:
    """The connections of one process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.turns = BoundedSemaphore(CONNECTIONS)
        self.idle: list[_Line] = []


class _Line:
    """One connection with its cursor, used by one thread at a time. A connection that died is made anew when it is used."""

    def __init__(self) -> None:
        self.wrapper: BaseDatabaseWrapper = connection.copy()
        self.wrapper.inc_thread_sharing()
        self.cursor: RawCursor[Any] | None = None

    def ask(self, question: Question) -> list[tuple[Any, ...]]:
        with self.wrapper.wrap_database_errors:
            return (self.cursor or self._open()).execute(*question).fetchall()

    def _open(self) -> RawCursor[Any]:
        self.wrapper.ensure_connection()
        self.cursor = prepared_cursor(self.wrapper)
        return self.cursor

    def close(self) -> None:
        self.cursor = None
        self.wrapper.close()


_shared = _Shared()


def ask(question: Question) -> list[tuple[Any, ...]]:
    """The rows that answer a question which changes nothing; its parameters stand as $1, $2 in its SQL.

    Inside of a transaction it is asked there. A connection that died unnoticed, or whose prepared question no longer fits, is
    made anew and asked again. Raises what the database raises.
    """
    if connection.in_atomic_block:
        with connection.wrap_database_errors:
            return prepared_cursor(connection).execute(*question).fetchall()
    with _line() as line:
        try:
            return line.ask(question)
        except (OperationalError, InterfaceError, NotSupportedError):
            line.close()
            return line.ask(question)


def prepared_cursor(wrapper: BaseDatabaseWrapper) -> RawCursor[Any]:
    """A cursor of an open connection that prepares what it is asked again."""
    wrapper.connection.prepare_threshold = PREPARE_AFTER
    return RawCursor(wrapper.connection)


@contextmanager
def _line() -> Iterator[_Line]:
    global _shared
    if _shared.pid != os.getpid():  # a process that was forked leaves its parent's connections alone
        _shared = _Shared()
    mine = _shared
    with mine.turns:
        line = mine.idle.pop() if mine.idle else _Line()
        try:
            yield line
        finally:
            mine.idle.append(line)
