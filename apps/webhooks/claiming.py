"""Who delivers what: an endpoint is taken by one worker at a time, in turn over tenants, and held by a lease.

Every step is a transaction of its own; the call itself is made outside of all of them. A worker that dies leaves a lease
that ends by itself, and what it sent without noting so is sent again with the same id.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.db.models import F
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from apps.webhooks.models import Attempt, Delivery, Endpoint, State
from apps.webhooks.services import switch_off
from maas.tenancy import SystemUse, as_system, as_tenant

LEASE = timedelta(seconds=20)  # a call ends after 15
TENANT_LEASES = 4  # endpoints of one tenant that are served side by side
LONGEST_PAUSE = 60  # seconds that an endpoint is left alone after failures in a row
FAILING_DAYS = timedelta(days=5)  # without a success, then it is switched off
GONE = 410
JITTER = 0.1

# One look at the index for each endpoint that something waits for, however much that is. The tenant whose turn was longest
# ago comes first, and of its endpoints the one served longest ago.
TURNS = """
WITH RECURSIVE waiting (id) AS (
    (SELECT endpoint_id FROM webhooks_delivery WHERE state = 'pending' ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT later.endpoint_id FROM webhooks_delivery later WHERE later.state = 'pending' AND later.endpoint_id > waiting.id
            ORDER BY later.endpoint_id LIMIT 1)
    FROM waiting WHERE waiting.id IS NOT NULL
), tenants AS MATERIALIZED (
    SELECT tenant_id, max(served_at) AS turn, count(*) FILTER (WHERE lease_until > now()) AS held FROM webhooks_endpoint
    WHERE tenant_id IN (SELECT tenant_id FROM webhooks_endpoint JOIN waiting USING (id)) GROUP BY tenant_id
), turns AS MATERIALIZED (
    SELECT id, turn, served_at FROM waiting JOIN webhooks_endpoint endpoint USING (id) JOIN tenants USING (tenant_id)
    WHERE enabled AND tenants.held < %s AND (lease_until IS NULL OR lease_until < now()) AND (pause_until IS NULL OR pause_until < now())
          AND EXISTS (SELECT FROM webhooks_delivery WHERE endpoint_id = endpoint.id AND state = 'pending' AND next_at <= now())
)
"""
TAKE = """
, taken AS (
    SELECT free.id FROM (SELECT * FROM turns ORDER BY turn NULLS FIRST, served_at NULLS FIRST) in_order
    CROSS JOIN LATERAL (
        SELECT id FROM webhooks_endpoint
        WHERE id = in_order.id AND enabled AND (lease_until IS NULL OR lease_until < now()) FOR NO KEY UPDATE SKIP LOCKED
    ) free LIMIT 1
)
UPDATE webhooks_endpoint SET lease_until = now() + make_interval(secs => %s), fence = fence + 1, served_at = clock_timestamp()
FROM taken WHERE webhooks_endpoint.id = taken.id RETURNING webhooks_endpoint.id, tenant_id, fence
"""
COUNT = "SELECT count(*) FROM (SELECT FROM turns LIMIT %s) found"


@dataclass(frozen=True)
class Claim:
    """An endpoint in this worker's hands, as long as its fence is the latest."""

    endpoint_id: UUID
    tenant_id: UUID
    fence: int


