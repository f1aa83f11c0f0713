"""What a key may do, and that nobody gives a key more than they have."""

import ipaddress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.utils import timezone
from django.utils.translation import gettext as _

from apps.accounts.models import ApiKey
from maas import errors
from maas.actors import Permission, current_actor, require

SCOPES = ("predict", "files", "jobs", "models", "usage", "keys", "webhooks")
LIMITS = ("requests_per_minute", "units_per_minute")
LARGEST_LIMIT = 10_000_000  # a minute
LIST_LIMIT = 50  # models or networks that one key may name


@dataclass(frozen=True)
class Restrictions:
    """A key's name and what it is limited to; an empty list of models or addresses limits nothing, nor do empty limits."""

    name: str
    scopes: list[str]
    allowed_models: list[str]
    allowed_addresses: list[str]
    expires_at: datetime | None
    limits: dict[str, int | None]  # a minute, by the names in LIMITS

    @classmethod
    def of(cls, key: ApiKey) -> "Restrictions":
        return cls(**{name: getattr(key, name) for name in cls.__dataclass_fields__})

    def as_json(self) -> dict[str, Any]:
        """For the audit log."""
        return {**self.__dict__, "expires_at": self.expires_at.isoformat() if self.expires_at else None}


def check_restrictions(wanted: Restrictions, *, unchanged_expiry: datetime | None = None) -> Restrictions:
    """The same in its stored form: trimmed, in order, without repeats. Raises BadRequest that names the field."""
    if not wanted.name.strip() or len(wanted.name) > 80:
        raise _bad("name", _("Give the key a name of 1 to 80 characters."))
    if wanted.expires_at and wanted.expires_at != unchanged_expiry and wanted.expires_at <= timezone.now():
        raise _bad("expires_at", _("The expiry must lie in the future."))
    return replace(
        wanted, name=wanted.name.strip(), scopes=_check_scopes(wanted.scopes),
        allowed_models=_check_models(wanted.allowed_models), allowed_addresses=_check_networks(wanted.allowed_addresses),
        limits=_check_limits(wanted.limits),
    )  # fmt: skip


def _bad(param: str, message: str) -> errors.BadRequest:
    return errors.BadRequest(message, param=param, code="invalid_value")


def _check_scopes(scopes: list[str]) -> list[str]:
    if not scopes or (unknown := set(scopes) - set(SCOPES)):
        extra = _("'%(scope)s' is not a scope. ") % {"scope": sorted(unknown)[0]} if scopes else ""
        raise _bad("scopes", extra + _("Choose from: %(scopes)s.") % {"scopes": ", ".join(SCOPES)})
    return sorted(set(scopes), key=SCOPES.index)


def _check_models(names: list[str]) -> list[str]:
    _check_length("allowed_models", names)
    for index, name in enumerate(names):
        if not name.strip() or len(name) > 120 or "@" in name or not name.isprintable():
            message = _("Name a model without a version, such as minilm-squad: a key is limited to models, not to versions.")
            raise _bad(f"allowed_models[{index}]", message)
    return list(dict.fromkeys(name.strip() for name in names))


def _check_networks(texts: list[str]) -> list[str]:
    _check_length("allowed_addresses", texts)
    return list(dict.fromkeys(_network(text, index) for index, text in enumerate(texts)))


def _network(text: str, index: int) -> str:
    try:
        return str(ipaddress.ip_network(text.strip(), strict=False))
    except ValueError:
        message = _("'%(text)s' is no IP address or network. Write 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32.") % {"text": text[:60]}
        raise _bad(f"allowed_addresses[{index}]", message) from None


def _check_limits(limits: dict[str, int | None]) -> dict[str, int | None]:
    """The limits that are set; None sets none."""
    for name, most in limits.items():
        if name not in LIMITS:
            raise _bad("limits", _("'%(name)s' is not a limit. Choose from: %(known)s.") % {"name": name, "known": ", ".join(LIMITS)})
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= LARGEST_LIMIT):
            raise _bad(f"limits.{name}", _("Must be a whole number from 1 to %(most)d.") % {"most": LARGEST_LIMIT})
    return {name: limits[name] for name in LIMITS if limits.get(name) is not None}


def _check_length(param: str, values: list[str]) -> None:
    if len(values) > LIST_LIMIT:
        raise _bad(param, _("Name at most %(n)d.") % {"n": LIST_LIMIT})


def check_grant(tenant_id: UUID, wanted: Restrictions) -> None:
    """Raises Forbidden when the actor would give, or get hold of, more than it has itself.

    A key gives at most its own scopes, models, networks, limits and life. The scope `keys` makes further keys and reads the audit
    log, so of the members only those who may read it give it.
    """
    if "keys" in wanted.scopes:
        require(tenant_id, Permission.AUDIT)
    actor = current_actor()
    if actor.kind != "key":
        return
    missing = sorted(set(wanted.scopes) - actor.permissions)
    if missing:
        raise _too_much("scopes", _("This key lacks the scope '%(scope)s', so it cannot give it.") % {"scope": missing[0]}, "missing_scope")
    if actor.models and not (wanted.allowed_models and set(wanted.allowed_models) <= set(actor.models)):
        raise _too_much("allowed_models", _("This key is limited to: %(own)s. It cannot give more.") % {"own": ", ".join(actor.models)})
    if actor.networks and not (wanted.allowed_addresses and all(_inside(text, actor.networks) for text in wanted.allowed_addresses)):
        own = ", ".join(actor.networks)
        raise _too_much("allowed_addresses", _("This key is limited to: %(own)s. It cannot give more.") % {"own": own})
    for name, most in actor.limits:
        if (wanted.limits.get(name) or most + 1) > most:
            raise _too_much(f"limits.{name}", _("This key is limited to %(n)d a minute. It cannot give more.") % {"n": most})
    if actor.expires_at and (wanted.expires_at is None or wanted.expires_at > actor.expires_at):
        raise _too_much("expires_at", _("This key expires itself; what it makes cannot live longer."))


def _too_much(param: str, message: str, code: str = "exceeds_own_key") -> errors.Forbidden:
    return errors.Forbidden(message, param=param, code=code)


def _inside(text: str, networks: tuple[str, ...]) -> bool:
    inner = ipaddress.ip_network(text)
    outer = (ipaddress.ip_network(network) for network in networks)
    return any(inner.version == one.version and inner.subnet_of(one) for one in outer)  # type: ignore[arg-type]
