"""Questions to the database that change nothing, several in one trip."""

from typing import Any

from django.db import InterfaceError, OperationalError, connection

Question = tuple[str, dict[str, Any]]
Rows = list[tuple[Any, ...]]


def ask(*questions: Question) -> list[Rows]:
    """The rows of each question, all seen in one short transaction unless one runs already.

    A connection that died unnoticed is made anew and asked again, which replaces the check before a request's first query.
    """
    try:
        return _ask(questions)
    except (OperationalError, InterfaceError):
        if connection.in_atomic_block or connection.is_usable():
            raise
        connection.close()
        return _ask(questions)


def _ask(questions: tuple[Question, ...]) -> list[Rows]:
    connection.health_check_done = True  # type: ignore[attr-defined]
    merged = {name: value for _, parameters in questions for name, value in parameters.items()}
    with connection.cursor() as cursor:
        cursor.execute("; ".join(sql for sql, _ in questions), merged)  # one text: PostgreSQL runs it as one transaction
        found = [cursor.fetchall()]
        while cursor.nextset():
            found.append(cursor.fetchall())
    return found
