"""Take each guard out of a copy of the code and see that its test fails: python -m tests.guards [NAME ...]

A test that passes without its guard protects nothing. Each guard is one exact piece of text and what stands there when
it is gone; a text that is no longer in its file is an error, so this list cannot go stale unseen.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.guarding import Guard
from tests.guards_batches import BATCHES
from tests.guards_direct import DIRECT
from tests.guards_embeddings import EMBEDDINGS
from tests.guards_faults import FAULTS
from tests.guards_lane import LANE
from tests.guards_money import MONEY
from tests.guards_online import ONLINE
from tests.guards_operator import OPERATOR
from tests.guards_payments import PAYMENTS
from tests.guards_serving import SERVING
from tests.guards_storage import STORAGE
from tests.guards_tenants import TENANTS

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("maas", "apps", "workers", "tests", "frontend", "models", "docs", "README.md", "pyproject.toml", "manage.py")


GUARDS = (*TENANTS, *OPERATOR, *MONEY, *PAYMENTS, *EMBEDDINGS, *DIRECT, *LANE, *ONLINE, *SERVING, *STORAGE, *BATCHES, *FAULTS)


def main(names: list[str]) -> int:
    """Run all, or those whose name holds one of the words; the number of guards whose loss no test tells."""
    chosen = [guard for guard in GUARDS if not names or any(name in guard.name for name in names)]
    useless = [guard.name for guard in chosen if not _is_caught(guard)]
    print(f"{len(chosen) - len(useless)} of {len(chosen)} guards are told by a test when they are taken out.")
    return len(useless)


def _is_caught(guard: Guard) -> bool:
    """Whether a test fails without the guard, and passes with it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        _copy(copy)
        before = _run(copy, guard.tests)
        _take_out(copy / guard.file, guard)
        after = _run(copy, guard.tests)
    good = before == 0 and after == 1  # pytest: all passed, some failed
    seconds = time.monotonic() - began
    print(f"{'caught    ' if good else 'NOT CAUGHT'} {guard.name} (with it {before}, without it {after}; {seconds:.0f} s)", flush=True)
    return good


def _copy(copy: Path) -> None:
    for part in PARTS:
        source = ROOT / part
        if part == "models":
            (copy / part).symlink_to(source)
        elif source.is_dir():
            shutil.copytree(source, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, copy / part)


def _take_out(file: Path, guard: Guard) -> None:
    text = file.read_text()
    if guard.text not in text:
        raise SystemExit(f"{guard.name}: {guard.file} no longer holds {guard.text!r}; bring tests/guards.py up to date.")
    file.write_text(text.replace(guard.text, guard.without))


def _run(copy: Path, tests: str) -> int:
    """pytest's exit status: 0 all passed, 1 some failed, more when it could not run."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", *tests.split()]
    data = os.environ.get("MAAS_TEST_DATA", str(ROOT.parent / "shared" / "data"))  # a copy has none beside it, and a skip tells nothing
    env = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "MAAS_TEST_DATA": data}
    return subprocess.run(command, cwd=copy, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
