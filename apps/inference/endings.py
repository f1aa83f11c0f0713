"""How a call ends that was not answered in time or not at all: nobody pays for it, whatever a server that has it still does."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from apps.accounts.services import Tenant
from apps.catalog import services as catalog
from apps.usage import blocks
from apps.usage import services as usage
from maas import errors, metrics, queue

GRACE_SECONDS = 1.0  # an answer that was charged at the last moment may still be on its way
KINDS = {kind.__name__: kind for kind in (errors.BadRequest, errors.Unavailable, errors.Internal, errors.NotFound)}


@dataclass
class Payment:
    """Units granted to a call. `used` is what of them was charged; None while that is not known."""

    grant: blocks.Grant
    used: int | None = 0


def give_up(
    tenant: Tenant, call: queue.Call, version: catalog.Version, pay: Payment, *, late: Callable[[], queue.Answer | None]
) -> queue.Answer:  # fmt: skip
    """The deadline has passed and the queue was told: nobody pays, unless the answer is on its way already, which `late` waits for.

    Raises DeadlineExceeded.
    """
    pay.used = None
    if void(tenant, call.id, call.key_id, version):
        pay.used = 0
    elif found := late():
        return found
    else:
        usage.reverse_call(tenant, call.id.hex)
    count(version, "timed_out")
    waited = round((call.deadline - call.pushed) * 1000)
    raise errors.DeadlineExceeded(f"'{version.model.name}' gave no answer within {waited} ms. Nothing was charged; try again.")


def take_back(tenant: Tenant, call: queue.Call, version: catalog.Version, pay: Payment) -> None:
    """Make sure that a call is not charged: a server that lost the database may not know whether its charge was written, and
    a queue that could not be reached may hold the call all the same.

    What was charged and is taken back stays out of the block: its month has it again.
    """
    pay.used = None
    if void(tenant, call.id, call.key_id, version):
        pay.used = 0
    else:
        usage.reverse_call(tenant, call.id.hex)


def void(tenant: Tenant, call_id: UUID, key_id: UUID | None, version: catalog.Version) -> bool:
    """Usage and this void compete for one row, so one of the two is true for good; True when it was this."""
    unit = version.rate["unit"]
    line = usage.UsageLine(call_id.hex, "void", version.model.name, version.number, unit, 0, 0, 0, key_id)
    return usage.void_call(tenant, line)


def count(version: catalog.Version, outcome: str) -> None:
    """One more call in the figures of its model that no server tells of."""
    label = metrics.label_of(version.model.name, is_shared=version.model.tenant_id is None)
    metrics.of_model(label).count(outcome)


def raised(fields: dict[str, Any]) -> errors.MaasError:
    """What a server says of a call that failed, as an error."""
    return KINDS.get(fields["kind"], errors.Internal)(fields["message"], param=fields.get("param"), code=fields.get("code"))
