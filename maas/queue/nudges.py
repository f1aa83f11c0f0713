"""Long work: a message that carries an id and tells a Celery worker to look. The row in the database is the work."""

from typing import Any

import redis
from django.db import transaction

from maas.queue.store import connect


def enqueue(entry_point: str, *, queue: str = "default", **arguments: Any) -> None:
    """Nudge a Celery worker once the transaction has committed. A lost nudge is repeated by the sweep."""
    transaction.on_commit(lambda: nudge(entry_point, queue=queue, **arguments))


def nudge(entry_point: str, *, queue: str = "default", **arguments: Any) -> None:
    """Send the message now; with the broker down the row stays and the sweep finds it."""
    from maas.celery import app

    try:
        app.signature(entry_point, kwargs=arguments).apply_async(queue=queue, retry=False, ignore_result=True)
    except (OSError, redis.RedisError, app.connection_for_write().connection_errors):  # type: ignore[misc]
        return


def depth(name: str) -> int:
    """Messages that wait in a Celery queue; what a flushed or unreachable Redis holds is none."""
    try:
        return connect().llen(name)  # type: ignore[return-value]
    except redis.RedisError:
        return 0
