"""The dashboard's pages over the real database, and the pure functions behind them."""

import html
import json
import re
import shlex
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone

from apps.accounts import keys
from apps.dashboard import cards, playground, snippets, texts, words
from apps.dashboard.charts import Slot, round_top, short, stacked_bars
from apps.files import services as files
from apps.jobs import services as jobs
from apps.jobs.models import Job
from apps.usage import services as usage
from maas import ids
from maas.tenancy import as_tenant
from tests.cast import Cast, browser_for, make_tenant, make_user

TEMPLATES = Path(__file__).resolve().parent.parent / "frontend" / "templates"
PAGES = ["/", "/?period=24h", "/?period=7d", "/models", "/jobs", "/files", "/keys", "/usage", "/account"]
FORMS = ["/keys/new", "/jobs/new", "/organisations/new"]


def use_something(tenant, units: int = 3) -> None:
    with as_tenant(tenant.id):
        usage.record(tenant.id, [usage.UsageLine(ids.uuid7().hex, "prediction", "some-model", 1, "token", 40, units)])


# ---------- charts ----------
@pytest.mark.parametrize(("largest", "top"), [(0, 4), (3, 4), (9, 12), (20, 20), (21, 40), (41, 50), (16_001, 20_000)])
def test_the_axis_ends_at_a_round_number(largest: int, top: int) -> None:
    assert round_top(largest) == top


def test_axis_labels_are_short() -> None:
    assert [short(value) for value in (0, 2.5, 800, 12_500, 4_000_000)] == ["0", "2.5", "800", "12.5k", "4M"]


def test_a_column_is_stacked_from_the_bottom_with_a_gap() -> None:
    (column,) = stacked_bars([Slot("Mon 2 Nov", "2 Nov", {"a": 10, "b": 5})]).columns
    assert [(bar.css, bar.y, bar.height) for bar in column.bars] == [("c1", "71", "104"), ("c2", "18.5", "51.5")]
    assert (column.x, column.width, column.bar_x, column.bar_width) == ("0", "100", "16", "68")
    assert column.title == "Mon 2 Nov: 15\na 10\nb 5"


def test_bars_of_a_column_add_up_to_its_total() -> None:
    slots = [Slot(str(day), str(day), {"a": day, "b": 2 * day}) for day in range(1, 31)]
    chart = stacked_bars(slots)
    top = float(chart.steps[0])
    for slot, column in zip(slots, chart.columns, strict=True):
        pixels = sum(float(bar.height) + 1 for bar in column.bars)
        assert pixels == pytest.approx(sum(slot.values.values()) / top * 168, abs=0.05)


def test_the_sixth_model_and_later_are_others() -> None:
    chart = stacked_bars([Slot("d", "d", {f"m{i}": 10 - i for i in range(8)})])
    assert [series.css for series in chart.series] == ["c1", "c2", "c3", "c4", "c5", "c6"]
    assert chart.series[-1].name == "3 others"
    assert chart.rows[0][1][-1] == 5 + 4 + 3


def test_a_chart_of_nothing_has_an_axis() -> None:
    assert stacked_bars([]).steps == ["4", "3", "2", "1", "0"]


# ---------- words ----------
def test_moments_read_as_people_say_them() -> None:
    now = timezone.now()
    said = [texts.ago(now - timedelta(seconds=s)) for s in (0, 30, 600, 7200, 90_000)]
    assert said == ["now", "30 s ago", "10 min ago", "2 h ago", "yesterday"]
    assert texts.ago(None) == "never"


def test_lengths_and_sizes_are_short() -> None:
    assert [texts.duration(s) for s in (1.44, 38, 590, 7500)] == ["1.4 s", "38 s", "9 min 50 s", "2 h 5 min"]
    assert [texts.size(n) for n in (840, 4100, 18_400_000)] == ["840 B", "4.1 KB", "18.4 MB"]
    assert [texts.rough(s) for s in (17, 372, 7000)] == ["about 20 s", "about 6 min", "about 2 h"]


