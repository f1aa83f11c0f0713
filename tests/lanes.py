"""The web server's application on an event loop in this process: requests of it, a desk that answers calls by hand."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from apps.accounts import keys
from apps.accounts.models import Tenant
from apps.inference.lane import Lane
from apps.usage import blocks
from apps.usage.models import UsageRecord
from maas import queue
from maas.asgi import Application, Message
from maas.fast import Reply
from maas.tenancy import as_tenant
from tests.cast import Key
from tests.tiny import NAME, picture

PREDICTIONS, EMBEDDINGS = "/v1/predictions", "/v1/embeddings"
BODY = {"model": NAME, "inputs": picture()}
DARK = queue.Answer([[{"label": "dark", "score": 1.0}]], 3, 1.0, 2.0)
RUNNER = "desk/0"
PATIENCE = 20.0  # seconds
JSON = {"content-type": "application/json"}


@dataclass
class Told:
    """An answer."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])


class Watched(Lane):
    """A lane that counts what it answers itself."""

    answered = 0

    async def serve(self, *arguments: Any) -> Reply:
        reply = await super().serve(*arguments)
        self.answered += 1
        return reply


@dataclass
class House:
    """An application and its event loop, which runs in a thread of its own."""

    loop: asyncio.AbstractEventLoop
    app: Application

    @property
    def lane(self) -> Any:
        return self.app._lane

    @property
    def answered(self) -> int:
        """Requests that the lane has answered itself."""
        return self.lane.answered if self.lane else 0

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE)

    def begin(self, path: str, body: Any, headers: dict[str, str], **more: Any) -> "Future[Told]":
        """A request whose answer is waited for elsewhere."""
        return asyncio.run_coroutine_threadsafe(ask(self.app, path, body, headers, **more), self.loop)

    def ask(self, path: str, body: Any, headers: dict[str, str], **more: Any) -> Told:
        return self.begin(path, body, headers, **more).result(PATIENCE)

    def event(self) -> Callable[[], None]:
        """Sets the event that stands in its `.event`."""
        event = asyncio.Event()

        def set_it() -> None:
            self.loop.call_soon_threadsafe(event.set)

        set_it.event = event  # type: ignore[attr-defined]
        return set_it


async def ask(
    app: Application, path: str, body: Any, headers: dict[str, str], *, gone: asyncio.Event | None = None,
    pieces: list[bytes] | None = None, reads: bool = True, more: list[tuple[bytes, bytes]] | None = None, query: bytes = b"",
    method: str = "POST",
) -> Told:  # fmt: skip
    """One request; its caller leaves when `gone` is set. `pieces` are the messages of a body, of which the last never ends it.

    A caller that does not read takes nothing of its answer.
    """
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    told, messages = Told(), _messages(raw, pieces)
    gone = gone or asyncio.Event()
    given = {"host": "testserver", "content-length": str(len(raw)), **JSON, **headers}
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "path": path, "query_string": query, "scheme": "http", "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in given.items() if value] + (more or []),
        "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 80),
    }  # fmt: skip

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if not reads:
            await gone.wait()
        if message["type"] == "http.response.start":
            told.status = message["status"]
            told.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        told.body += message.get("body", b"")

    await app(scope, receive, send)
    return told


def _messages(raw: bytes, pieces: list[bytes] | None) -> list[Message]:
    if pieces is not None:
        return [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    return [{"type": "http.request", "body": raw, "more_body": True}, {"type": "http.request", "body": b"", "more_body": False}]


@contextmanager
def open_house(threads: int = 8) -> Iterator[House]:
    """A house; when it closes, no request is left, and no call holds units."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    house, others = House(loop, Application(Watched, threads)), set(blocks._blocks.values())
    try:
        yield house
        end = time.monotonic() + 3
        while len(house.do(_tasks())) > 0 and time.monotonic() < end:
            time.sleep(0.02)
        assert house.do(_tasks()) == []
        assert house.lane is None or not house.lane._callers._waiting
        assert not [block for block in blocks._blocks.values() if block.running and block not in others]
    finally:
        house.do(_close(house))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _tasks() -> list[str]:
    """What goes on for a request: everything but the reader, the connections and their writes."""
    mine = asyncio.current_task()
    found = [task for task in asyncio.all_tasks() if task is not mine]
    return [
        str(task)
        for task in found
        if not any(name in str(task) for name in ("Pipe._live", "LoopCallers._read", "send_packed", "Proxy._", "_copy"))
    ]


async def _close(house: House) -> None:
    if house.lane:
        house.lane._callers.close()
    await asyncio.sleep(0.01)


# ---------- the other side of the line ----------
def take(calls: int = 1) -> queue.Batch:
    """So many waiting calls, which the desk holds then."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        batch = queue.take(RUNNER, 256)
        if batch.calls:
            assert len(batch.calls) == calls
            return batch
        time.sleep(0.005)
    raise AssertionError("no call came")


def give(batch: queue.Batch, answer: queue.Answer) -> None:
    """Every call of a batch gets the same answer."""
    queue.answer(RUNNER, batch, {call.id: answer for call in batch.calls})


def in_line() -> int:
    """Bodies of calls that wait or are held."""
    return sum(queue.connect().hlen(key) for key in queue.connect().scan_iter("maas:online:bodies:*"))  # type: ignore[misc]


def until(condition: Callable[[], Any]) -> None:
    """Wait for what happens soon."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@contextmanager
def desk(answer: queue.Answer) -> Iterator[list[queue.Call]]:
    """Calls are answered as they come; the calls."""
    seen: list[queue.Call] = []
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            batch = queue.take(RUNNER, 256)
            if batch.calls:
                seen.extend(batch.calls)
                give(batch, answer)
            else:
                time.sleep(0.003)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


# ---------- what tests say often ----------
def bearer(secret: str, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}", **more}


def limited(cast: Any, **limits: Any) -> Key:
    return Key(*keys.create_key(cast.tenant, name="limited", scopes=["predict"], **limits))


def warm(house: House, secret: str, body: Any = BODY, path: str = PREDICTIONS) -> None:
    """Call until the lane answers this itself."""
    end = time.monotonic() + PATIENCE
    with desk(DARK):
        while (before := house.answered) == house.answered and time.monotonic() < end:
            assert house.ask(path, body, bearer(secret)).status == 200
            if house.answered > before:
                return
    raise AssertionError("the lane never answered")


def left(tenant: Tenant) -> list[int]:
    """Units at hand in the blocks of a tenant."""
    return [block.left for work, block in blocks._blocks.items() if block.tenant_id == tenant.id]


def counted(tenant: Tenant) -> dict[bytes, bytes]:
    """What the rate limits of a tenant hold."""
    redis = queue.connect()
    return {name: redis.get(name) for name in redis.scan_iter(f"maas:rate:{{{tenant.id.hex}}}*", count=1000)}  # type: ignore[misc]


def voided(tenant: Tenant) -> int:
    """Calls that will never be charged, whatever a server says."""
    with as_tenant(tenant.id):
        return UsageRecord.objects.filter(tenant=tenant, kind="void").count()


def goes(house: House, secret: str, body: Any = BODY, **more: Any) -> tuple[bool, Told]:
    """Whether the lane answered a call itself, and the answer, which a desk gives."""
    before = house.answered
    with desk(DARK):
        told = house.ask(PREDICTIONS, body, bearer(secret), **more)
    return house.answered > before, told
