"""Delivering: take an endpoint, call it for what is due, note what came of it."""

import threading
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import structlog
from django.utils.translation import gettext as _

from apps.webhooks import claiming, services, signing
from apps.webhooks.claiming import Claim, Result
from apps.webhooks.models import Delivery, Endpoint
from maas import destinations, errors, ids, outgoing, queue

log = structlog.get_logger(__name__)
TURN_SECONDS = 10.0  # then other messages get their turn
DELIVERERS = 8  # threads of one process that may wait for receivers; the others stay free for the sweep
_free = threading.BoundedSemaphore(DELIVERERS)


def deliver_due() -> None:
    """Serve endpoints until nothing is due or the turn is over; then ask for another turn.

    With all deliverers busy it does nothing: each of them looks for more before it ends.
    """
    if not _free.acquire(blocking=False):
        return
    try:
        if not _take_turn(time.monotonic() + TURN_SECONDS):
            queue.nudge("workers.tasks.deliver_webhooks", queue="webhooks")
    finally:
        _free.release()


def _take_turn(end: float) -> bool:
    """Whether nothing is left to do."""
    while claim := claiming.claim_endpoint():
        try:
            serve(claim, end)
        finally:
            claiming.release(claim)
        if time.monotonic() > end:
            return False
    return True


def serve(claim: Claim, end: float) -> None:
    """Deliver to one endpoint until nothing is due, an attempt fails, or the turn is over."""
    while found := claiming.next_delivery(claim):
        endpoint, delivery = found
        result = send(endpoint, delivery)
        settled = claiming.settle(claim, delivery, result)
        if not settled or not result.ok or time.monotonic() > end:
            return


def send(endpoint: Endpoint, delivery: Delivery) -> Result:
    """One call, outside of any transaction. Whatever goes wrong is a result too."""
    message = delivery.message
    begun = time.monotonic()
    headers = signing.headers_for(
        services.valid_secrets(endpoint), message_id=ids.encode(ids.EVENT, message.id), timestamp=int(time.time()), body=message.body
    )
    try:
        answer = outgoing.post(endpoint.url, message.body.encode(), headers)
    except errors.BadRequest as error:
        return Result(headers, None, {}, "", error.message, _since(begun))
    except destinations.Unreachable as error:
        return Result(headers, None, {}, "", str(error), _since(begun))
    return Result(headers, answer.status, answer.headers, answer.body, _judge(answer), _since(begun), _retry_after(answer))


def _since(begun: float) -> int:
    return round((time.monotonic() - begun) * 1000)


def _judge(answer: outgoing.Answer) -> str:
    """Why an answer does not count as success; nothing for one that does."""
    if 200 <= answer.status < 300:
        return ""
    if 300 <= answer.status < 400:
        return _("The server redirects elsewhere, which is not followed. Enter the final address.")
    if answer.status == claiming.GONE:
        return _("The server says that this address is gone for good, so the webhook was switched off.")
    return _("The server answered with status %(status)d.") % {"status": answer.status}


def _retry_after(answer: outgoing.Answer) -> int:
    """Seconds, from either form of the header; 0 without one that can be read."""
    text = next((value.strip() for name, value in answer.headers.items() if name.lower() == "retry-after"), "")
    if text.isdecimal() and text.isascii():
        return int(text[:9])
    try:
        moment = parsedate_to_datetime(text)
        return max(0, round((moment.astimezone(UTC) - datetime.now(UTC)).total_seconds()))
    except (ValueError, TypeError, OverflowError):
        return 0