def test_rates_read_as_prices() -> None:
    assert words.rate_words({"unit": "image", "per": 1, "units": 1}) == "1 unit an image"
    assert words.rate_words({"unit": "token", "per": 384, "units": 1}) == "1 unit per 384 tokens"


def test_a_done_job_with_failed_lines_says_so() -> None:
    assert words.job_state(SimpleNamespace(state="succeeded", failed=42)).word == "Done, 42 failed"
    assert words.job_state(SimpleNamespace(state="succeeded", failed=0)).css == "ok"


# ---------- code to copy ----------
TRICKY = {"question": 'Whose "pump" is it?', "context": "It's the left panel's & <b>ours</b>: $HOME `id` \\ ü"}


def test_curl_sends_exactly_the_input() -> None:
    text = snippets.for_call("http://x", "m", "question-answering", TRICKY)[0].text
    words_ = shlex.split(text.replace("\\\n", " "))
    assert words_[:2] == ["curl", "http://x/v1/predictions"]
    assert json.loads(words_[words_.index("-d") + 1]) == {"model": "m", "inputs": TRICKY}


def test_python_snippets_compile_for_every_task() -> None:
    samples = {"question-answering": TRICKY, "translation": "It's \\ é", "feature-extraction": ["a", "It's"], "image-classification": None}
    for task, sample in samples.items():
        for snippet in [*snippets.for_call("http://x", "m", task, sample), snippets.for_batch("http://x", "m", task, sample)]:
            if snippet.language != "curl":
                compile(snippet.text, snippet.title, "exec")


def test_embeddings_are_called_at_their_own_address() -> None:
    curl, python = snippets.for_call("http://x", "m", "feature-extraction", "It's")
    words_ = shlex.split(curl.text.replace("\\\n", " "))
    assert words_[1] == "http://x/v1/embeddings"
    assert json.loads(words_[words_.index("-d") + 1]) == {"model": "m", "input": "It's"}
    assert 'client.embeddings.create(model="m", input="It\'s")' in python.text
    batch = snippets.for_batch("http://x", "m", "feature-extraction", "It's").text
    assert batch.count("/v1/embeddings") == 2 and "/v1/predictions" not in batch


def test_two_texts_are_shown_with_their_cosine_and_few_numbers() -> None:
    alone = playground.present("feature-extraction", {}, [0.6, 0.8] * 100)
    assert (alone["size"], alone["cosine"], alone["heads"]) == (200, None, [[0.6, 0.8] * 4])
    both = playground.present("feature-extraction", {}, [[1.0, 0.0], [0.6, 0.8]])
    assert both["cosine"] == pytest.approx(0.6)
    values = {"text": "a", "other": " "}
    assert playground.inputs_from("feature-extraction", values) == "a"
    assert playground.inputs_from("feature-extraction", values | {"other": "b"}) == ["a", "b"]
    assert "194 more" in snippets.as_json([0.5] * 200)


def test_shell_of_a_picture_is_valid() -> None:
    text = snippets.for_call("http://x", "m", "image-classification", None)[0].text
    assert subprocess.run(["sh", "-n"], input=text, text=True).returncode == 0


def test_coloured_code_is_the_code() -> None:
    for snippet in snippets.for_call("http://x", "m", "question-answering", TRICKY):
        assert html.unescape(re.sub(r"</?(?:b|i|em)>", "", snippet.html)) == snippet.text


def test_cards_cannot_run_anything() -> None:
    shown = cards.to_html("# T\n\n<script>alert(1)</script> [x](javascript:alert(1)) ![i](http://evil/x.png)\n\n## Data")
    assert "<script" not in shown and 'href="javascript' not in shown and "<img" not in shown
    assert "<h3>Data</h3>" in shown and "<h1>" not in shown