@dataclass(frozen=True)
class Result:
    """What came of a call. Without a status there was no answer, and `error` says why; `retry_after` is in seconds."""

    headers: dict[str, str]  # of the request
    status: int | None
    answer_headers: dict[str, str]
    body: str
    error: str
    milliseconds: int
    retry_after: int = 0

    @property
    def ok(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


# ---------- taking ----------
def claim_endpoint() -> Claim | None:
    """Take the next endpoint of any tenant that something is due for, or None."""
    with as_system(SystemUse.DELIVER_WEBHOOKS), connection.cursor() as cursor:
        cursor.execute(TURNS + TAKE, [TENANT_LEASES, LEASE.total_seconds()])
        row = cursor.fetchone()
    return Claim(*row) if row else None


def count_due(most: int) -> int:
    """Endpoints that something is due for and nobody serves, counted up to `most`."""
    with as_system(SystemUse.DELIVER_WEBHOOKS), connection.cursor() as cursor:
        cursor.execute(TURNS + COUNT, [TENANT_LEASES, most])
        return int(cursor.fetchone()[0])


def next_delivery(claim: Claim) -> tuple[Endpoint, Delivery] | None:
    """What is due first; the lease starts again. None when nothing is due or the endpoint is another worker's by now."""
    with as_tenant(claim.tenant_id):
        if not _mine(claim).filter(enabled=True).update(lease_until=Now() + LEASE):
            return None
        due = Delivery.objects.filter(tenant_id=claim.tenant_id, endpoint_id=claim.endpoint_id, state=State.PENDING, next_at__lte=Now())
        found = due.select_related("endpoint", "message").order_by("next_at", "id").first()
    return (found.endpoint, found) if found else None


def release(claim: Claim) -> None:
    """Let another worker have the endpoint."""
    with as_tenant(claim.tenant_id):
        _mine(claim).update(lease_until=None)


def _mine(claim: Claim) -> Any:
    return Endpoint.objects.filter(tenant_id=claim.tenant_id, pk=claim.endpoint_id, fence=claim.fence)


# ---------- noting ----------
def settle(claim: Claim, delivery: Delivery, result: Result, *, dice: Callable[[], float] = random.random) -> bool:
    """Note an attempt and what follows from it; False when the endpoint was lost meanwhile, and then nothing is noted.

    `dice` gives 0 to 1 and spreads the next attempts.
    """
    short = {"last_at": timezone.now(), "last_status": result.status, "last_error": result.error[:300]}
    with as_tenant(claim.tenant_id):
        if not _mine(claim).update(**short, **_health(delivery.endpoint, result)):
            return False
        _note(delivery, result, short, dice())
        _keep(delivery, result)
        _switch_off_if_due(claim, result)
    return True


def _health(endpoint: Endpoint, result: Result) -> dict[str, Any]:
    """How the endpoint does: failures in a row make it wait 1, 2, 4 .. 60 s."""
    if result.ok:
        return {"failing_since": None, "failures": 0, "pause_until": None}
    pause = timedelta(seconds=min(LONGEST_PAUSE, 2 ** min(endpoint.failures, 10)))
    return {"failing_since": Coalesce("failing_since", Now()), "failures": F("failures") + 1, "pause_until": Now() + pause}


def _note(delivery: Delivery, result: Result, short: dict[str, Any], chance: float) -> None:
    row = Delivery.objects.filter(tenant_id=delivery.tenant_id, pk=delivery.pk)
    row.update(attempts=F("attempts") + 1, **short)
    if result.ok:
        row.update(state=State.DELIVERED, next_at=None, ended_at=timezone.now())
        return
    # Whoever sent it anew meanwhile has set the step back, and it is due at once: that stays.
    waiting = row.filter(state=State.PENDING, step=delivery.step, next_at=delivery.next_at)
    wait = next_wait(delivery.step, result.retry_after, chance)
    if wait is None:
        waiting.update(state=State.FAILED, next_at=None, ended_at=timezone.now())
    else:
        waiting.update(step=F("step") + 1, next_at=timezone.now() + wait)


def next_wait(step: int, retry_after: int, chance: float) -> timedelta | None:
    """How long after the failed attempt number `step` (from 0) the next one comes; None after the last.

    A receiver that names a time is given it, up to the wait after this one.
    """
    waits: list[int] = settings.MAAS_WEBHOOK_RETRIES
    if step >= len(waits):
        return None
    longest = max(waits[step : step + 2])
    seconds = max(waits[step], min(retry_after, longest))
    return timedelta(seconds=seconds * (1 + JITTER * (2 * chance - 1)))


def _keep(delivery: Delivery, result: Result) -> None:
    Attempt.objects.create(
        tenant_id=delivery.tenant_id, delivery=delivery, number=delivery.attempts + 1, url=delivery.endpoint.url,
        request_headers=result.headers, status=result.status, response_headers=result.answer_headers,
        response_body=result.body, error=result.error[:300], milliseconds=result.milliseconds,
    )  # fmt: skip


def _switch_off_if_due(claim: Claim, result: Result) -> None:
    endpoint = Endpoint.objects.get(tenant_id=claim.tenant_id, pk=claim.endpoint_id)
    if result.status == GONE:
        switch_off(endpoint, reason="gone")
    elif endpoint.failing_since and _long_ago(endpoint.failing_since):
        switch_off(endpoint, reason="failing")


def _long_ago(moment: datetime) -> bool:
    return moment < timezone.now() - FAILING_DAYS
