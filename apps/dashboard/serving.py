"""Whether calls would be answered now."""

import redis

from maas import queue


def is_serving() -> bool:
    """True while an online model server is heard from."""
    try:
        return queue.alive()
    except redis.RedisError:
        return False
