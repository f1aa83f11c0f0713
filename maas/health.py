"""Whether the process lives, and whether a call would be answered."""

from collections.abc import Callable

import redis
from django.db import DatabaseError, connection
from django.http import HttpRequest, JsonResponse

from maas import queue


def healthz(request: HttpRequest) -> JsonResponse:
    """This process answers."""
    return JsonResponse({"status": "ok"})


def readyz(request: HttpRequest) -> JsonResponse:
    """Database, Redis and an online model server are there; 503 names what is not."""
    parts = {"database": _holds(_database), "redis": _holds(_redis), "online": _holds(queue.alive)}
    return JsonResponse({"status": "ok" if all(parts.values()) else "unavailable", **parts}, status=200 if all(parts.values()) else 503)


def _holds(check: Callable[[], bool]) -> bool:
    try:
        return check()
    except (DatabaseError, redis.RedisError):
        return False


def _database() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        return True


def _redis() -> bool:
    return bool(queue.connect().ping())
