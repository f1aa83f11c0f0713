"""The processes of the product on one box, and the environment that they share."""

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from maas.homes import secret
from maas.processes import Program

ROOT = Path(__file__).resolve().parent.parent
CELERY = [sys.executable, "-m", "celery", "-A", "maas.celery"]


def environment(home: Path, *, host: str, port: int, stores: Mapping[str, str]) -> dict[str, str]:
    """What every process of this home gets. Settings that are there already win, but for the addresses."""
    defaults = {
        "MAAS_SECRET_KEY": secret(home, "django"),
        "MAAS_URL": f"http://{host}:{port}",
        "MALLOC_ARENA_MAX": "2",  # glibc keeps an arena per thread and core; two are enough for a small box
        "PYTHONUNBUFFERED": "1",
    }
    fixed = {"MAAS_HOME": str(home), "MAAS_BIND": f"{host}:{port}", "DJANGO_SETTINGS_MODULE": "maas.settings", **stores}
    return {**defaults, **os.environ, **fixed}


def programs(home: Path, variables: Mapping[str, str]) -> list[Program]:
    """Web and the online server before the workers, which give way to both."""
    alone = ["--without-gossip", "--without-mingle"]  # workers have nothing to tell each other
    batch = [*CELERY, "worker", "-Q", "batch", "-P", "solo", "-n", "batch@%h", *alone, "-l", "WARNING"]
    # Waits for receivers and databases, not for models: threads, and a process that never loads one.
    light = [*CELERY, "worker", "-Q", "default,webhooks", "-P", "threads", "-c", "12", "-n", "light@%h", *alone, "-l", "WARNING"]
    beat = [*CELERY, "beat", "-s", str(home / "run" / "beat"), "--pidfile", "", "-l", "WARNING"]
    return [
        Program("web", [sys.executable, "-m", "maas.web"], home, variables, ROOT),
        Program("online", [sys.executable, "-m", "workers.online"], home, variables, ROOT),
        Program("batch", batch, home, variables, ROOT, niceness=10),
        Program("light", light, home, variables, ROOT, niceness=5),
        Program("beat", beat, home, variables, ROOT, niceness=5),
    ]


def is_ready(url: str) -> bool:
    """Whether a call would be answered."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=3) as answer:  # noqa: S310  # our own address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
