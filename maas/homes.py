"""The data folder of the one-command default: who may read it, its secrets, the ports of its servers."""

import os
import random
import secrets
import socket
from pathlib import Path

PORTS = range(20_000, 32_000)  # below the range from which the kernel takes ports for outgoing connections


def prepare_home(home: Path) -> None:
    """Make the folder. Others may pass through it (PostgreSQL runs as another user under root), nobody may list it."""
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o711)
    for name in ("secrets", "storage", "mail", "log", "run", "cache"):
        private_folder(home / name)


def private_folder(path: Path) -> Path:
    """A folder that only its owner can enter."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def secret(home: Path, name: str) -> str:
    """A random text that is made once and kept where only the owner can read it."""
    path = private_folder(home / "secrets") / name
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32))
    return path.read_text().strip()


def write_private(path: Path, text: str) -> None:
    """Write whole or not at all, readable by the owner alone from the first byte on."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def read_demo(home: Path) -> dict[str, str]:
    """The demo's address and credentials: MAAS_URL, MAAS_API_KEY, MAAS_EMAIL, MAAS_PASSWORD."""
    return dict(line.split("=", 1) for line in (home / "demo.env").read_text().splitlines() if "=" in line)


def free_port(path: Path) -> int:
    """The port that this server had before, if it is still free; else a new one. Remembered in `path`."""
    before = path.read_text().strip() if path.exists() else ""
    if before.isdigit() and is_free("127.0.0.1", int(before)):
        return int(before)
    port = next(port for port in random.sample(PORTS, len(PORTS)) if is_free("127.0.0.1", port))  # not a secret
    path.write_text(f"{port}\n")
    return port


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection that is being closed is no obstacle
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
