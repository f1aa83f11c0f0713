"""`python -m maas.up`: everything that bin/up does once the packages are installed."""

import argparse
import fcntl
import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maas import processes, product
from maas.embedded_postgres import postgres
from maas.embedded_redis import redis
from maas.homes import PORTS, is_free, prepare_home, read_demo, write_private
from maas.processes import Program
from maas.product import ROOT
from maas.supervisor import Failed, Stopped, Supervisor
from maas.terminal import say, step

HOST = "127.0.0.1"
PORT = 8000
SOURCES = ("maas/**/*.py", "apps/**/*.py", "workers/**/*.py", "models/*/*")


def main() -> int:
    """The exit code: 0 when it ran, or ran already, and was stopped; 1 when it could not; of the check if there was one."""
    options = _options()
    home = Path(os.environ.get("MAAS_HOME", ROOT / ".maas")).resolve()
    prepare_home(home)
    with _only_one(home) as is_only:
        if not is_only:
            return _meet(home, options)
        return _serve(home, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bin/up", description="Set up maas and run everything it needs on this machine. Ctrl-C stops it.")
    parser.add_argument("--port", type=int, help=f"where the dashboard and the API listen (default {PORT}; with --check a free one)")
    parser.add_argument("--check", action="store_true", help="run the main job through the public API, stop, and say whether all was right")
    parser.add_argument("--kill-worker", action="store_true", help="with --check: kill the batch worker in the middle of the batch")
    return parser.parse_args()


@contextmanager
def _only_one(home: Path) -> Iterator[bool]:
    """Whether no other supervisor runs on this home. The kernel frees the lock whatever ends its holder."""
    with (home / "run" / "supervisor.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _meet(home: Path, options: argparse.Namespace) -> int:
    """Another supervisor holds the home: say where it is, or check what it runs and leave it running."""
    url, pid = _read_state(home)
    say(f"maas is already running at {url} (process {pid}, data in {home})." if url else f"maas is already starting on {home}.")
    if not options.check:
        return 0
    if not url:
        say("Try again when it is up.")
        return 1
    os.execv(sys.executable, _check_command(home, url, options))  # noqa: S606  # no shell
    return 1


def _serve(home: Path, options: argparse.Namespace) -> int:
    supervisor = Supervisor()
    state = home / "run" / "state.json"
    state.unlink(missing_ok=True)
    code = 0
    try:
        url, variables = _start(supervisor, home, options)
        write_private(state, json.dumps({"url": url, "pid": os.getpid()}))
        code = _check(supervisor, home, url, options, variables) if options.check else _stay(supervisor, home, url)
    except Stopped:
        code = 130 if options.check or supervisor.is_starting else 0
    except (Failed, RuntimeError, OSError) as error:
        say(f"\n{error}")
        code = 1
    finally:
        with step("Stopping"):
            supervisor.stop()
        state.unlink(missing_ok=True)
    return code


def _start(supervisor: Supervisor, home: Path, options: argparse.Namespace) -> tuple[str, dict[str, str]]:
    """Everything from the stores to the first call that would be answered. The address and the environment."""
    begun = time.monotonic()
    _end_leftovers(home)
    port = _choose_port(options)
    variables = product.environment(home, host=HOST, port=port, stores=_start_stores(supervisor, home))
    url = f"http://{HOST}:{port}"
    _set_up(supervisor, home, variables, lasting_url=f"http://{HOST}:{options.port or PORT}" if options.check else url)
    with step("Starting web, online server, workers and beat") as it:
        for program in product.programs(home, variables):
            supervisor.run(program)
        supervisor.wait(lambda: product.is_ready(url), it, limit=120, detail=lambda: _last_line(home, "online"))
    supervisor.is_starting = False
    say(f"\nmaas is up after {time.monotonic() - begun:.1f} s.")
    return url, variables


def _end_leftovers(home: Path) -> None:
    """What a supervisor that was killed could not stop. It holds ports."""
    for trace in (home / "run").glob("*.pid"):
        processes.end(processes.traced_processes(trace), signal.SIGTERM, patience=3)
        trace.unlink()


def _choose_port(options: argparse.Namespace) -> int:
    if options.check and not options.port:
        return next(port for port in random.sample(PORTS, len(PORTS)) if is_free(HOST, port))
    port: int = options.port or PORT
    if not 0 < port < 65536 or not is_free(HOST, port):
        other = port % 60_000 + 1
        raise Failed(f"Port {port} cannot be used: another program has it, or you may not. Choose another: bin/up --port {other}")
    return port


def _start_stores(supervisor: Supervisor, home: Path) -> dict[str, str]:
    """Start PostgreSQL and Redis, but for those that the environment names. Their addresses."""
    urls = {name: os.environ[name] for name in ("DATABASE_URL", "REDIS_URL") if os.environ.get(name)}
    with step("Starting PostgreSQL and Redis"):
        for variable, describe in (("DATABASE_URL", postgres), ("REDIS_URL", redis)):
            if variable not in urls:
                program, urls[variable] = describe(home)
                supervisor.run(program)
        for name in list(supervisor.parts):
            supervisor.wait_ready(name)
    return urls


# ---------- setting up, when something changed ----------


def _set_up(supervisor: Supervisor, home: Path, variables: dict[str, str], *, lasting_url: str) -> None:
    """Tables, catalogue, demo organisation, exported models. Skipped while nothing that they depend on has changed."""
    stamp, demo = home / "postgres" / "set-up", home / "demo.env"
    state = _sources_state()
    is_embedded = (home / "postgres").exists() and "DATABASE_URL" not in os.environ  # another database may have been emptied
    if is_embedded and stamp.exists() and stamp.read_text() == state and _has_files(home) and demo.exists():
        _write_url(demo, lasting_url)
        return
    commands = {
        "Setting up the database and the catalogue": ["manage.py", "set_up", "--env-file", str(demo), "--url", lasting_url],
        "Preparing the models": ["-m", "workers.prepare"],
    }
    for what, command in commands.items():
        _run_step(supervisor, Program("set-up", [sys.executable, *command], home, variables, ROOT), what)
    if is_embedded:
        stamp.write_text(state)


def _run_step(supervisor: Supervisor, program: Program, what: str) -> None:
    program.log.unlink(missing_ok=True)
    with step(what) as it:
        code = supervisor.finish(program, it, lambda: _last_line(program.home, program.name))
        if code:
            lines = "\n".join(f"    {line}" for line in processes.last_lines(program.log, 25))
            raise Failed(f"{what} failed. The end of {program.log}:\n{lines}")


def _sources_state() -> str:
    """A hash that changes with the code and the models: names, sizes and times, since weights are large."""
    found = sorted(path for pattern in SOURCES for path in ROOT.glob(pattern) if path.is_file())
    facts = [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in [*found, Path(sys.executable)]]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _has_files(home: Path) -> bool:
    return all(any((home / name).iterdir()) for name in ("storage", "cache"))


def _write_url(demo: Path, url: str) -> None:
    """Another port than last time: the demo's address follows, its key stays."""
    lines = demo.read_text().splitlines()
    new = [f"MAAS_URL={url}" if line.startswith("MAAS_URL=") else line for line in lines]
    if new != lines:
        write_private(demo, "\n".join(new) + "\n")


# ---------- while it runs ----------


def _stay(supervisor: Supervisor, home: Path, url: str) -> int:
    demo = read_demo(home)
    password = demo["MAAS_PASSWORD"] if sys.stdout.isatty() else f"MAAS_PASSWORD in {home / 'demo.env'}"
    say(f"""
  Dashboard   {url}
  Sign in     {demo["MAAS_EMAIL"]}, password {password}
  API key     MAAS_API_KEY in {home / "demo.env"}
  Logs        {home / "log"}
  Memory      {os.path.relpath(sys.executable)} -m maas.memory

Ctrl-C stops everything.""")
    supervisor.wait(lambda: False)
    return 0


def _check(supervisor: Supervisor, home: Path, url: str, options: argparse.Namespace, variables: dict[str, str]) -> int:
    return supervisor.finish(Program("check", _check_command(home, url, options), home, variables, ROOT), None)


def _check_command(home: Path, url: str, options: argparse.Namespace) -> list[str]:
    flags = ["--kill-worker"] if options.kill_worker else []
    return [sys.executable, "-m", "maas.check", "--home", str(home), "--url", url, *flags]


def _read_state(home: Path) -> tuple[str, int]:
    try:
        state = json.loads((home / "run" / "state.json").read_text())
        return state["url"], state["pid"]
    except (OSError, ValueError, KeyError):
        return "", 0


def _last_line(home: Path, name: str) -> str:
    return next(iter(processes.last_lines(home / "log" / f"{name}.log", 1)), "")


if __name__ == "__main__":
    sys.exit(main())
