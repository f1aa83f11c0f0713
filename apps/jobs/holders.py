"""Which process holds a slice: a name that no other process has, so that the next one can tell that it died.

A name is `node boot pid:start`: the node is what the operator called the worker, the boot is the kernel's, and the start
time tells a process from a later one with the same number. Linux only.
"""

import os
import socket
from enum import Enum
from pathlib import Path

NODE_LENGTH = 100  # characters
_leaving = [False]
_node = [socket.gethostname()]


class Fate(Enum):
    LIVES = "it lives, or nobody here can tell"
    DIED = "it died on this machine"
    STOPPED = "its machine was started again since"


def call_me(node: str) -> None:
    """Say how the operator calls this worker; a worker that starts in place of another has the same name."""
    _node[0] = node[:NODE_LENGTH].replace(" ", "_") or "worker"
    _leaving[0] = False


def my_node() -> str:
    """The name that this worker shares with those before it."""
    return _node[0]


def my_name() -> str:
    """The name of this process alone."""
    return f"{_node[0]} {_boot()} {os.getpid()}:{_start_of(os.getpid())}"


def leave() -> None:
    """This process was asked to stop: what it cannot finish any more is nobody's fault. Safe in a signal's handler."""
    _leaving[0] = True


def is_leaving() -> bool:
    """Whether this process was asked to stop."""
    return _leaving[0]


def fate_of(name: str) -> Fate:
    """What became of a process that had this worker's node name before."""
    node, boot, process = [*name.split(" "), "", ""][:3]
    if node != my_node():
        return Fate.LIVES
    if boot != _boot():
        return Fate.STOPPED
    pid, _, start = process.partition(":")
    return Fate.LIVES if pid.isdigit() and _start_of(int(pid)) == start else Fate.DIED


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_of(pid: int) -> str:
    """When a process started, in ticks since the boot; empty when there is none, or it ended and was not waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return fields[19] if fields[0] != "Z" else ""
