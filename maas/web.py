"""The web server: `python -m maas.web`. A few processes that share the loaded application, and threads that wait for models."""

import copy
import os
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LOGGING_CONFIG, LogLevels

from maas import env
from maas.logs import Discreet

BIND = os.environ.get("MAAS_BIND", "127.0.0.1:8000")
PROCESSES = env.number("MAAS_WEB_PROCESSES", 2, least=1)
THREADS = env.number("MAAS_WEB_THREADS", 64, least=1)  # of one process; a waiting call holds one, and none is made before it is needed
HEADERS_MS = 30_000  # until a request's headers have come
STOP_SECONDS = 8  # for calls that are running when the server is told to stop
ACCESS = '%(addr)s "%(method)s %(path)s" %(status)d %(dt_ms).1f ms'


class Line(Discreet):
    """A line of the log: addresses may hold secrets, such as the link of an invitation."""

    def __init__(self, **options: Any) -> None:
        import logging

        super().__init__(logging.Formatter(**options))


def logging_config() -> dict[str, Any]:
    """Granian's own, without secrets and to standard error like everything else."""
    config: dict[str, Any] = copy.deepcopy(LOGGING_CONFIG)
    for formatter in config["formatters"].values():
        formatter["()"] = "maas.web.Line"
    for handler in config["handlers"].values():
        handler["stream"] = "ext://sys.stderr"
    return config


def server() -> Any:
    """What the environment asks for."""
    host, _, port = BIND.rpartition(":")
    return Granian(
        "maas.wsgi:application", address=host.strip("[]"), port=int(port),
        interface=Interfaces.WSGI, http=HTTPModes.http1, websockets=False,
        workers=PROCESSES, blocking_threads=THREADS, backpressure=2 * THREADS, respawn_failed_workers=True, respawn_interval=0.5,
        workers_kill_timeout=STOP_SECONDS, http1_settings=HTTP1Settings(header_read_timeout=HEADERS_MS),
        log_level=LogLevels.error,  # it warns of as many threads as waiting takes
        log_access=bool(os.environ.get("MAAS_ACCESS_LOG")), log_access_format=ACCESS,
        log_dictconfig=logging_config(),
    )  # fmt: skip


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    import maas.wsgi  # noqa: F401  # before the processes are forked: memory is shared, and an error at import is told at once

    server().serve()


if __name__ == "__main__":
    main()
