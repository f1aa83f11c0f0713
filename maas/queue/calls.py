"""What waits in the queue, and how it is written: a ticket that the scripts read, and a body that only Python reads."""

import struct
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgpack

PREFIX = "maas:online:"
# Call, process of its caller, work, deadline in Unix seconds, weight, how often it came back from a server that died.
TICKET = struct.Struct(">16s16sIdBB")
HEAVIEST = 16  # weight of a tenant


@dataclass(frozen=True, slots=True)
class Call:
    """One waiting prediction call.

    `deadline` is Unix seconds; `inputs` are clean, as `workers.predict` takes them; `work` is what they weigh together,
    in short inputs. `reservation_id` pays for up to `units`. `weight` (1 to 16) is the tenant's share beside others.
    `again` is set by the queue: a server that held the call has died.
    """

    id: UUID
    tenant_id: UUID
    key_id: UUID | None
    version_id: UUID
    inputs: list[Any]
    parameters: dict[str, Any]
    pushed: float
    deadline: float
    work: int
    reservation_id: UUID
    units: int
    weight: int = 1
    caller: bytes = field(default=b"", compare=False, repr=False)
    again: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server made of a call: its outputs, the units charged, milliseconds in the queue and in the model, the
    quantity that was worked on, such as tokens, and the inputs that were run together."""

    outputs: list[Any]
    units: int
    queue_ms: float
    compute_ms: float
    error: dict[str, Any] | None = None
    quantity: int = 0
    batch: int = 1


def ticket_of(call: Call, caller: bytes) -> bytes:
    """What the scripts need to know of a call; `caller` is the name of its process, 16 bytes."""
    return TICKET.pack(call.id.bytes, caller, call.work, call.deadline, max(1, min(call.weight, HEAVIEST)), 0)


def pack_body(call: Call) -> bytes:
    """The rest of a call."""
    key = call.key_id.bytes if call.key_id else None
    return msgpack.packb((key, call.reservation_id.bytes, call.inputs, call.parameters, call.pushed, call.units))  # type: ignore[no-any-return]


def read_call(version_id: UUID, tenant: bytes, ticket: bytes, body: bytes) -> Call:
    """A call as it was before `ticket_of` and `pack_body`."""
    call_id, caller, work, deadline, weight, returns = TICKET.unpack(ticket)
    key, reservation, inputs, parameters, pushed, units = msgpack.unpackb(body)
    return Call(
        UUID(bytes=call_id), UUID(bytes=tenant), UUID(bytes=key) if key else None, version_id, inputs, parameters, pushed, deadline, work,
        UUID(bytes=reservation), units, weight, caller, returns > 0,
    )  # fmt: skip


def pack_answer(answer: Answer) -> bytes:
    """An answer without its call."""
    found = answer
    return msgpack.packb((found.outputs, found.units, found.queue_ms, found.compute_ms, found.error, found.quantity, found.batch))  # type: ignore[no-any-return]


def read_answer(packed: bytes) -> Answer:
    """An answer as it was before `pack_answer`."""
    return Answer(*msgpack.unpackb(packed))
