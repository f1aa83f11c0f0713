"""What web processes remember of an organisation ends when it changes: see `maas.stamps`.

These are the facts behind the columns of `maas_open_call`. A key that is made needs none: nobody remembers that it was not.
"""

from maas.events import (
    Event,
    KeyChanged,
    KeyRevoked,
    KeyRotated,
    PlanChanged,
    TenantChanged,
    TenantResumed,
    TenantSuspended,
    subscribe,
)
from maas.stamps import renew_on_commit

KINDS = (KeyChanged, KeyRotated, KeyRevoked, TenantChanged, TenantSuspended, TenantResumed, PlanChanged)


def listen() -> None:
    """Called once, when all apps are ready."""
    for kind in KINDS:
        subscribe(kind, renew_owner)


def renew_owner(event: Event) -> None:
    """The organisation's stamp, once what happened is committed."""
    renew_on_commit(event.tenant_id)
