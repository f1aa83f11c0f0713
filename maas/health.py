"""Whether the process lives, and whether a call would be answered."""

import time
from collections.abc import Callable
from functools import lru_cache

import redis
from django.core.files.storage import default_storage
from django.db import DatabaseError, connection
from django.http import HttpRequest, JsonResponse

from maas import queue

STORAGE_SECONDS = 10  # that an answer about the storage holds


def healthz(request: HttpRequest) -> JsonResponse:
    """This process answers."""
    return JsonResponse({"status": "ok"})


def readyz(request: HttpRequest) -> JsonResponse:
    """Database, Redis and an online model server are there; 503 names what is not.

    The storage is told as well, and decides nothing: calls of models are answered without it, files and batches wait for it.
    """
    parts = {"database": _holds(_database), "redis": _holds(_redis), "online": _holds(queue.alive)}
    is_ready = all(parts.values())
    told = {"status": "ok" if is_ready else "unavailable", **parts, "storage": _storage(int(time.monotonic() / STORAGE_SECONDS))}
    return JsonResponse(told, status=200 if is_ready else 503)


def _holds(check: Callable[[], bool]) -> bool:
    try:
        return check()
    except (DatabaseError, redis.RedisError):
        return False


def _database() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        return True


@lru_cache(maxsize=1)
def _storage(moment: int) -> bool:
    """Asked once a `moment`, because a bucket may be far away."""
    return bool(default_storage.is_reachable())  # type: ignore[attr-defined]


def _redis() -> bool:
    return bool(queue.connect().ping())
