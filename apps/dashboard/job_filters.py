"""What a member asked the list of jobs for, in its address: so a filtered list can be paged, linked to and used without JavaScript."""

from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apps.accounts import keys
from apps.accounts.services import Tenant
from apps.catalog import services as catalog
from apps.jobs import services
from maas import errors, ids

LENGTH = 1200  # characters of what is read: two pairs of metadata as long as they can be
CHIPS: dict[str, tuple[str, ...] | None] = {
    "": None,
    "active": tuple(services.ACTIVE),
    "done": ("succeeded",),
    "failed": ("failed", "expired"),
    "cancelled": ("cancelled",),
}
CHIP_WORDS = {
    "": gettext_lazy("All"),
    "active": gettext_lazy("Active"),
    "done": gettext_lazy("Done"),
    "failed": gettext_lazy("Failed"),
    "cancelled": gettext_lazy("Cancelled"),
}


@dataclass(frozen=True)
class Asked:
    """`metadata` is `name=value`, several with commas; `key` the id of a key; each is empty where nothing was asked."""

    state: str
    q: str
    model: str
    key: str
    metadata: str

    @property
    def states(self) -> tuple[str, ...] | None:
        """Those of the chip, None for all."""
        return CHIPS[self.state]

    @property
    def is_narrow(self) -> bool:
        """Whether there is more than the chip and the search."""
        return bool(self.model or self.key or self.metadata)

    @property
    def address(self) -> str:
        """The query string that asks for the same."""
        return urlencode({name: value for name, value in vars(self).items() if value})

    def filters(self) -> Any:
        """For the service; None when nothing can fit."""
        pairs = [pair.strip().partition("=") for pair in self.metadata.split(",") if pair.strip()]
        if not all(mark for _name, mark, _value in pairs):
            return None
        try:
            wanted = {name.strip(): value.strip() for name, _mark, value in pairs}
            return services.read_filters(statuses=[], model=self.model, key=self.key, metadata=wanted)
        except errors.BadRequest:
            return None


def read(request: HttpRequest) -> Asked:
    """What the address asks for; a state that there is not asks for all."""
    texts = {name: request.GET.get(name, "").strip()[:LENGTH] for name in ("model", "key", "metadata")}
    state = request.GET.get("state", "")
    return Asked(state if state in CHIPS else "", request.GET.get("q", "").strip()[:100], **texts)


def chips(asked: Asked, counts: dict[str, int]) -> list[tuple[str, str, int, str]]:
    """The states to choose from: key, words, how many jobs are in one of them, address."""
    return [
        (
            key,
            str(CHIP_WORDS[key]),
            sum(n for state, n in counts.items() if states is None or state in states),
            replace(asked, state=key).address,
        )
        for key, states in CHIPS.items()
    ]


def choices(tenant: Tenant, asked: Asked) -> dict[str, list[tuple[str, str]]]:
    """The models and the keys to choose from as (value, words), what was asked for among them."""
    models = [(model.name, model.name) for model in catalog.list_models(tenant)]
    made = [(ids.encode(ids.KEY, key.id), key.name) for key in keys.list_keys(tenant, with_revoked=True)]
    return {"models": _with(models, asked.model), "keys": _with(made, asked.key)}


def _with(known: list[tuple[str, str]], value: str) -> list[tuple[str, str]]:
    return known if not value or value in dict(known) else [*known, (value, value)]


def told(asked: Asked, of_keys: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What was asked for, in words: title and value."""
    named = (
        (_("State"), str(CHIP_WORDS[asked.state]) if asked.state else ""),
        (_("Search"), asked.q),
        (_("Model"), asked.model),
        (_("Key"), dict(of_keys).get(asked.key, asked.key)),
        (_("Metadata"), asked.metadata),
    )
    return [(title, value) for title, value in named if value]
