"""The rounds: one server at a time, in an order that moves on each round, calibrated before and after.

Every figure of a round is kept. Nothing is compared before all servers have given the answers of the bare model.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.online import answers, raw, reference, serving, stack
from bench.online.comparison import PEERS, Peer
from bench.online.load import LoadError, Window, press, write_bodies
from bench.online.serving import Running
from bench.online.subjects import Subject

MAAS, BARE = "maas", "maas-bare"
SERVERS = (MAAS, BARE, *(peer.name for peer in PEERS))
WARM_CONCURRENCY = 16
PACE, PACED = 100.0, 64  # calls a second, far from what any of the two answers, and the connections that they come over
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is measured, how long each window and its warm-up are, in seconds, and where things are kept."""

    subjects: list[Subject]
    servers: list[str]
    concurrency: list[int]
    rounds: int
    seconds: float
    warm: float
    cache: Path
    home: Path
    models: Path


@dataclass
class Figures:
    """Every window by model and server, every calibration by model, in the order in which they were made."""

    windows: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)
    paced: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)  # by model and server, at PACE
    raw: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    ledger: list[dict[str, Any]] = field(default_factory=list)

    def add(self, subject: Subject, server: str, window: Window) -> None:
        self.windows.setdefault(subject.name, {}).setdefault(server, []).append(asdict(window))


def run(plan: Plan, say: Say) -> Figures:
    """All rounds. LoadError, Refused or Different when a server fails, gives other answers, or a ledger is not what was answered."""
    figures = Figures()
    wanted = {subject.name: reference.reference(subject) for subject in plan.subjects}
    if {MAAS, BARE} & set(plan.servers):
        say("setting maas up")
        with stack.full_stack(plan.home, plan.models):
            pass
    for number in range(plan.rounds):
        _calibrate(plan, figures, say)
        turn = number % len(plan.servers)
        for server in [*plan.servers[turn:], *plan.servers[:turn]]:
            say(f"round {number + 1} of {plan.rounds}: {server}")
            _measure(plan, server, wanted, figures, say)
        _calibrate(plan, figures, say)
    return figures


def _calibrate(plan: Plan, figures: Figures, say: Say) -> None:
    for subject in plan.subjects:
        found = raw.calibrate(subject, max(1.0, plan.seconds / 4))
        figures.raw.setdefault(subject.name, []).append(asdict(found))
        say(f"  raw {subject.name}: {found.alone_ms:.2f} ms alone, {found.per_second:.0f}/s in batches of 32")


def _measure(plan: Plan, server: str, wanted: dict[str, list[Any]], figures: Figures, say: Say) -> None:
    """Every model on one server: answers compared, warmed up, then a window at each concurrency."""
    if server in {MAAS, BARE}:
        with (stack.full_stack if server == MAAS else stack.bare_stack)(plan.home, plan.models) as running:
            for subject in plan.subjects:
                measure = _charged if server == MAAS else _uncharged
                measure(plan, running, subject, wanted[subject.name], figures, say)
        return
    for subject in plan.subjects:
        with serving.serving(peer_named(server), subject, plan.cache) as found:
            _compare(server, found, subject, wanted[subject.name])
            _press(plan, server, found, subject, figures, say)


def peer_named(name: str) -> Peer:
    """One of those that are compared."""
    return next(peer for peer in PEERS if peer.name == name)


def _compare(server: str, running: Running, subject: Subject, wanted: list[Any]) -> list[Any]:
    """The whole answers, which have to be those of the bare model."""
    whole = answers.ask_all(running.target, subject.inputs)
    answers.compare(server, [running.target.read(answer) for answer in whole], wanted)
    return whole


def _press(plan: Plan, server: str, running: Running, subject: Subject, figures: Figures, say: Say) -> list[Window]:
    """The windows of one server and model, that of the warm-up included."""
    bodies = write_bodies(plan.cache / "bodies.jsonl", [running.target.body(value) for value in subject.inputs])
    windows = [_checked(server, press(running.target, bodies, concurrency=WARM_CONCURRENCY, seconds=plan.warm))]
    for concurrency in plan.concurrency:
        window = _checked(server, press(running.target, bodies, concurrency=concurrency, seconds=plan.seconds, cpu=running.cpu))
        windows.append(window)
        figures.add(subject, server, window)
        say(f"  {subject.name} at {concurrency}: {window.per_second:.1f}/s, p50 {window.p50:.1f} ms, {window.cpu_ms:.2f} CPU-ms a call")
    return windows + (_pace(plan, server, running, subject, bodies, figures) if _is_paced(server, subject) else [])


def _is_paced(server: str, subject: Subject) -> bool:
    """Where the latency is told that customers' safety adds: a full machine would show its throughput in the place of that."""
    return server in {MAAS, BARE} and subject.task == "image-classification"


def _pace(plan: Plan, server: str, running: Running, subject: Subject, bodies: Path, figures: Figures) -> list[Window]:
    window = press(running.target, bodies, concurrency=PACED, seconds=plan.seconds, cpu=running.cpu, rate=PACE)
    figures.paced.setdefault(subject.name, {}).setdefault(server, []).append(asdict(window))
    return [_checked(server, window)]


def _checked(server: str, window: Window) -> Window:
    if window.failed:
        raise LoadError(f"{server}: {window.failed} of {window.answered} calls failed at concurrency {window.concurrency}.")
    return window


def _uncharged(plan: Plan, running: stack.Stack, subject: Subject, wanted: list[Any], figures: Figures, say: Say) -> None:
    _compare(BARE, running.running(subject.name), subject, wanted)
    _press(plan, BARE, running.running(subject.name), subject, figures, say)


def _charged(plan: Plan, running: stack.Stack, subject: Subject, wanted: list[Any], figures: Figures, say: Say) -> None:
    """As for the others, with the ledger compared: each answered call is charged once, and nothing else is.

    wrk does not read answers, so units are compared where every input costs the same, which the answers that were read show.
    """
    calls, units = running.ledger(subject.name)
    whole = _compare(MAAS, running.running(subject.name), subject, wanted)
    prices = [answer["usage"]["units"] for answer in whole]
    expect(running, subject, calls + len(whole), units + sum(prices))
    windows = _press(plan, MAAS, running.running(subject.name), subject, figures, say)
    answered, unanswered = (sum(getattr(window, name) for window in windows) for name in ("answered", "unanswered"))
    total = calls + len(whole) + answered
    expected = units + sum(prices) + answered * prices[0] if len(set(prices)) == 1 and not unanswered else None
    found = expect(running, subject, total, expected, unanswered)
    told = {"model": subject.name, "answered": len(whole) + answered, "unanswered": unanswered}
    figures.ledger.append({**told, "calls": found[0] - calls, "units": found[1] - units})


def expect(
    running: stack.Stack, subject: Subject, calls: int, units: int | None, unanswered: int = 0, *, tries: int = 20
) -> tuple[int, int]:
    """The ledger; LoadError when it does not hold these calls and units, and of `unanswered` more any number.

    An answer may be sent a moment before its entry can be read.
    """
    for _ in range(tries):
        found = running.ledger(subject.name)
        if calls <= found[0] <= calls + unanswered and units in {None, found[1]}:
            return found
        time.sleep(0.25)
    raise LoadError(f"The ledger of {subject.name} holds {found[0]} calls and {found[1]} units; answered were {calls} and {units}.")
