"""The servers that maas is compared with: what each needs, how it is started and called.

Settings were chosen after short tries on two cores; `python -m bench.online --tune` tries all of them. The figures stand
in docs/performance.md.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Settings:
    """Processes that run the model, threads of one run, milliseconds that a batch waits for more (of BentoML: the latency that it
    aims for), and whether LitServe's processes speak over ZeroMQ."""

    workers: int
    threads: int
    wait_ms: int | None = None
    is_fast: bool | None = None

    def told(self) -> dict[str, Any]:
        """Those that mean something to the peer."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Peer:
    """One server. `command` makes its arguments from a port and its settings; `body` and `read` are its wire format."""

    name: str
    requirements: list[str]
    command: Callable[[Path, int, Settings], list[str]]
    path: str
    body: Callable[[str, Any], dict[str, Any]]
    read: Callable[[str, Any], Any]
    tried: list[Settings]
    chosen: dict[str, Settings]  # by task; "" for the rest

    def settings(self, task: str) -> Settings:
        """The choice for a task."""
        return self.chosen.get(task, self.chosen[""])


# ---------- wire formats ----------
def _plain(task: str, value: Any) -> dict[str, Any]:
    return {"inputs": value}


def _outputs(task: str, answer: Any) -> Any:
    return answer["outputs"]


def _tensors(task: str, value: Any) -> dict[str, Any]:
    """The V2 protocol: each text is an input of one element."""
    texts = value if isinstance(value, dict) else {"inputs": value}
    return {"inputs": [{"name": name, "shape": [1], "datatype": "BYTES", "data": [text]} for name, text in texts.items()]}


def _untensored(task: str, answer: Any) -> Any:
    data = answer["outputs"][0]["data"]
    return data if task == "feature-extraction" else json.loads(data[0])


# ---------- the four ----------
def _uvicorn(python: Path, port: int, settings: Settings) -> list[str]:
    options = ["--workers", str(settings.workers), "--log-level", "warning", "--no-access-log"]
    return [str(python), "-m", "uvicorn", "fastapi_app:app", "--port", str(port), *options]


def _litserve(python: Path, port: int, settings: Settings) -> list[str]:
    return [str(python), "litserve_app.py", str(port)]


def _bentoml(python: Path, port: int, settings: Settings) -> list[str]:
    return [str(python), "-m", "bentoml", "serve", "bentoml_app:Served", "--port", str(port), "--host", "127.0.0.1", "--working-dir", "."]


def _mlserver(python: Path, port: int, settings: Settings) -> list[str]:
    return [str(python.with_name("mlserver")), "start", "."]


PEERS = (
    Peer(
        "fastapi", ["fastapi==0.165.0", "uvicorn[standard]==0.54.0"], _uvicorn, "/predict", _plain, _outputs,
        tried=[Settings(w, t) for w in (1, 2) for t in (1, 2)], chosen={"": Settings(2, 1)},
    ),
    Peer(
        "litserve", ["litserve==0.2.19"], _litserve, "/predict", _plain, _outputs,
        tried=[Settings(w, t, m, q) for w in (1, 2) for t in (1, 2) for m in (2, 10) for q in (True, False)],
        chosen={"": Settings(2, 1, 2, True)},
    ),
    Peer(
        "bentoml", ["bentoml==1.4.40"], _bentoml, "/predict", lambda task, value: {"inputs": [value]}, lambda task, answer: answer[0],
        tried=[Settings(w, t, m) for w in (1, 2) for t in (1, 2) for m in (200, 60_000)], chosen={"": Settings(2, 1, 60_000)},
    ),
    Peer(
        "mlserver", ["mlserver==1.7.1", "uvloop==0.21.0"], _mlserver, "/v2/models/bench/infer", _tensors, _untensored,
        tried=[Settings(w, t, m) for w in (0, 1, 2) for t in (1, 2) for m in (2, 10)], chosen={"": Settings(1, 2, 2)},
    ),
)  # fmt: skip
