"""The catalogue: shared models and a tenant's own, their versions, and the files behind them."""

import json
import re
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import IO, Any
from uuid import UUID

from django.core.files.storage import default_storage
from django.db.models import Prefetch, Q

from apps.accounts.services import Tenant
from apps.catalog.models import Alias, Model, Version
from maas import errors
from maas.questions import ask
from maas.tenancy import SystemUse, as_system, as_tenant

REFERENCE = re.compile(r"(?P<name>[a-z0-9][a-z0-9._-]*(?:/[a-z0-9][a-z0-9._-]*)?)(?:@(?P<which>[a-z0-9]+))?")
CURRENT = "current"
FIND = "SELECT maas_find_version($1, $2, $3)"


def list_models(tenant: Tenant, *, task: str | None = None) -> list[Model]:
    """The models that the tenant can call, by name; each with `.versions.all()` and `.aliases.all()` loaded."""
    with as_tenant(tenant.id):
        rows = _visible(tenant).order_by("name")
        return list(rows.filter(task=task) if task else rows)


def get_model(tenant: Tenant, name: str) -> Model:
    """One model, with versions and aliases loaded; NotFound for one that the tenant cannot see."""
    if not REFERENCE.fullmatch(name):
        raise _unknown(name)
    with as_tenant(tenant.id):
        found = _visible(tenant).filter(name=name).first()
    if found is None:
        raise _unknown(name)
    return found


def resolve(tenant: Tenant, reference: str, *, allowed: Collection[str] = (), found: Collection[UUID | None] = ()) -> Version:
    """The version behind `name`, `name@3` or `name@candidate`, with its `.model`.

    `found` holds the answer for `wanted(reference)` if that has been asked. Raises NotFound that says whether the model or the
    version is missing, Forbidden for a model that is not among `allowed`, the models that a key is limited to (none named: all).
    """
    asked = wanted(reference)
    if asked is None:
        raise _unknown(reference)
    name, _, which = reference.partition("@")
    if allowed and name not in allowed:
        message = f"This key may not call '{name}'. It is limited to: {', '.join(sorted(allowed))}."
        raise errors.Forbidden(message, param="model", code="model_not_allowed")
    if not found:
        with as_tenant(tenant.id):
            found = ask((FIND, asked))[0]
    (version_id,) = found
    if version_id is None:
        model = get_model(tenant, name)
        raise errors.NotFound(f"The model '{model.name}' has no version '{which}'.", param="model", code="model_not_found")
    return _known_version(version_id)


def wanted(reference: Any) -> tuple[str, str, int | None] | None:
    """What `maas_find_version` has to be asked to resolve a reference; None when it cannot be one.

    Who remembers the answer has to compare stamps (`maas.stamps`), so that a promotion holds with the next call.
    """
    parts = REFERENCE.fullmatch(reference) if isinstance(reference, str) and len(reference) <= 200 else None
    if parts is None:
        return None
    which = parts["which"] or CURRENT
    return parts["name"], which, int(which) if which.isdecimal() and len(which) < 10 else None


@lru_cache(maxsize=1024)
def _known_version(version_id: UUID) -> Version:
    """A version never changes, so it is read once a process."""
    return get_version(version_id)


def find_version(model: Model, which: str) -> Version | None:
    """A version of a loaded model by number or alias."""
    if which.isdecimal():
        return next((version for version in model.versions.all() if version.number == int(which)), None)
    alias = next((alias for alias in model.aliases.all() if alias.name == which), None)
    return next((version for version in model.versions.all() if alias and version.id == alias.version_id), None)


def current_version(model: Model) -> Version:
    """The version that answers when none is named; every model in the catalogue has one."""
    found = find_version(model, CURRENT)
    if found is None:
        raise errors.Unavailable(f"The model '{model.name}' has no current version yet.")
    return found


def samples(version: Version, limit: int = 100) -> list[dict[str, Any]]:
    """Up to `limit` rows `{"inputs", "attribution"?}` that a newcomer can send as they are."""
    if "samples.jsonl" not in version.files:
        return []
    with open_artifact(version, "samples.jsonl") as lines:
        return [json.loads(line) for _, line in zip(range(limit), lines, strict=False)]


def _visible(tenant: Tenant) -> Any:
    """Rows that a tenant may see; row-level security says the same again."""
    mine = Q(tenant=None) | Q(tenant=tenant)
    versions = Version.objects.order_by("-number").select_related("model")
    return Model.objects.filter(mine, status=Model.Status.READY).prefetch_related(Prefetch("versions", versions), "aliases")


def _unknown(name: str) -> errors.NotFound:
    return errors.NotFound(f"There is no model '{name[:200]}'. GET /v1/models lists them.", param="model", code="model_not_found")


# ---------- artifacts ----------
def artifact_path(tenant_id: UUID | None, sha256: str) -> str:
    """Where the bytes of an artifact lie in storage."""
    return f"artifacts/{tenant_id.hex if tenant_id else 'shared'}/{sha256}"


def open_artifact(version: Version, filename: str) -> IO[bytes]:
    """A file of a version for reading; the caller closes it."""
    return default_storage.open(artifact_path(version.tenant_id, version.files[filename]), "rb")  # type: ignore[return-value]


def read_config(version: Version) -> dict[str, Any]:
    """What a version says of its network, such as the `size` of its vectors."""
    return _known_config(version.tenant_id, version.files["config.json"])


@lru_cache(maxsize=1024)
def _known_config(tenant_id: UUID | None, sha256: str) -> dict[str, Any]:
    with default_storage.open(artifact_path(tenant_id, sha256), "rb") as body:
        found: dict[str, Any] = json.load(body)
    return found


def get_version(version_id: UUID) -> Version:
    """Any tenant's version by its id, with its `.model`: for workers, which load what a checked call names.

    Raises NotFound when it is gone.
    """
    with as_system(SystemUse.READ_VERSION):
        found = Version.objects.select_related("model").filter(pk=version_id).first()
    if found is None:
        raise errors.NotFound("This version of the model no longer exists.", param="model", code="model_not_found")
    return found


def shared_versions() -> Iterator[Version]:
    """The current version of every shared model: what a server prepares before it says that it is ready."""
    with as_system(SystemUse.LOAD_CATALOGUE):
        rows = list(Alias.objects.filter(tenant=None, name=CURRENT).select_related("version__model").order_by("model__name"))
    return (row.version for row in rows)
