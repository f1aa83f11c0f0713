"""maas without authentication, limits, reservation and settlement: the same web server, queue and online server.

`python -m bench.online.bare web` serves `application` in the place of that of `maas.wsgi`, `... online` is the online server
whose settlement does nothing. What the full stack takes longer than this is what those four cost.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any
from uuid import UUID

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "maas.settings")
django.setup()

import orjson  # noqa: E402

from apps.catalog import services as catalog  # noqa: E402
from maas import ids, queue  # noqa: E402
from maas.specs import spec_for  # noqa: E402

NOBODY = UUID(int=1)
SECONDS = 30.0
Start = Callable[[str, list[tuple[str, str]]], Any]


def application(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    """POST with `model` and `inputs` to a prediction; GET to 200, so that /readyz is answered."""
    if environ["REQUEST_METHOD"] == "GET":
        return _send(start_response, "200 OK", b"{}")
    body = orjson.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    answer = _predict(body["model"], body["inputs"])
    return _send(start_response, "200 OK" if answer else "504 Gateway Timeout", orjson.dumps(answer))


def _send(start_response: Start, status: str, body: bytes) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def _predict(name: str, value: Any) -> dict[str, Any] | None:
    """The inputs are checked as in the full stack, since a model may only be given clean ones."""
    version, spec, now = _versions()[name], spec_for(_versions()[name].model.task), time.time()
    clean = [spec.check_input(value, _no_file)]
    call = queue.Call(
        id=ids.uuid7(), tenant_id=NOBODY, key_id=None, version_id=version.id, inputs=clean, parameters={}, pushed=now,
        deadline=now + SECONDS, work=spec.work(clean[0]), reservation_id=NOBODY, units=1_000_000,
    )  # fmt: skip
    queue.push(call)
    answer = queue.wait(call.id, SECONDS)
    queue.forget(call.id)
    if answer is None or answer.error:
        return None  # nobody is charged here, so nothing has to be made sure of
    timing = {"queue_ms": round(answer.queue_ms, 1), "compute_ms": round(answer.compute_ms, 1)}
    return {"model": name, "version": version.number, "outputs": answer.outputs[0], "timing": timing}


def _no_file(file_id: str) -> bytes:
    raise ValueError(f"There are no files here, so none called {file_id}.")


@cache
def _versions() -> dict[str, catalog.Version]:
    return {version.model.name: version for version in catalog.shared_versions()}


# ---------- the two servers ----------
def settle_nothing(lines: Iterable[tuple[UUID, Any]]) -> set[str]:
    """As if every call had been charged."""
    return {line.source for _, line in lines}


def serve_online() -> None:
    """The online server until it is told to stop."""
    import signal

    from workers.online import Server

    server = Server(settle=settle_nothing)
    signal.signal(signal.SIGTERM, server.stop)
    signal.signal(signal.SIGINT, server.stop)
    server.run()


def serve_web() -> None:
    """The product's web server, to which this module is the application."""
    from maas import web

    sys.modules["maas.wsgi"] = sys.modules[__name__]
    web.main()


if __name__ == "__main__":
    {"online": serve_online, "web": serve_web}[sys.argv[1]]()
