"""maas without authentication, limits, reservation and settlement: the same web server, queue and online server.

`python -m bench.online.bare web` has `Lane` in the place of the product's own, `... online` is the online server
whose settlement does nothing. What the full stack takes longer than this is what those four cost.
"""

import asyncio
import os
import sys
import time
from collections.abc import Iterable
from functools import cache
from typing import Any
from uuid import UUID

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "maas.settings")
django.setup()

import orjson  # noqa: E402

from apps.catalog import services as catalog  # noqa: E402
from maas import ids, queue  # noqa: E402
from maas.fast import Reply  # noqa: E402
from maas.queue.coroutines import LoopCallers  # noqa: E402
from maas.specs import spec_for  # noqa: E402

NOBODY = UUID(int=1)
SECONDS = 30.0


class Lane:
    """POST with `model` and `inputs` to a prediction, in the event loop like the product's own lane; nothing else is taken."""

    def __init__(self) -> None:
        self._callers = LoopCallers()

    def fits(self, scope: dict[str, Any], headers: dict[bytes, bytes]) -> bool:
        return scope["method"] == "POST"  # type: ignore[no-any-return]

    async def serve(self, request_id: str, path: str, headers: dict[bytes, bytes], body: bytes, receive: Any) -> Reply:
        """The answer, or 504: nobody is charged here, so nothing has to be made sure of."""
        asked = orjson.loads(body)
        call = _call(asked["model"], asked["inputs"])
        await self._callers.push(call)
        try:
            answer = await asyncio.wait_for(self._callers.expected(call.id), SECONDS)
        except TimeoutError:
            return Reply(504, b"{}", {})
        finally:
            self._callers.forget(call.id)
        return Reply(504, b"{}", {}) if answer.error else Reply(200, orjson.dumps(_body(asked["model"], answer)), {})


def _call(name: str, value: Any) -> queue.Call:
    """The inputs are checked as in the full stack, since a model may only be given clean ones."""
    version, spec, now = _versions()[name], spec_for(_versions()[name].model.task), time.time()
    clean = [spec.check_input(value, _no_file)]
    return queue.Call(
        id=ids.uuid7(), tenant_id=NOBODY, key_id=None, version_id=version.id, inputs=clean, parameters={}, pushed=now,
        deadline=now + SECONDS, work=spec.work(clean[0]), reservation_id=NOBODY, units=1_000_000,
    )  # fmt: skip


def _body(name: str, answer: queue.Answer) -> dict[str, Any]:
    timing = {"queue_ms": round(answer.queue_ms, 1), "compute_ms": round(answer.compute_ms, 1)}
    return {"model": name, "version": _versions()[name].number, "outputs": answer.outputs[0], "timing": timing}


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
    """The product's web server with this lane in the place of its own."""
    from django.conf import settings

    from bench.online import bare
    from maas import web

    settings.MAAS_LANE = "bench.online.bare.Lane"
    bare._versions()  # the database is not asked inside of the event loop; and this module is __main__ here
    web.main()


if __name__ == "__main__":
    {"online": serve_online, "web": serve_web}[sys.argv[1]]()
