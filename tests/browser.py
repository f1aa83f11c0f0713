"""A real browser for tests and screenshots: Chromium as Debian ships it, driven by Playwright."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def open_browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Complaints:
    """What a page complained about: errors in the console, scripts that failed, content that the policy refused."""

    def __init__(self, page: Page) -> None:
        self.found: list[str] = []
        page.on("console", lambda message: self.found.append(message.text) if message.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: self.found.append(str(error)))
        page.on("requestfailed", self._failed)

    def _failed(self, request) -> None:
        if "ERR_ABORTED" not in (request.failure or ""):  # a poll that a navigation cut off
            self.found.append(f"{request.url}: {request.failure}")


WIDER = """() => Math.max(...[document.documentElement, ...document.querySelectorAll(".panel, .panel > .body, dialog[open]")]
  .map(part => part.scrollWidth - part.clientWidth))"""


def sideways(page: Page) -> int:
    """By how many pixels the page, or a panel that would cut it off, is wider than its place."""
    page.wait_for_load_state("domcontentloaded")  # a click may have begun another page
    return page.evaluate(WIDER)