# ---------- pages ----------
@pytest.mark.parametrize("address", [*PAGES, *FORMS])
def test_strangers_are_sent_to_sign_in(address: str) -> None:
    answer = Client().get(address)
    assert answer.status_code == 302 and answer["Location"].startswith("/accounts/login/")


@pytest.mark.parametrize("address", PAGES)
def test_members_see_every_page_before_and_after_the_first_call(cast: Cast, address: str) -> None:
    for person in (cast.owner, cast.viewer):
        assert browser_for(person).get(address).status_code == 200
    use_something(cast.tenant)
    assert browser_for(cast.owner).get(address).status_code == 200


@pytest.mark.parametrize("address", PAGES)
def test_pages_hold_no_inline_script_or_style(cast: Cast, address: str) -> None:
    page = browser_for(cast.owner).get(address)
    text = page.content.decode()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", text)
    assert "unsafe" not in page["Content-Security-Policy"]


def test_every_text_of_a_template_goes_through_gettext() -> None:
    """Words between tags, or in an attribute that is read out, that no translate tag wraps."""
    tags = r"{% blocktranslate.*?endblocktranslate %}|{% comment.*?endcomment %}|{#.*?#}|{%.*?%}|{{.*?}}"
    names = {"maas", "Ctrl", "Enter", "href"}
    for path in TEMPLATES.rglob("*.html"):
        text = re.sub(r'\sdata-[\w-]+="[^"<>]*"', "", re.sub(tags, "\n", path.read_text(), flags=re.S))
        read_out = " ".join(re.findall(r'(?:placeholder|aria-label|title|alt)="([^"]*)"', text))
        text = re.sub(r"<pre.*?</pre>|<svg.*?</svg>|<code.*?</code>|<[^<>]*>", "\n", text, flags=re.S)
        stray = set(re.findall(r"[A-Za-z]{3,}", text + read_out)) - names
        assert not stray, f"{path.name}: {stray}"


def test_a_viewer_sees_no_button_that_changes_anything(cast: Cast) -> None:
    viewer = browser_for(cast.viewer)
    for address in ("/keys", "/jobs", "/files"):
        text = viewer.get(address).content.decode()
        assert "Create key" not in text and "Revoke" not in text and "New job" not in text


def test_a_viewer_who_posts_anyway_gets_403(cast: Cast) -> None:
    viewer, key = browser_for(cast.viewer), ids.encode(ids.KEY, cast.key.row.id)
    for address in ("/keys/new", f"/keys/{key}/revoke", "/jobs/new", "/getting-started/key", "/getting-started/run"):
        answer = viewer.post(address, {"name": "x", "scopes": "predict", "expires": "never"})
        assert answer.status_code == 403, address
        assert "viewer" in answer.content.decode()
    assert [key.name for key in keys.list_keys(cast.tenant)] == ["test"]


def test_an_address_that_leads_nowhere_is_a_page_with_a_reference(cast: Cast) -> None:
    for browser in (browser_for(cast.owner), Client()):
        answer = browser.get("/nothing-here")
        assert answer.status_code == 404
        assert answer["x-request-id"] in answer.content.decode()


def test_another_tenants_things_are_404(cast: Cast) -> None:
    stranger, key = browser_for(cast.stranger), ids.encode(ids.KEY, cast.key.row.id)
    for address in (f"/keys/{key}/revoke", "/keys/nonsense/revoke"):
        assert stranger.get(address).status_code == stranger.post(address).status_code == 404
    assert keys.get_key(cast.tenant, cast.key.row.id).status == "active"


def test_posts_need_a_csrf_token(cast: Cast) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(cast.owner, backend="allauth.account.auth_backends.AuthenticationBackend")
    answer = strict.post("/keys/new", {"name": "x"})
    assert answer.status_code == 403 and "reload the page" in answer.content.decode()


