"""Pictures of every page, in light and dark, wide and narrow: python -m tests.screenshots URL FOLDER EMAIL PASSWORD

Signs in with an account that exists (bin/up writes one into demo.env), walks every page that a menu or a list leads
to, and says which ones are wider than the window or complain in the console.
"""

import base64
import json
import re
import sys
import time
from pathlib import Path

from openai import OpenAI
from playwright.sync_api import Browser, Page

from tests.browser import Complaints, open_browser, sideways

PICTURE = Path(__file__).resolve().parent.parent / "frontend" / "static" / "sample.png"
SAMPLES = {
    "question-answering": {"question": "Where is the pump?", "context": "The pump sits behind the left panel."},
    "translation": "The pump sits behind the left panel.",
    "image-classification": base64.b64encode(PICTURE.read_bytes()).decode(),
}
WIDTHS = {"wide": 1280, "phone": 390, "small": 380}
OPEN = {"signup": "/accounts/signup/", "login": "/accounts/login/", "reset": "/accounts/password/reset/"}
CLOSED = {
    "overview": "/?period=30d",
    "overview-day": "/?period=24h",
    "models": "/models",
    "models-cards": "/models?view=cards",
    "models-none": "/models?q=speech",
    "jobs": "/jobs",
    "jobs-none": "/jobs?q=nothing-like-this",
    "new-job": "/jobs/new",
    "new-job-dialog": "/jobs#new-job",
    "files": "/files",
    "keys": "/keys",
    "new-key": "/keys/new",
    "new-key-dialog": "/keys#create-key",
    "webhooks": "/webhooks",
    "new-webhook": "/webhooks/new",
    "team": "/team",
    "audit": "/audit",
    "billing": "/billing",
    "change-plan": "/billing/plan?to=free",
    "usage": "/usage",
    "usage-by-key": "/usage?by=key",
    "usage-empty": "/usage?month=EMPTY",
    "account": "/account",
    "email": "/accounts/email/",
    "password": "/accounts/password/change/",
    "new-organisation": "/organisations/new",
    "not-found": "/nothing-here",
    "logout": "/accounts/logout/",
}


def make_something(url: str, secret: str) -> None:
    """Calls, and jobs in every state, so that no page is empty."""
    client = OpenAI(base_url=url + "/v1", api_key=secret)
    good = [_line(model.id, SAMPLES[model.task]) for model in client.models.list() if model.task in SAMPLES]
    some_bad = [*good * 20, _line("no-such-model", "x"), _line(client.models.list().data[0].id, "")]
    for body, wait in (
        (good * 20, True),
        (some_bad, True),
        ([*good, '{"custom_id": broken'], True),
        (good * 400, False),
        (good * 300, False),
    ):
        file = client.files.create(file=("tickets.jsonl", "\n".join(_numbered(body)).encode()), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/predictions", completion_window="24h")
        while wait and client.batches.retrieve(batch.id).status in ("validating", "in_progress", "finalizing"):
            time.sleep(0.5)
    client.batches.cancel(batch.id)


def _line(model: str, inputs: object) -> str:
    body = {"model": model, "inputs": inputs}
    return json.dumps({"custom_id": "ID", "method": "POST", "url": "/v1/predictions", "body": body})


def _numbered(lines: list[str]) -> list[str]:
    return [line.replace('"ID"', f'"{number}"') for number, line in enumerate(lines, 1)]


def shoot_everything(browser: Browser, url: str, folder: str, email: str, password: str) -> int:
    """One picture a page, theme and width; the number of complaints and of pages that are too wide."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    ways = [(theme, name, width) for theme in ("light", "dark") for name, width in WIDTHS.items()]
    return sum(_walk(browser, url, target, email, password, *way) for way in ways)


def _walk(browser: Browser, url: str, target: Path, email: str, password: str, theme: str, name: str, width: int) -> int:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    page = context.new_page()
    bad = sum(_shoot(page, url + address, target / f"{title}-{theme}-{name}.png") for title, address in OPEN.items())
    sign_in(page, url, email, password)
    pages = CLOSED | _found(page, url)
    bad += sum(_shoot(page, url + address, target / f"{title}-{theme}-{name}.png") for title, address in pages.items())
    context.close()
    return bad


def sign_in(page: Page, url: str, email: str, password: str) -> None:
    page.goto(url + "/accounts/login/")
    page.fill("[name=login]", email)
    page.fill("[name=password]", password)
    page.click("main button.primary")
    page.wait_for_url(re.compile(re.escape(url) + "/(\\?.*)?$"))


def _found(page: Page, url: str) -> dict[str, str]:
    """The pages that depend on what is there: every model, the newest jobs, the dialogs of a row."""
    found = {}
    for listing, pattern, most in (
        ("/models", r"^/models/", 5),
        ("/jobs", r"^/jobs/batch_", 4),
        ("/keys", r"^/keys/key_", 1),
        ("/files", r"^/files/.*delete", 1),
    ):
        page.goto(url + listing)
        links = page.eval_on_selector_all("main a[href]", "links => links.map(link => link.getAttribute('href'))")
        matching = list(dict.fromkeys(link for link in links if re.search(pattern, link)))[:most]
        found |= {f"{listing[1:-1]}-{number}": link for number, link in enumerate(matching, 1)}
    return found


def _shoot(page: Page, address: str, path: Path) -> int:
    complaints = Complaints(page)
    page.goto(address.replace("EMPTY", "2026-03"), wait_until="load")
    page.wait_for_timeout(150)
    page.screenshot(path=path, full_page=True)
    over = sideways(page)
    problems = [text for text in complaints.found if "404 (Not Found)" not in text] + ([f"{over} px too wide"] if over > 0 else [])
    print(f"{path.name}: {'; '.join(problems) or 'ok'}", flush=True)
    return len(problems)


if __name__ == "__main__":
    with open_browser() as chromium:
        sys.exit(min(shoot_everything(chromium, *sys.argv[1:]), 1))
