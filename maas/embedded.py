"""The embedded PostgreSQL and Redis of the one-command default, for tests and scripts; `maas.supervisor` runs the same.

A server that is started here lives no longer than the process that started it, whatever ends that process.
"""

import subprocess
from pathlib import Path

from maas import processes
from maas.embedded_postgres import postgres
from maas.embedded_redis import redis
from maas.homes import prepare_home
from maas.processes import Program

READY_SECONDS = 60.0
_running: dict[tuple[Path, str], tuple[Program, subprocess.Popen[bytes]]] = {}


def start_postgres(home: Path) -> str:
    """Start PostgreSQL below `home`, anew if it runs; its DATABASE_URL. RuntimeError with its log if it will not start."""
    prepare_home(home.resolve())
    return _start(*postgres(home.resolve()))


def start_redis(home: Path) -> str:
    """Start Redis below `home`, anew if it runs; its REDIS_URL. RuntimeError with its log if it will not start."""
    prepare_home(home.resolve())
    return _start(*redis(home.resolve()))


def stop_postgres(home: Path) -> None:
    """Stop it in good order; nothing happens if this process did not start it."""
    _stop(home.resolve(), "postgres")


def stop_redis(home: Path) -> None:
    """Stop it in good order; nothing happens if this process did not start it."""
    _stop(home.resolve(), "redis")


def _start(program: Program, url: str) -> str:
    _stop(program.home, program.name)
    process = processes.launch(program)
    _running[program.home, program.name] = program, process
    processes.wait_until_ready(program, process, READY_SECONDS)
    return url


def _stop(home: Path, name: str) -> None:
    program, process = _running.pop((home, name), (None, None))
    if program and process:
        processes.end([process.pid], program.stop_signal, patience=15)
        process.wait()
        program.trace.unlink(missing_ok=True)
