"""Processor time and memory of a server's whole tree of processes."""

from pathlib import Path

import psutil


def seconds_of(pid: int) -> float:
    """User and system time that the tree below a process has used, children that have ended included.

    Who waits for a child inherits its time, so what died is found in its parent. 0 for a process that is gone.
    """
    total = 0.0
    for process in tree(pid):
        try:
            times = process.cpu_times()
        except psutil.Error:  # it ended meanwhile, and its parent has its time
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def tree(pid: int) -> list[psutil.Process]:
    """The process and all below it; none when it is gone."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def private_bytes(process: psutil.Process) -> int:
    """Resident memory without shared segments such as PostgreSQL's buffers, whose size is a setting; 0 when it is gone."""
    try:
        memory = process.memory_info()
        return int(memory.rss - _segments(process.pid))
    except (psutil.Error, OSError):
        return 0


def _segments(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssShmem:")), 0)
