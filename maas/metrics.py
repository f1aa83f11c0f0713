"""Figures of the path of a call for Prometheus: how long calls wait, how many are run together, how long that takes.

All processes of a machine write into files of one folder, which any of them can add up (`maas.scraping` serves that).
Labels name models of the shared catalogue; what organisations own is together in "other", so that no name of theirs is
shown and the number of series stays small.
"""

import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from django.conf import settings

from maas import queue

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram
    from prometheus_client.metrics_core import Metric

OTHER = "other"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class ModelFigures:
    """What is known of one model; looked up once, because a look-up costs more than counting."""

    queue_seconds: "Histogram"
    compute_seconds: "Histogram"
    batch_size: "Histogram"
    calls: "Counter"

    def count(self, outcome: str, calls: int = 1) -> None:
        """So many calls ended like this: answered, failed, given_up, refused, timed_out."""
        if calls:
            self.calls.labels(outcome=outcome).inc(calls)


def folder() -> Path:
    """The files of this machine's processes; machines may share a MAAS_HOME, but not their process ids."""
    return Path(settings.MAAS_HOME) / "run" / "metrics" / socket.gethostname()


@cache
def _instruments() -> tuple[Any, ...]:
    """Made on first use: prometheus-client decides when it is imported where figures are kept."""
    folder().mkdir(parents=True, exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder())
    from prometheus_client import Counter, Gauge, Histogram

    model = ["model"]
    return (
        Histogram("maas_queue_seconds", "From the arrival of a call to the beginning of its run.", model, buckets=SECONDS),
        Histogram("maas_compute_seconds", "The run of a batch.", model, buckets=SECONDS),
        Histogram("maas_batch_size", "Inputs that were run together.", model, buckets=SIZES),
        Counter("maas_calls", "Calls by what became of them.", ["model", "outcome"]),
        Gauge("maas_models_loaded_bytes", "Memory of the loaded models of all processes.", multiprocess_mode="livesum"),
    )


@cache
def of_model(label: str) -> ModelFigures:
    """The figures of a model, by what `label_of` says."""
    waited, computed, sizes, calls, _ = _instruments()
    return ModelFigures(waited.labels(label), computed.labels(label), sizes.labels(label), _Calls(calls, label))  # type: ignore[arg-type]


class _Calls:
    """The counter of one model, its outcomes kept."""

    def __init__(self, counter: "Counter", label: str) -> None:
        self._counter, self._label = counter, label
        self._known: dict[str, Counter] = {}

    def labels(self, *, outcome: str) -> "Counter":
        found = self._known.get(outcome)
        if found is None:
            found = self._known[outcome] = self._counter.labels(self._label, outcome)
        return found


def label_of(name: str, *, is_shared: bool) -> str:
    """What a model is called in figures."""
    return name if is_shared else OTHER


def observe_batch(label: str, waited: Iterable[float], *, seconds: float, inputs: int) -> None:
    """A batch was run: the seconds that each of its calls waited, those of the run, and its inputs."""
    mine = of_model(label)
    for one in waited:
        mine.queue_seconds.observe(max(one, 0.0))
    mine.compute_seconds.observe(seconds)
    mine.batch_size.observe(inputs)


def set_loaded_bytes(count: int) -> None:
    """What the models of this process take."""
    gauge: Gauge = _instruments()[4]
    gauge.set(count)


# ---------- reading ----------
def render() -> bytes:
    """Everything in Prometheus's text format."""
    _instruments()
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    _forget_gauges_of_the_dead()
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder()))
    registry.register(_Waiting())  # type: ignore[arg-type]
    return generate_latest(registry)


class _Waiting:
    """The queue as it is now, for all servers: read when it is asked for."""

    def collect(self) -> Iterator["Metric"]:
        from prometheus_client.core import GaugeMetricFamily

        gauge = GaugeMetricFamily("maas_queue_depth", "Inputs that wait for a server, by their weight in short inputs.", labels=["model"])
        try:
            waiting = queue.waiting_by_label(OTHER)
        except redis.RedisError:
            return  # no figure is better than a wrong one
        for label, work in sorted(waiting.items()):
            gauge.add_metric([label], work)
        yield gauge


def begin() -> None:
    """Forget what a whole earlier life of this machine's processes counted.

    While any of them lives the files of the dead stay, because a sum of counters must not fall.
    """
    files = list(folder().glob("*_*.db"))
    if not any(map(_lives, files)):
        for path in files:
            path.unlink(missing_ok=True)


def _forget_gauges_of_the_dead() -> None:
    for path in folder().glob("gauge_live*.db"):
        if not _lives(path):
            path.unlink(missing_ok=True)


def _lives(path: Path) -> bool:
    """Whether the process that writes this file is still there."""
    number = path.stem.rpartition("_")[2]
    return number.isdecimal() and Path(f"/proc/{number}").exists()