# ---------- accounts ----------
def test_sign_up_makes_an_organisation_and_ends_on_the_checklist() -> None:
    browser, name = Client(), f"org-{ids.uuid7().hex[-10:]}"
    answer = browser.post(
        "/accounts/signup/", {"email": f"{name}@example.org", "organisation": name, "password1": "a long enough sentence"}, follow=True
    )
    text = answer.content.decode()
    assert answer.redirect_chain[-1][0] == "/" and "Make your first call" in text and name in text


def test_sign_up_says_what_is_wrong_beside_the_field(cast: Cast) -> None:
    answer = Client().post("/accounts/signup/", {"email": "a@example.org", "organisation": cast.tenant.slug, "password1": "short"})
    text = answer.content.decode()
    assert "Two fields need a change." in text
    assert 'aria-invalid="true"' in text and "is taken" in text and "12 characters" in text
    assert 'value="a@example.org"' in text


def test_members_switch_between_their_organisations_only(cast: Cast) -> None:
    second = make_tenant(cast.owner, "second")
    browser = browser_for(cast.owner)
    browser.post("/organisations/switch", {"organisation": second.slug})
    assert second.slug in browser.get("/keys").content.decode()
    browser.post("/organisations/switch", {"organisation": cast.other.slug})
    assert cast.other.slug not in browser.get("/keys").content.decode()


def test_a_user_without_an_organisation_makes_one() -> None:
    browser, name = browser_for(make_user("alone")), f"fresh-{ids.uuid7().hex[-8:]}"
    assert browser.get("/")["Location"] == "/organisations/new"
    assert browser.post("/organisations/new", {"organisation": "No Good"}).status_code == 422
    assert browser.post("/organisations/new", {"organisation": name})["Location"] == "/"


# ---------- keys ----------
def test_a_secret_is_shown_once(cast: Cast) -> None:
    browser = browser_for(cast.owner)
    answer = browser.post("/keys/new", {"name": "edge", "scopes": ["predict", "files"], "expires": "30"})
    secret = re.search(r"maas_[0-9A-Za-z]{46}", answer.content.decode())
    assert secret and answer["Cache-Control"] == "no-store"
    assert keys.find_caller(secret[0]).key.scopes == ["predict", "files"]
    assert secret[0] not in browser.get("/keys").content.decode()


def test_a_key_needs_a_name_and_a_scope(cast: Cast) -> None:
    answer = browser_for(cast.owner).post("/keys/new", {"name": "", "expires": "30"})
    assert answer.status_code == 422 and "Two fields need a change." in answer.content.decode()


def test_a_key_in_use_is_revoked_only_with_its_name(cast: Cast) -> None:
    keys.find_caller(cast.key.secret)
    browser, address = browser_for(cast.owner), f"/keys/{ids.encode(ids.KEY, cast.key.row.id)}/revoke"
    assert browser.post(address, {"name": "wrong"}).status_code == 422
    assert keys.get_key(cast.tenant, cast.key.row.id).status == "active"
    assert browser.post(address, {"name": "test"}).status_code == 302
    assert keys.get_key(cast.tenant, cast.key.row.id).status == "revoked"


# ---------- checklist, usage ----------
def test_the_checklist_follows_the_facts(cast: Cast) -> None:
    person = make_user("fresh")
    tenant, browser = make_tenant(person, "fresh"), browser_for(person)
    assert "Make a key" in browser.get("/").content.decode()
    assert re.search(r"maas_[0-9A-Za-z]{46}", browser.post("/getting-started/key").content.decode())
    assert "Make a key" not in browser.get("/").content.decode()
    assert browser.get("/getting-started/state").status_code == 200
    use_something(tenant)
    assert browser.get("/getting-started/state").status_code == 286
    assert "Getting started, 3 of 4." in browser.get("/").content.decode()
    browser.post("/getting-started/dismiss")
    assert "Getting started" not in browser.get("/").content.decode()


