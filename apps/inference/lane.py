"""The fast lane: a key's call to a model, answered by the event loop without a thread and without the database.

It takes what is plain: a small body, a key and a model that this process remembers, units that it has at hand. Anything else
it declines before it has done anything, and the call goes the long way, through Django and a thread; that way says what is
wrong with a call. What both do with a call is the same: `services.check`, the script of the queue, `endings`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import orjson
import structlog
from django.db import close_old_connections

from apps.accounts import keys
from apps.accounts.authentication import read_secret
from apps.accounts.keys import ApiKey
from apps.accounts.services import Tenant
from apps.billing import allowances, rates
from apps.catalog.services import Version
from apps.inference import embeddings, endings, predictions, remembering, services
from apps.inference.api import read_deadline
from apps.inference.direct import READ_FIRST, UNKNOWN
from apps.inference.endings import Payment
from apps.inference.remembering import Opening
from apps.usage import blocks
from maas import errors, queue
from maas.api import as_error
from maas.fast import Declined, Gone, Reply
from maas.metering import headers_of
from maas.queue.callers import Stale
from maas.queue.coroutines import LoopCallers
from maas.specs import spec_for

READERS: dict[str, Callable[[Any], services.Wanted]] = {"/v1/predictions": predictions.read_body, "/v1/embeddings": embeddings.read_body}
LONG_WAY = (b"idempotency-key", b"content-encoding", b"transfer-encoding", b"expect")
THREADS = 4  # for what goes wrong after a call was put in line: then the database is told
log = structlog.get_logger(__name__)
Receive = Callable[[], Awaitable[dict[str, Any]]]
Result = TypeVar("Result")


@dataclass(slots=True)
class Passage:
    """A call on its way through the lane."""

    wanted: services.Wanted
    opening: Opening
    checked: services.Checked
    pay: Payment
    call: queue.Call
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def tenant(self) -> Tenant:
        return self.opening.caller.tenant

    @property
    def key(self) -> ApiKey:
        return self.opening.caller.key

    @property
    def version(self) -> Version:
        return self.opening.version


class Lane:
    """The fast lane of one event loop; made inside of it."""

    def __init__(self) -> None:
        self._callers = LoopCallers()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="lane")

    def fits(self, scope: dict[str, Any], headers: dict[bytes, bytes]) -> bool:
        """Whether a request may be one for the lane, by what is known before its body is read."""
        length = headers.get(b"content-length", b"")
        return (
            scope["path"] in READERS and scope["method"] == "POST" and not scope["query_string"] and b"authorization" in headers
            and length.isdigit() and int(length) <= READ_FIRST and not any(name in headers for name in LONG_WAY)
        )  # fmt: skip

    async def serve(self, request_id: str, path: str, headers: dict[bytes, bytes], body: bytes, receive: Receive) -> Reply:
        """The answer to a call. `receive` tells, after the body, that the caller went away.

        Raises Declined when the call has to go the long way, as if it had not been here; Gone when its caller has left; else what
        `services.predict` raises, in a Reply.
        """
        passage = _prepare(path, headers, body)
        try:
            return await self._reply(request_id, passage, receive)
        except asyncio.CancelledError:
            await self._callers.cancel(passage.call)
            raise
        finally:
            self._callers.forget(passage.call.id)
            await self._finish(passage.pay)

    async def _reply(self, request_id: str, passage: Passage, receive: Receive) -> Reply:
        try:
            answer = await self._answer(passage, receive)
            return Reply(200, orjson.dumps(_render(passage, answer), option=orjson.OPT_NON_STR_KEYS), passage.headers)
        except errors.MaasError as error:
            return Reply.of(passage.wanted.told(error), passage.headers, request_id)
        except (Declined, Gone):
            raise
        except Exception as error:
            return Reply.of(await self._failed(passage, error, request_id), passage.headers, request_id)

    async def _answer(self, passage: Passage, receive: Receive) -> queue.Answer:
        await self._push(passage)
        answer = await self._wait(passage, receive) or await self._give_up(passage)
        if answer.error:
            await self._take_back(passage)
            raise endings.raised(answer.error)
        passage.pay.used = answer.units
        return answer

    async def _failed(self, passage: Passage, error: Exception, request_id: str) -> errors.MaasError:
        """What nobody foresaw is logged, not charged, and told as ours."""
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            told = as_error(error)
            try:
                await self._take_back(passage)
            except Exception:
                log.exception("a call that failed could not be taken back", call=str(passage.call.id))
        return told

    async def _take_back(self, passage: Passage) -> None:
        await self._in_thread(endings.take_back, passage.tenant, passage.call, passage.version, passage.pay)

    async def _push(self, passage: Passage) -> None:
        """Put the call in line. Declined when it would not pass its rate limits: the long way says so, or lets it through."""
        limits = rates.limits_of(
            passage.tenant, passage.key, model=passage.version.model.name, requests=1, units=passage.checked.likely
        )  # fmt: skip
        passage.pay.used = None  # whatever ends this here, the call may be in line
        try:
            verdict, refusal = await self._callers.push(passage.call, counted=limits, stamps=passage.opening.stamps)
        except Stale:
            passage.pay.used = 0
            remembering.forget(passage.opening)
            raise Declined(UNKNOWN) from None
        except errors.Unavailable:
            await self._take_back(passage)
            raise
        if refusal or not verdict.passed:
            passage.pay.used = 0
        passage.headers |= headers_of(verdict)
        if not verdict.passed:
            raise Declined
        if refusal:
            endings.count(passage.version, "refused")
            raise refusal

    async def _wait(self, passage: Passage, receive: Receive) -> queue.Answer | None:
        """The answer; None when none came in time. A caller that goes away takes its call out of the line."""
        expected = self._callers.expected(passage.call.id)
        end = asyncio.get_running_loop().call_later(passage.call.deadline - time.time(), self._callers.rouse, passage.call.id)
        gone = asyncio.ensure_future(receive())
        gone.add_done_callback(lambda told: None if told.cancelled() else self._callers.rouse(passage.call.id))
        try:
            found = await expected
        finally:
            end.cancel()
            gone.cancel()
        if found is None:
            await self._callers.cancel(passage.call)
        if found is None and gone.done() and not gone.cancelled():
            endings.count(passage.version, "gone")
            raise Gone
        return found

    async def _give_up(self, passage: Passage) -> queue.Answer:
        """The deadline has passed."""
        loop, late = asyncio.get_running_loop(), self._callers.expected(passage.call.id)

        async def wait() -> queue.Answer | None:
            loop.call_later(endings.GRACE_SECONDS, self._callers.rouse, passage.call.id)
            return await late

        def wait_in_thread() -> queue.Answer | None:
            return asyncio.run_coroutine_threadsafe(wait(), loop).result()

        give_up = partial(endings.give_up, late=wait_in_thread)
        return await self._in_thread(give_up, passage.tenant, passage.call, passage.version, passage.pay)

    async def _finish(self, pay: Payment) -> None:
        if last := blocks.put_back(pay.grant, used=pay.used):
            await self._in_thread(blocks.close, last)

    async def _in_thread(self, function: Callable[..., Result], *arguments: Any) -> Result:
        def run() -> Result:
            close_old_connections()
            try:
                return function(*arguments)
            finally:
                close_old_connections()

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)


def _prepare(path: str, headers: dict[bytes, bytes], body: bytes) -> Passage:
    """All that can be done without asking anybody."""
    started = time.time()
    try:
        secret = read_secret(headers[b"authorization"].decode("latin-1"))
        wanted = READERS[path](orjson.loads(body))
        milliseconds = read_deadline(headers[b"x-deadline-ms"].decode("latin-1") if b"x-deadline-ms" in headers else None)
        opening = remembering.find(secret, wanted.model)
        if opening is None or not keys.is_touched(opening.caller.key):
            raise Declined(UNKNOWN)
        return _pay(wanted, opening, started, milliseconds / 1000)
    except Declined:
        raise
    except Exception:  # the long way says what is wrong
        raise Declined from None


def _pay(wanted: services.Wanted, opening: Opening, started: float, seconds: float) -> Passage:
    """A checked call with the units that it may cost."""
    tenant, key, version = opening.caller.tenant, opening.caller.key, opening.version
    wanted.check(version)
    if not spec_for(version.model.task).is_quick(wanted.inputs):
        raise Declined
    checked = services.check(tenant, version, wanted.inputs, wanted.parameters)
    grant = allowances.grant_at_hand(tenant, key_id=key.id, model=version.model.name, units=checked.most, seconds=seconds)
    if grant is None:
        raise Declined
    pay = Payment(grant)
    call = services.make_call(tenant, version, checked, key_id=key.id, pay=pay, started=started, seconds=seconds)
    return Passage(wanted, opening, checked, pay, call)


def _render(passage: Passage, answer: queue.Answer) -> dict[str, Any]:
    return passage.wanted.render(passage.call.id, passage.version, answer)
