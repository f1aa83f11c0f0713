"""Child processes that cannot outlive their parent, and the traces by which a later start finds leftovers.

Linux only: it leans on death signals, sessions and /proc. Imports no Django, so that it runs before anything is set up.
"""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LOG_LIMIT = 5 * 2**20  # bytes; a longer log is set aside at the next start
LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Account:
    """The system user that a program runs as instead of root."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Program:
    """How to run one program in the foreground, tell whether it is ready, and stop it."""

    name: str
    command: Sequence[str]
    home: Path  # MAAS_HOME; logs and traces lie below it
    environment: Mapping[str, str]
    folder: Path
    niceness: int = 0
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL  # sent by the kernel when our own process dies
    account: Account | None = None
    is_store: bool = False  # stopped after everything that uses it
    prepare: Callable[[], None] = field(default=lambda: None)  # before every start, also after a crash
    is_ready: Callable[[], bool] = field(default=lambda: True)

    @property
    def log(self) -> Path:
        return self.home / "log" / f"{self.name}.log"

    @property
    def trace(self) -> Path:
        return self.home / "run" / f"{self.name}.pid"


def launch(program: Program, *, shown: bool = False) -> subprocess.Popen[bytes]:
    """Start the program in a session of its own and leave a trace of it. What it says goes to its log, or is shown."""
    program.prepare()
    with open_log(program.log) as log:
        process = subprocess.Popen(
            program.command, stdin=subprocess.DEVNULL, stdout=None if shown else log, stderr=None if shown else log,
            cwd=program.folder, env=program.environment, start_new_session=True,
            preexec_fn=_bind(os.getpid(), program.death_signal, program.niceness),  # noqa: PLW1509  # there is one thread
            **as_account(program.account),
        )  # fmt: skip
    write_trace(program.trace, process.pid)
    return process


def as_account(account: Account | None) -> dict[str, Any]:
    """The arguments of `subprocess` that make a child run as this user."""
    return {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}


def wait_until_ready(program: Program, process: subprocess.Popen[bytes], seconds: float) -> None:
    """Until it answers; RuntimeError with the end of its log when it ends or takes longer."""
    limit = time.monotonic() + seconds
    while not program.is_ready():
        if process.poll() is not None or time.monotonic() > limit:
            raise RuntimeError("\n".join([f"{program.name} did not start; the end of {program.log}:", *last_lines(program.log)]))
        time.sleep(0.02)


def _bind(parent: int, death_signal: int, niceness: int) -> Callable[[], None]:
    """What the child does between fork and exec, after its user was set: a change of user clears the death signal."""

    def bind() -> None:
        LIBC.prctl(PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # the parent died before the line above took effect
            os._exit(1)
        os.nice(niceness)

    return bind


def adopt_orphans() -> None:
    """Become the parent of grandchildren whose own parent dies, so that they are seen, ended and reaped."""
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)


def open_log(path: Path) -> IO[bytes]:
    """The log for appending, readable by its owner alone; a long one is set aside first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_LIMIT:
        path.replace(path.with_suffix(".log.1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def last_lines(path: Path, count: int = 12) -> list[str]:
    """The end of a log."""
    if not path.exists():
        return []
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - 16384))
        return log.read().decode(errors="replace").splitlines()[-count:]


# ---------- who is running ----------


def write_trace(path: Path, pid: int) -> None:
    """Remember a process by what no other process can share: its pid, start time and the boot it belongs to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{pid} {_start_of(pid)} {_boot()}\n")


def traced_processes(path: Path) -> list[int]:
    """The traced process and everything else in its session, if they still run."""
    try:
        pid, started, boot = path.read_text().split()
    except (OSError, ValueError):
        return []
    found = _start_of(int(pid))
    # A process of that pid with another start time is a stranger. While members of a session live, the kernel gives
    # its number to nobody else; so members without their leader are ours.
    if boot != _boot() or found not in {started, ""}:
        return []
    return [other for other in all_pids() if _session_of(other) == int(pid)]


def processes_in(folder: Path) -> list[int]:
    """Every process whose working directory is this folder."""
    return [pid for pid in all_pids() if _works_in(pid, folder)]


def all_pids() -> list[int]:
    """Every process that is not a zombie."""
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and is_running(int(path.name))]


def is_running(pid: int) -> bool:
    """Whether the process exists and is not a zombie that waits to be reaped."""
    return _stat(pid)[:1] not in ([], ["Z"])


def end(pids: Iterable[int], first: signal.Signals, patience: float) -> None:
    """Signal these processes, wait `patience` seconds, then kill what is left and wait for it to be gone."""
    left = _send(pids, first)
    for number, seconds in ((None, patience), (signal.SIGKILL, 5.0)):
        left = _send(left, number) if number else left
        limit = time.monotonic() + seconds
        while (left := [pid for pid in left if is_running(pid)]) and time.monotonic() < limit:
            time.sleep(0.02)


def _send(pids: Iterable[int], number: signal.Signals) -> list[int]:
    sent = []
    for pid in pids:
        try:
            os.kill(pid, number)
            sent.append(pid)
        except ProcessLookupError:
            continue
    return sent


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the third (state) on; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _start_of(pid: int) -> str:
    fields = _stat(pid)
    return fields[19] if fields and fields[0] != "Z" else ""


def _session_of(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[3]) if fields else 0


def _works_in(pid: int, folder: Path) -> bool:
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == folder
    except OSError:
        return False


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
