"""Questions that are asked with every call: prepared once a connection, and past what Django does around a query.

The threads of a process share a few connections for them, the one used last first: a thread that waits for a model holds
none, and PostgreSQL serves ten busy connections with less work than a hundred idle ones.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Any
from uuid import UUID

from django.db import InterfaceError, NotSupportedError, OperationalError, connection
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import RawCursor

Question = tuple[str, Sequence[Any]]
CONNECTIONS = 8  # of one process; more threads than that wait for each other, for less than a millisecond
PREPARE_AFTER = 1  # times that a question was asked


class _Shared:
    """The connections of one process that act in one role; `""` is the role that the settings say."""

    def __init__(self, role: str = "") -> None:
        self.pid, self.role = os.getpid(), role
        self.turns = BoundedSemaphore(CONNECTIONS)
        self.idle: list[_Line] = []


class _Line:
    """One connection with its cursor, used by one thread at a time. A connection that died is made anew when it is used."""

    def __init__(self, role: str) -> None:
        self.wrapper: BaseDatabaseWrapper = connection.copy()
        self.wrapper.inc_thread_sharing()
        self.role = role
        self.cursor: RawCursor[Any] | None = None

    def ask(self, question: Question) -> list[tuple[Any, ...]]:
        with self.wrapper.wrap_database_errors:
            return (self.cursor or self._open()).execute(*question).fetchall()

    def _open(self) -> RawCursor[Any]:
        self.wrapper.ensure_connection()
        cursor = prepared_cursor(self.wrapper)
        if self.role:
            cursor.execute(f"SET ROLE {self.role}")
        self.cursor = cursor
        return cursor

    def tell(self, tenant_id: UUID, statement: Question) -> list[tuple[Any, ...]]:
        with self.wrapper.wrap_database_errors:
            cursor = self.cursor or self._open()
            with cursor.connection.transaction():
                cursor.execute("SELECT set_config('maas.tenant', $1, true)", (str(tenant_id),))
                return cursor.execute(*statement).fetchall()

    def close(self) -> None:
        self.cursor = None
        self.wrapper.close()


_shared, _system = _Shared(), _Shared("maas_system")


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


def tell_as_system(statement: Question) -> list[tuple[Any, ...]]:
    """The rows of a statement that the system runs in a transaction of its own; `maas.tenancy.run_as_system` calls it.

    It may change something, so it is never run again: raises what the database raises, and then it may have been done.
    """
    with _line(is_system=True) as line, _ended_by_errors(line):
        return line.ask(statement)


def tell_as_tenant(tenant_id: UUID, statement: Question) -> list[tuple[Any, ...]]:
    """The rows of a statement that runs in a transaction of its own as this tenant, and once like the above;
    `maas.tenancy.run_as_tenant` calls it."""
    with _line() as line, _ended_by_errors(line):
        return line.tell(tenant_id, statement)


@contextmanager
def _ended_by_errors(line: _Line) -> Iterator[None]:
    """Nobody else shall meet a connection that failed."""
    try:
        yield
    except (OperationalError, InterfaceError, NotSupportedError):
        line.close()
        raise


@contextmanager
def _line(*, is_system: bool = False) -> Iterator[_Line]:
    global _shared, _system
    if _shared.pid != os.getpid():  # a process that was forked leaves its parent's connections alone
        _shared, _system = _Shared(), _Shared("maas_system")
    mine = _system if is_system else _shared
    with mine.turns:
        line = mine.idle.pop() if mine.idle else _Line(mine.role)
        try:
            yield line
        finally:
            mine.idle.append(line)
