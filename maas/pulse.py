"""The health check of one container: `python -m maas.pulse web|online|worker`. Exit code 0 when it is well.

A worker that runs one task at a time cannot answer while it works, so for workers only the way to their work is tried.
"""

import os
import sys
import time
import urllib.request

import redis


def web() -> bool:
    """This web server answers."""
    port = os.environ.get("MAAS_BIND", "127.0.0.1:8000").rpartition(":")[2]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=4) as answer:  # our own address
        return bool(answer.status == 200)


def online() -> bool:
    """The model server of this host was heard from in the last seconds."""
    from maas.queue.servers import SERVERS, SILENCE

    heard = _redis().zrangebyscore(SERVERS, time.time() - SILENCE, "+inf")
    return any(runner.decode().startswith(f"{os.uname().nodename}:") for runner in heard)  # type: ignore[union-attr]


def worker() -> bool:
    """The broker can be reached."""
    return bool(_redis().ping())


def _redis() -> redis.Redis:
    return redis.Redis.from_url(os.environ["REDIS_URL"], socket_timeout=4)


if __name__ == "__main__":
    checks = {"web": web, "online": online, "worker": worker}
    sys.exit(0 if checks[sys.argv[1]]() else 1)
