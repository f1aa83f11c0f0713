"""The image and the composition: checked without an engine."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import needs

ROOT = Path(__file__).resolve().parent.parent
DOCKER = ROOT / "docker"
SECRETS = {"POSTGRES_PASSWORD": "a", "REDIS_PASSWORD": "b", "MAAS_SECRET_KEY": "c"}
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]


def compose_client() -> list[str]:
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True) if shutil.which("docker") else None
    if plugin and plugin.returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else []


@pytest.mark.parametrize("files", [["compose.yaml"], ["compose.yaml", "compose.cuda.yaml"]])
def test_compose_accepts_the_files(files: list[str]) -> None:
    client = compose_client()
    needs(bool(client), "docker compose or docker-compose")
    flags = [flag for name in files for flag in ("-f", str(DOCKER / name))]
    done = subprocess.run([*client, *flags, "config", "--quiet"], env={**os.environ, **SECRETS}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_part_of_the_product_is_a_service() -> None:
    assert {"web", "online", "batch", "light", "train", "beat", "postgres", "redis", "setup"} == set(SERVICES)


def test_every_service_that_stays_has_a_health_check() -> None:
    assert all(service["healthcheck"].get("test") for name, service in SERVICES.items() if name != "setup")


def test_the_product_waits_for_the_set_up() -> None:
    for name in ("web", "online", "batch", "light", "train", "beat"):
        assert SERVICES[name]["depends_on"]["setup"]["condition"] == "service_completed_successfully"


def test_variables_of_the_composition_are_settings() -> None:
    sources = "".join(path.read_text() for path in [*(ROOT / "maas").glob("*.py"), *(ROOT / "workers").rglob("*.py")])
    unknown = [name for name in COMPOSE["x-maas"]["environment"] if f'"{name}"' not in sources]
    assert not unknown


def test_the_example_names_every_variable_that_compose_asks_for() -> None:
    asked = set(re.findall(r"\$\{(\w+):\?", (DOCKER / "compose.yaml").read_text()))
    assert asked == set(SECRETS)
    assert asked <= set(re.findall(r"^(\w+)=", (DOCKER / "example.env").read_text(), re.MULTILINE))


def test_no_secret_has_a_default() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    assert not re.search(r"\$\{(POSTGRES_PASSWORD|REDIS_PASSWORD|MAAS_SECRET_KEY):-", text)


def test_the_image_copies_what_it_runs() -> None:
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    assert names == {line[1:] for line in ignored if line.startswith("!")}
    assert all((ROOT / name).exists() for name in names)


def test_hadolint_accepts_the_image() -> None:
    needs(shutil.which("hadolint") is not None, "hadolint")
    done = subprocess.run(["hadolint", str(DOCKER / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
