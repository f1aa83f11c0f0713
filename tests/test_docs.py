"""The documents say what the code does."""

import json
import re
from io import StringIO

from django.core.management import call_command

from tests.conftest import ROOT


def test_every_setting_is_in_the_readme() -> None:
    code = (ROOT / "maas" / "settings.py").read_text() + (ROOT / "maas" / "web.py").read_text()
    names = set(re.findall(r'"((?:MAAS|DATABASE|REDIS)_[A-Z_]+)"', code)) - {
        "MAAS_EMAIL_PORT",
        "MAAS_EMAIL_USER",
        "MAAS_EMAIL_PASSWORD",
        "MAAS_EMAIL_TLS",
        "MAAS_EMAIL_FROM",
    }
    readme = (ROOT / "README.md").read_text()
    assert {name for name in names if f"`{name}`" not in readme} == set()


def test_links_in_the_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), (document.name, target)


def test_the_committed_openapi_document_is_what_the_code_says() -> None:
    out = StringIO()
    call_command("spectacular", "--format", "openapi-json", "--validate", "--fail-on-warn", stdout=out)
    assert json.loads(out.getvalue()) == json.loads((ROOT / "docs" / "openapi.json").read_text())


def test_every_error_code_in_the_guide_exists_in_the_code() -> None:
    guide = (ROOT / "docs" / "predictions.md").read_text()
    codes = re.findall(r"`([a-z_]+)`", guide[guide.index("| status | code") :])
    code = "\n".join(path.read_text() for folder in ("maas", "apps", "workers") for path in (ROOT / folder).rglob("*.py"))
    assert {name for name in codes if f'"{name}"' not in code} == set()