def test_usage_shows_what_the_ledger_holds_at_once(cast: Cast) -> None:
    for _ in range(3):
        use_something(cast.tenant, units=7)
    browser = browser_for(cast.owner)
    for group in ("model", "key", "day"):
        text = browser.get(f"/usage?by={group}").content.decode()
        assert 'id="total-requests">3<' in text and 'id="total-units">21<' in text
    overview = browser.get("/").content.decode()
    assert '<dd class="fig">3</dd>' in overview and '<dd class="fig">21</dd>' in overview


def test_usage_is_downloaded_as_csv_from_the_session(cast: Cast) -> None:
    use_something(cast.tenant)
    browser = browser_for(cast.owner)
    address = re.search(r'href="(/v1/usage[^"]*)"', browser.get("/usage").content.decode())
    assert address
    answer = browser.get(address[1].replace("&amp;", "&"))
    assert answer["Content-Type"].startswith("text/csv") and "some-model" in answer.content.decode()


def test_odd_parameters_change_nothing(cast: Cast) -> None:
    browser = browser_for(cast.owner)
    for address in (
        "/?period=x",
        "/usage?month=9999-99&by=x",
        "/jobs?state=x&after=y",
        "/files?purpose=x&after=z",
        "/models?task=x&q=%00",
        "/models?view=x",
    ):
        assert browser.get(address).status_code == 200, address


@pytest.mark.parametrize("address", ["/keys/new", "/jobs/new"])
def test_pages_answer_only_their_methods(cast: Cast, address: str) -> None:
    assert browser_for(cast.owner).put(address).status_code == 405


