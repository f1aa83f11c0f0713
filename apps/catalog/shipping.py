"""Loading the catalogue that is shipped with maas: folders of `models/` become rows and artifacts."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.files import File
from django.core.files.storage import default_storage
from django.db.models import Max

from apps.catalog.models import Alias, Model, Version
from apps.catalog.services import CURRENT, artifact_path
from maas import errors
from maas.shipped import locate
from maas.stamps import EVERYBODY, renew_on_commit
from maas.tenancy import SystemUse, as_system


def load_folder(folder: Path) -> Iterator[str]:
    """Load every model of the catalogue; a line of progress for each. Loading again changes nothing."""
    for manifest in sorted(folder.glob("*/manifest.json")):
        version, is_new = load_model(manifest.parent)
        yield f"{version.model.name}@{version.number} {'loaded' if is_new else 'is up to date'}"


def load_model(folder: Path) -> tuple[Version, bool]:
    """One folder: bytes into storage first, then the rows in one transaction. True if this made a new version."""
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {name: _store(folder, name, entry) for name, entry in manifest["files"].items()}
    card = (folder / "card.md").read_text()
    with as_system(SystemUse.LOAD_CATALOGUE):
        return _write(manifest, files, card)


def _store(folder: Path, name: str, entry: dict[str, Any]) -> str:
    """Copy a file into storage under its sha256; BadRequest when it is missing or not what the manifest says."""
    try:
        path = locate(folder, name, entry)
    except FileNotFoundError as error:
        raise errors.BadRequest(str(error)) from None
    with path.open("rb") as body:
        found = hashlib.file_digest(body, "sha256").hexdigest()
        if found != entry["sha256"]:
            where = f" ({entry['source']})" if "source" in entry else ""
            raise errors.BadRequest(f"{name} of {folder.name}{where} has the sha256 {found}, its manifest says {entry['sha256']}.")
        target = artifact_path(None, found)
        if not default_storage.exists(target):
            body.seek(0)
            default_storage.save(target, File(body))
    return found


def _write(manifest: dict[str, Any], files: dict[str, str], card: str) -> tuple[Version, bool]:
    model, _ = Model.objects.update_or_create(
        name=manifest["name"], tenant=None, defaults={"task": manifest["task"], "description": manifest["description"]}
    )
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    number = (model.versions.aggregate(last=Max("number"))["last"] or 0) + 1
    facts = {
        "rate": manifest["rate"], "metrics": manifest["metrics"], "recipe": manifest["recipe"],
        "licence": manifest["licence"], "card": card,
    }  # fmt: skip
    version, is_new = model.versions.update_or_create(
        digest=digest, defaults=facts, create_defaults={**facts, "number": number, "files": files, "tenant": None}
    )
    Alias.objects.update_or_create(model=model, name=CURRENT, tenant=None, defaults={"version": version})
    renew_on_commit(EVERYBODY)
    return version, is_new
