"""Blocks of units that a process has reserved and grants to calls from its memory.

A block costs the database one statement for thousands of calls. A call gets a grant only while the block's lease covers
the call's deadline, so nothing is charged to a block after its end; the database would refuse that too. What calls did
not use goes back into the block. When a limit is near, a block is one call.

Each process has its own, each thread may ask. A process that dies loses nothing: the sweep releases its blocks.
"""

import atexit
import time
from dataclasses import dataclass
from threading import Lock
from uuid import UUID

import structlog
from django.db import DatabaseError

from apps.usage.reservations import Work, release, reserve

log = structlog.get_logger(__name__)
BLOCK = 4_096  # units
LEASE = 60.0  # seconds; a block grants calls that wait for half a minute during its first half
SLACK = 15.0  # seconds that a reservation outlives the call that it is for
BLOCKS_KEPT = 10_000


@dataclass(eq=False)
class Block:
    """A reservation in this process's hands. `ends` is this process's monotonic clock."""

    reservation_id: UUID
    tenant_id: UUID
    left: int
    ends: float
    running: int = 0
    retired: bool = False


@dataclass(frozen=True)
class Grant:
    """Units that a call may use, and the reservation that pays for them."""

    block: Block
    units: int

    @property
    def reservation_id(self) -> UUID:
        return self.block.reservation_id


_lock = Lock()
_blocks: dict[Work, Block] = {}
_turns = [Lock() for _ in range(64)]


def grant(work: Work, units: int, *, seconds: float) -> Grant:
    """Units for a call that ends within `seconds`, out of a block or of a reservation of its own.

    Raises what `reservations.reserve` raises.
    """
    found = _from_block(work, units, seconds)
    if found:
        return found
    with _turns[hash(work) % len(_turns)]:  # threads that find a block used up wait for the one that gets the next
        return _from_block(work, units, seconds) or _lease(work, units, seconds)


def at_hand(work: Work, units: int, *, seconds: float) -> bool:
    """Whether `grant` would need nothing of the database just now."""
    with _lock:
        return _room(work, units, seconds) is not None


def grant_at_hand(work: Work, units: int, *, seconds: float) -> Grant | None:
    """The same as `grant` without a trip to the database; None when it needs one."""
    return _from_block(work, units, seconds)


def finish(done: Grant, *, used: int | None) -> None:
    """End a grant; `used` is what was charged, None when that is not known: then nothing goes back into the block."""
    if last := put_back(done, used=used):
        close(last)


def put_back(done: Grant, *, used: int | None) -> Block | None:
    """The same as `finish` without a trip to the database; the block that has to be closed now, when this was its last."""
    block = done.block
    with _lock:
        block.running -= 1
        if used is not None and not block.retired:
            block.left += done.units - used
        return block if block.retired and not block.running else None


def give_back() -> None:
    """Close what nobody uses: a process that ends in good order leaves nothing to the sweep."""
    with _lock:
        idle = [block for block in _blocks.values() if _retire(block)]
        _blocks.clear()
    for block in idle:
        close(block)


def _from_block(work: Work, units: int, seconds: float) -> Grant | None:
    with _lock:
        block = _room(work, units, seconds)
        if block is None:
            return None
        block.left -= units
        block.running += 1
        return Grant(block, units)


def _room(work: Work, units: int, seconds: float) -> Block | None:
    """The block that a call could use. The caller holds the lock."""
    block = _blocks.get(work)
    return block if block and block.left >= units and time.monotonic() + seconds <= block.ends else None


def _lease(work: Work, units: int, seconds: float) -> Grant:
    """A new block takes the place of the old one, unless it is one call's alone."""
    lease = max(LEASE, seconds + SLACK)
    ends = time.monotonic() + lease - SLACK  # taken before the database begins to count
    reservation_id, granted = reserve(work, units, seconds=lease, most=BLOCK)
    block = Block(reservation_id, work.tenant_id, granted - units, ends, running=1, retired=granted == units)
    if not block.retired:
        with _lock:
            idle = [old for old in (_blocks.get(work), _surplus()) if old and _retire(old)]
            _blocks[work] = block
        for old in idle:
            close(old)
    return Grant(block, units)


def _retire(block: Block) -> bool:
    """Grant nothing more from a block; True when nobody uses it and it can be closed at once."""
    block.retired = True
    return not block.running


def close(block: Block) -> None:
    """Give back what is left. A database that is away changes nothing for the caller: the sweep does it later."""
    try:
        release(block.tenant_id, block.reservation_id)
    except DatabaseError as error:
        log.warning("a reservation is left to the sweep", reservation=str(block.reservation_id), error=str(error))


def _surplus() -> Block | None:
    """The block that was made first, when there are more than a process should remember."""
    if len(_blocks) < BLOCKS_KEPT:
        return None
    return _blocks.pop(next(iter(_blocks)))


atexit.register(give_back)
