"""The queue's connections to Redis."""

import os

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from maas.lines import Lines

ONCE_MORE = Retry(NoBackoff(), 1)  # a pooled connection may have died unnoticed; a server that is away is told at once

_client: redis.Redis | None = None


def connect() -> redis.Redis:
    """This process's Redis client, made on first use."""
    global _client
    if _client is None:
        _client = redis.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=2, socket_keepalive=True, retry=ONCE_MORE)
    return _client


def _start_anew() -> None:
    """A child of a fork makes connections of its own."""
    global _client, LINES
    _client, LINES = None, Lines(connect)


LINES = Lines(connect)
os.register_at_fork(after_in_child=_start_anew)
