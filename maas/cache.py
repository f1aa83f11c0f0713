"""The cache that all web processes share: rate limits and used codes, in Redis.

It holds no truth, so it fails open: while Redis does not answer, nothing is remembered and nobody is kept out. What must
hold without Redis (lock-out, sessions, keys) is in PostgreSQL.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import structlog
from django.core.cache.backends.redis import RedisCache
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

log = structlog.get_logger()
REST = 5.0  # seconds without a try after Redis did not answer, so that one request waits for it once at most
PATIENCE = {"socket_connect_timeout": 0.5, "socket_timeout": 0.5}  # seconds


class Json:
    """How values are stored: never as pickles, because who can write to Redis could then run code here."""

    def dumps(self, value: Any) -> str:
        return json.dumps(value)

    def loads(self, data: bytes) -> Any:
        return json.loads(data)


class OpenCache(RedisCache):
    """Django's Redis cache that answers as an empty one while Redis is away."""

    def __init__(self, server: str | list[str], params: dict[str, Any]) -> None:
        super().__init__(server, params)
        self._options: dict[str, Any] = {"serializer": Json, "retry": Retry(NoBackoff(), 0), **PATIENCE, **params.get("OPTIONS", {})}
        self._away_until = 0.0  # on the monotonic clock

    def add(self, key: str, value: Any, *args: Any, **kwargs: Any) -> bool:
        return self._ask(True, super().add, key, value, *args, **kwargs)

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        return self._ask(default, super().get, key, default, version)

    def set(self, key: str, value: Any, *args: Any, **kwargs: Any) -> None:
        self._ask(None, super().set, key, value, *args, **kwargs)

    def touch(self, key: str, *args: Any, **kwargs: Any) -> bool:
        return self._ask(False, super().touch, key, *args, **kwargs)

    def delete(self, key: str, version: int | None = None) -> bool:
        return self._ask(False, super().delete, key, version)

    def has_key(self, key: str, version: int | None = None) -> bool:
        return self._ask(False, super().has_key, key, version)

    def get_many(self, keys: Any, version: int | None = None) -> dict[str, Any]:
        return self._ask({}, super().get_many, keys, version)

    def set_many(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> list[Any]:
        return self._ask([], super().set_many, data, *args, **kwargs)

    def delete_many(self, keys: Any, version: int | None = None) -> None:
        self._ask(None, super().delete_many, keys, version)

    def clear(self) -> None:
        """Refused: the broker and the online queue live in the same Redis."""
        raise NotImplementedError("Delete keys by name: a flush would empty the queues too.")

    def _ask(self, otherwise: Any, question: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if time.monotonic() < self._away_until:
            return otherwise
        try:
            return question(*args, **kwargs)
        except (RedisError, OSError) as error:
            self._away_until = time.monotonic() + REST
            log.warning("cache_away", error=str(error))
            return otherwise
