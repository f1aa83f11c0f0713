"""Do a thing once per Idempotency-Key (after the IETF draft "The Idempotency-Key HTTP Header Field").

A claim is a committed row with a lease. The answer is stored by a compare-and-set on the claim's fence, in the same
transaction as what the call did wherever that is possible: then a crash undoes both, and a slow call that lost its
lease undoes itself.
"""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import orjson
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _

from apps.idempotency.models import StoredAnswer
from maas import errors, ids
from maas.sealing import reveal
from maas.tenancy import SystemUse, as_system, as_tenant

KEEP = timedelta(hours=24)
SWEEP_LIMIT = 1000  # answers of one sweep, so that it stays short


@dataclass(frozen=True)
class Claim:
    """The right to run a call. `id` is the same for all attempts of a key, `fence` is this attempt's own, and `before` the
    fence of an attempt whose process died or hangs."""

    tenant_id: UUID
    id: UUID
    fence: UUID
    before: UUID | None = None


@dataclass(frozen=True)
class Answer:
    """What the first call was told: its status and JSON."""

    status: int
    data: object


def claim(tenant_id: UUID, key: str, *, fingerprint: bytes, lease: timedelta) -> Claim | Answer:
    """The right to run, or the answer that an earlier call with this key got.

    Raises Unprocessable when the key came with something else before, Conflict while the earlier call still runs.
    """
    fence, until = ids.uuid7(), timezone.now() + lease
    with as_tenant(tenant_id):
        StoredAnswer.objects.filter(_forgotten(), tenant_id=tenant_id, key=key).delete()
        fresh = StoredAnswer(tenant_id=tenant_id, key=key, fingerprint=fingerprint, fence=fence, lease_until=until)
        StoredAnswer.objects.bulk_create([fresh], ignore_conflicts=True)
        row = StoredAnswer.objects.select_for_update().get(tenant_id=tenant_id, key=key)
        return Claim(tenant_id, row.id, fence) if row.fence == fence else _repeat(row, fingerprint, fence, lease)


def _repeat(row: StoredAnswer, fingerprint: bytes, fence: UUID, lease: timedelta) -> Claim | Answer:
    if bytes(row.fingerprint) != fingerprint:
        message = _("This Idempotency-Key was used with another body or address before. Use a new key for a new call.")
        raise errors.Unprocessable(message, param="Idempotency-Key", code="idempotency_key_reused")
    if row.status is not None and row.body is not None:
        return Answer(row.status, orjson.loads(reveal(row.body)))
    if row.lease_until > timezone.now():
        message = _("The first call with this Idempotency-Key still runs. Ask again in a moment.")
        raise errors.Conflict(message, param="Idempotency-Key", code="idempotency_in_progress")
    before, row.fence, row.lease_until = row.fence, fence, timezone.now() + lease
    row.save(update_fields=["fence", "lease_until"])
    return Claim(row.tenant_id, row.id, fence, before)


def store(claim: Claim, *, status: int, data: object) -> None:
    """Keep the answer for 24 h, in the caller's transaction if there is one.

    Raises Conflict when another attempt has taken over, which undoes what the caller's transaction did.
    """
    body = orjson.dumps(data, option=orjson.OPT_NON_STR_KEYS).decode()
    with as_tenant(claim.tenant_id):
        mine = StoredAnswer.objects.filter(tenant_id=claim.tenant_id, pk=claim.id, fence=claim.fence, status=None)
        if not mine.update(status=status, body=body):
            raise errors.Conflict(_("Another call with this Idempotency-Key has taken over. Ask again."), code="idempotency_in_progress")


def release(claim: Claim) -> None:
    """Forget a call that failed: nothing was made, so the key is free again."""
    with as_tenant(claim.tenant_id):
        StoredAnswer.objects.filter(tenant_id=claim.tenant_id, pk=claim.id, fence=claim.fence, status=None).delete()


def sweep_answers() -> None:
    """Forget answers that are older than 24 h."""
    with as_system(SystemUse.SWEEP):
        old = StoredAnswer.objects.filter(_forgotten()).order_by("created_at").values_list("pk", flat=True)[:SWEEP_LIMIT]
        StoredAnswer.objects.filter(pk__in=list(old)).delete()


def _forgotten() -> Q:
    return Q(created_at__lt=timezone.now() - KEEP) & (Q(status__isnull=False) | Q(lease_until__lt=timezone.now()))
