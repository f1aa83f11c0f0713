"""The servers' side of the online queue: take, answer, say that one lives."""

import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from maas.lines import Command, Lines
from maas.queue import scripts, store
from maas.queue.calls import PREFIX, Answer, Call, pack_answer, read_call

BELL = PREFIX + "bell"
DEPTHS = PREFIX + "depths"
LABELS = PREFIX + "labels"
SERVERS = PREFIX + "servers"
SILENCE = 5  # seconds without a beat after which a server counts as dead
REPLY_SECONDS = 60  # that answers wait for a process that does not fetch them
DIED = pack_answer(
    Answer(
        [], 0, 0.0, 0.0,
        error={"kind": "Unavailable", "message": "The model server died. Nothing was charged; try again.", "param": None, "code": None},
    )
)  # fmt: skip
_own = threading.local()


@dataclass(frozen=True, slots=True)
class Batch:
    """Calls of one version that are run together; no calls when none could be taken. `more`: others wait."""

    version_id: UUID | None
    calls: list[Call]
    more: bool


def take(runner: str, limit: int, *, skip: Iterable[UUID] = ()) -> Batch:
    """Up to `limit` short inputs' worth of waiting calls of the version whose turn it is, fairly over tenants; one larger
    call comes alone. The versions in `skip` are left to other servers.

    The runner holds them until it answers; should it take again, or die, they stand in line once more. Raises RedisError.
    """
    skipped = [version.bytes for version in skip]
    version, left, taken = store.LINES.run(scripts.TAKE, DIED, runner, time.time(), limit, *skipped)
    if not version:
        return Batch(None, [], left > 0)
    version_id = UUID(bytes=version)
    calls = [read_call(version_id, *taken[at : at + 3]) for at in range(0, len(taken), 3)]
    return Batch(version_id, calls, left > 0)


def answer(runner: str, batch: Batch, answers: Mapping[UUID, Answer]) -> None:
    """Hand answers to the callers of a batch in one trip, and let go of all its calls. Raises RedisError."""
    lists: dict[bytes, list[bytes]] = defaultdict(list)
    for call in batch.calls:
        if found := answers.get(call.id):
            lists[call.caller].append(call.id.bytes + pack_answer(found))
    commands: list[Command] = []
    for caller, replies in lists.items():
        commands.append((b"RPUSH", _replies(caller), *replies))
        commands.append((b"EXPIRE", _replies(caller), REPLY_SECONDS))
    bodies = (PREFIX + "bodies:").encode() + batch.version_id.bytes  # type: ignore[union-attr]  # no calls, no answers
    store.LINES.ask(*commands, (b"HDEL", bodies, *(call.id.bytes for call in batch.calls)), (b"DEL", f"{PREFIX}held:{runner}"))


def put_back(runner: str) -> None:
    """Let what a runner holds stand in line again, in front. Raises RedisError."""
    store.LINES.run(scripts.PUT_BACK, "", runner, time.time())


def listen(seconds: float) -> None:
    """Sleep until calls wait, at most this long. Raises RedisError."""
    lines = getattr(_own, "lines", None)
    if lines is None:
        lines = _own.lines = Lines(store.connect, seconds)
    lines.ask((b"BLPOP", BELL, seconds))


def ring(times: int) -> None:
    """Wake so many sleeping servers, whether calls wait or not. Raises RedisError."""
    store.LINES.ask(("RPUSH", BELL, *["1"] * times))


# ---------- life ----------
def beat(server: str, runners: Collection[str], *, ready: bool) -> int:
    """Say that a server lives, and put back what others held that were not heard from for SILENCE seconds.

    How many runners were found dead. Raises RedisError.
    """
    return store.LINES.run(scripts.BEAT, DIED, time.time(), SILENCE, server if ready else "", *runners)  # type: ignore[no-any-return]


def leave(server: str, runners: Collection[str]) -> None:
    """Say that a server has answered all that it held, and ends. Raises RedisError."""
    store.LINES.ask(("ZREM", PREFIX + "ready", server), ("ZREM", SERVERS, *runners))


def alive() -> bool:
    """Whether an online server was heard from in the last seconds. Raises RedisError."""
    return bool(store.LINES.run(scripts.READY, SILENCE) > 0)


def depths() -> dict[UUID, int]:
    """The work that waits, in short inputs, for each version that any waits for. Raises RedisError."""
    found: dict[bytes, bytes] = store.connect().hgetall(DEPTHS)  # type: ignore[assignment]
    return {UUID(bytes=version): int(work) for version, work in found.items()}


def label(labels: Mapping[UUID, str]) -> None:
    """Say what versions are called in figures. Raises RedisError."""
    if labels:
        pairs = [text for version, name in labels.items() for text in (version.bytes, name)]
        store.LINES.ask(("HSET", LABELS, *pairs))


def waiting_by_label(other: str) -> dict[str, int]:
    """The work that waits for each label that servers gave, also where it is none; `other` for versions without one.

    Raises RedisError.
    """
    said: dict[bytes, bytes] = store.connect().hgetall(LABELS)  # type: ignore[assignment]
    labels = {UUID(bytes=version): name.decode() for version, name in said.items()}
    found = dict.fromkeys([*labels.values(), other], 0)
    for version, work in depths().items():
        found[labels.get(version, other)] += work
    return found


def _replies(caller: bytes) -> bytes:
    return (PREFIX + "replies:").encode() + caller
