"""The web server: `python -m maas.web`. A few processes that share the loaded application."""

import copy
import os
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LOGGING_CONFIG, LogLevels

from maas import env
from maas.logs import Discreet

BIND = os.environ.get("MAAS_BIND", "127.0.0.1:8000")
PROCESSES = env.number("MAAS_WEB_PROCESSES", 2, least=1)
WAITING = 2048  # requests that one process has begun; a waiting call costs it some kilobytes
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
        "maas.asgi:application", address=host.strip("[]"), port=int(port),
        interface=Interfaces.ASGINL, http=HTTPModes.http1, websockets=False, loop=Loops.uvloop,
        workers=PROCESSES, backpressure=WAITING, respawn_failed_workers=True, respawn_interval=0.5,
        workers_kill_timeout=STOP_SECONDS, http1_settings=HTTP1Settings(header_read_timeout=HEADERS_MS),
        log_level=LogLevels.error,
        log_access=bool(os.environ.get("MAAS_ACCESS_LOG")), log_access_format=ACCESS,
        log_dictconfig=logging_config(),
    )  # fmt: skip


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    import maas.asgi  # noqa: F401  # before the processes are forked: memory is shared, and an error at import is told at once

    server().serve()


if __name__ == "__main__":
    main()
