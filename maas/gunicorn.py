"""The web server: a few processes that share the loaded application, and threads that wait for models."""

import os
from typing import Any

from maas.logs import Discreet

bind = os.environ.get("MAAS_BIND", "127.0.0.1:8000")
workers = int(os.environ.get("MAAS_WEB_PROCESSES", "2"))
threads = int(os.environ.get("MAAS_WEB_THREADS", "16"))  # a waiting call holds one
worker_class = "gthread"
preload_app = True  # memory is shared, and an error at import is told at once
worker_tmp_dir = "/dev/shm"  # noqa: S108  # the heartbeat file must not wait for a disk
timeout = 150  # above the longest deadline that a caller may ask for
graceful_timeout = 8
keepalive = 30  # seconds
control_socket_disable = True  # it would lie in the user's home, one for all copies of maas
max_requests = 20_000  # a slow leak ends with its process
max_requests_jitter = 2_000
errorlog = "-"
accesslog = "-" if os.environ.get("MAAS_ACCESS_LOG") else None


def post_worker_init(worker: Any) -> None:
    """Addresses may hold secrets, such as the link of an invitation."""
    for log in (worker.log.access_log, worker.log.error_log):
        for handler in log.handlers:
            handler.setFormatter(Discreet(handler.formatter))
