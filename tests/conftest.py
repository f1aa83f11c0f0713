"""A real PostgreSQL, a real Redis, real processes, and a fixed cast of people.

Nothing is rolled back: every test makes tenants of its own, and row-level security keeps them apart as it does for
customers. The servers start when this module is imported, because Django's settings read where they are.
"""

import atexit
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOME = Path(tempfile.mkdtemp(prefix="maas-test-"))
CI = os.environ.get("CI") == "true"
DATA = Path(os.environ.get("MAAS_TEST_DATA", ROOT.parent / "shared" / "data"))

# Runs of the tests share their exports, which are named after what they were made from.
EXPORTS = ROOT / ".maas" / "test-exports"
EXPORTS.mkdir(parents=True, exist_ok=True)
(HOME / "cache").mkdir()
(HOME / "cache" / "exports").symlink_to(EXPORTS)

from maas import embedded  # the path of the home comes first

os.environ.update(
    MAAS_HOME=str(HOME),
    MAAS_SECRET_KEY=secrets.token_urlsafe(32),
    DATABASE_URL=embedded.start_postgres(HOME),
    REDIS_URL=embedded.start_redis(HOME),
    MAAS_ALLOWED_HOSTS="127.0.0.1,localhost,testserver",
    MAAS_NO_LOGIN_LIMITS="1",
)


def _stop() -> None:
    embedded.stop_redis(HOME)
    embedded.stop_postgres(HOME)
    shutil.rmtree(HOME, ignore_errors=True)


os.environ.setdefault("DJANGO_SETTINGS_MODULE", "maas.settings")
atexit.register(_stop)

import django  # reads the environment made above

django.setup()

from django.core.management import call_command

call_command("prepare_database")
call_command("migrate", interactive=False, verbosity=0)

from playwright.sync_api import Browser, Page

from tests.browser import CHROMIUM, open_browser
from tests.cast import Cast, Key, make_cast
from tests.live import Live, start_live


def needs(condition: bool, reason: str) -> None:
    """Skip with a reason where something is not there; in CI it has to be."""
    if not condition and CI:
        pytest.fail(f"missing in CI: {reason}")
    if not condition:
        pytest.skip(reason)


@pytest.fixture
def data() -> Path:
    """The folder of public data sets."""
    needs(DATA.is_dir(), f"no data sets at {DATA}; set MAAS_TEST_DATA")
    return DATA


@pytest.fixture
def cast() -> Cast:
    """A tenant with an owner, a viewer and a key of every scope, and another tenant with the same."""
    return make_cast()


@pytest.fixture
def api() -> Callable[[str | Key], "object"]:
    """A REST client for a key: `api(cast.key).get("/v1/models")`."""
    from tests.cast import client_for

    return client_for


@pytest.fixture(scope="session")
def live() -> Iterator[Live]:
    """The whole product as processes on a free port, with the shipped catalogue."""
    with start_live(HOME) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. No longer than a module: while it runs, this thread may not ask the database."""
    needs(CHROMIUM.exists(), f"no Chromium at {CHROMIUM}: apt-get install --no-install-recommends chromium fonts-dejavu-core")
    with open_browser() as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab of its own, with nobody signed in."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(20_000)
    yield context.new_page()
    context.close()


@pytest.fixture
def settings_of() -> Callable[..., object]:
    """Other settings for a block: `with settings_of(MAAS_QUEUE_LIMIT=2):`."""
    from django.test import override_settings

    return override_settings


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the running product come last: its workers would take what the others put into queues and tables.

    Tests side by side (`-n 2 --dist loadgroup`) stay together by file; every process has servers of its own.
    """
    items.sort(key=is_live)
    for item in items:
        item.add_marker(pytest.mark.xdist_group(f"{'live ' if is_live(item) else ''}{item.path.stem}"))


def is_live(item: pytest.Item) -> bool:
    return "live" in getattr(item, "fixturenames", ())