def test_the_web_process_loads_no_model_code() -> None:
    code = (
        "import django; django.setup(); import apps.dashboard.urls, sys; sys.exit('torch' in sys.modules or 'onnxruntime' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ---------- jobs and files ----------
LINE = b'{"custom_id": "1", "method": "POST", "url": "/v1/predictions", "body": {"model": "m", "inputs": "x"}}\n'


def upload(browser: Client, body: bytes = LINE, name: str = "lines.jsonl"):
    return browser.post("/jobs/new", {"file": SimpleUploadedFile(name, body)})


def start(cast: Cast) -> Job:
    """A queued batch, as no worker runs here."""
    answer = upload(browser_for(cast.owner))
    found = ids.decode(ids.BATCH, answer["Location"].rsplit("/", 1)[1])
    assert found
    return jobs.get_job(cast.tenant, found)


def change(job: Job, **fields) -> None:
    with as_tenant(job.tenant_id):
        Job.objects.filter(pk=job.pk).update(**fields)


def test_an_upload_becomes_a_batch_with_a_page(cast: Cast) -> None:
    job = start(cast)
    browser, address = browser_for(cast.owner), f"/jobs/{ids.encode(ids.BATCH, job.id)}"
    text = browser.get(address).content.decode()
    assert "lines.jsonl" in text and "Queued" in text and "every 3s" in text
    assert browser.get(address + "/live").status_code == 200
    assert "lines.jsonl" in browser.get("/jobs").content.decode()
    assert "1 active" in browser.get("/account").content.decode()


def test_polling_stops_when_a_job_has_ended(cast: Cast) -> None:
    job = start(cast)
    past = timezone.now() - timedelta(seconds=20)
    change(job, state="succeeded", total=9, completed=8, failed=1, started_at=past, finished_at=timezone.now(), units=8)
    browser, address = browser_for(cast.owner), f"/jobs/{ids.encode(ids.BATCH, job.id)}"
    live = browser.get(address + "/live")
    assert live.status_code == 286 and "Done, 1 failed" in live.content.decode()
    assert "every 3s" not in browser.get(address).content.decode()
    assert browser.get("/jobs/rows").status_code == 286


def test_a_running_job_says_how_far_and_how_long(cast: Cast) -> None:
    job = start(cast)
    past = timezone.now() - timedelta(seconds=40)
    change(job, state="running", total=400, completed=190, failed=10, started_at=past)
    text = browser_for(cast.owner).get(f"/jobs/{ids.encode(ids.BATCH, job.id)}").content.decode()
    assert "50%" in text and "about 40 s" in text and "5 <small>lines/s" in text


def test_a_refused_file_names_its_lines(cast: Cast) -> None:
    job = start(cast)
    problems = [{"code": "invalid_json_line", "line": n, "message": "Not JSON.", "param": None} for n in (4, 17)]
    change(job, state="failed", error={"code": "invalid_json_line", "message": "Line 4: Not JSON.", "data": problems})
    text = browser_for(cast.owner).get(f"/jobs/{ids.encode(ids.BATCH, job.id)}").content.decode()
    assert text.count("Line 4:") == text.count("Line 17:") == 1 and "nothing was charged" in text


def test_cancelling_asks_first(cast: Cast) -> None:
    job = start(cast)
    browser, address = browser_for(cast.owner), f"/jobs/{ids.encode(ids.BATCH, job.id)}/cancel"
    assert "Cancel this job?" in browser.get(address).content.decode()
    assert jobs.get_job(cast.tenant, job.id).state == "queued"
    assert browser.post(address).status_code == 302
    assert jobs.get_job(cast.tenant, job.id).state in {"cancelling", "cancelled"}


@pytest.mark.parametrize(("body", "name", "says"), [(b"", "a.jsonl", "empty"), (LINE, "a\nb.jsonl", "")])
def test_an_upload_that_does_not_fit_is_told_why(cast: Cast, body: bytes, name: str, says: str) -> None:
    answer = upload(browser_for(cast.owner), body, name)
    assert answer.status_code in {302, 422} and says in answer.content.decode()
    assert browser_for(cast.owner).post("/jobs/new").status_code == 422


def test_the_sample_file_is_one_request_a_line(cast: Cast) -> None:
    lines = browser_for(cast.owner).get("/jobs/sample.jsonl").content.decode().splitlines()
    assert all(json.loads(line)["url"] == "/v1/predictions" for line in lines if line)


def test_files_are_taken_home_and_thrown_away(cast: Cast) -> None:
    file = files.create_file(cast.tenant, filename="räum.jsonl", purpose="batch", chunks=[LINE])
    browser, address = browser_for(cast.owner), f"/files/{ids.encode(ids.FILE, file.id)}"
    answer = browser.get(address + "/content")
    assert b"".join(answer.streaming_content) == LINE and "attachment" in answer["Content-Disposition"]
    assert "Delete this file?" in browser.get(address + "/delete").content.decode()
    assert browser.post(address + "/delete").status_code == 302
    assert browser.get(address + "/content").status_code == 404


def test_a_file_that_a_job_reads_is_kept_and_the_page_says_why(cast: Cast) -> None:
    job = start(cast)
    address = f"/files/{ids.encode(ids.FILE, job.batch.input_file_id)}/delete"
    answer = browser_for(cast.owner).post(address)
    assert answer.status_code == 400 and "read by a job" in answer.content.decode()


def test_a_stranger_finds_neither_jobs_nor_files(cast: Cast) -> None:
    job = start(cast)
    stranger, of = browser_for(cast.stranger), ids.encode(ids.BATCH, job.id)
    file = ids.encode(ids.FILE, job.batch.input_file_id)
    for address in (f"/jobs/{of}", f"/jobs/{of}/live", f"/jobs/{of}/cancel", f"/files/{file}/content", f"/files/{file}/delete"):
        assert stranger.get(address).status_code == 404, address
    assert stranger.post(f"/jobs/{of}/cancel").status_code == stranger.post(f"/files/{file}/delete").status_code == 404
    assert "lines.jsonl" not in stranger.get("/jobs").content.decode() + stranger.get("/files").content.decode()


def test_jobs_are_found_by_file_name(cast: Cast) -> None:
    start(cast)
    browser = browser_for(cast.owner)
    assert "/jobs/batch_" in browser.get("/jobs?q=LINES").content.decode()
    text = browser.get("/jobs?q=invoice").content.decode()
    assert "No job here matches “invoice”" in text and "/jobs/batch_" not in text
