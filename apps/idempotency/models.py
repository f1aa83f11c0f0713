"""Answers that are kept so that a repeated call gets them again."""

from django.db import models

from maas.sealing import SealedField
from maas.tenancy import TenantOwned


class StoredAnswer(TenantOwned):
    """A call that was made with an Idempotency-Key. Without a status it still runs, or its process died.

    `fence` is new with each attempt; only the attempt that holds it may store an answer. Answers hold secrets, such as a
    new API key, so they are sealed.
    """

    key = models.CharField(max_length=255)
    fingerprint = models.BinaryField()  # SHA-256 of what was asked
    fence = models.UUIDField()
    lease_until = models.DateTimeField()
    status = models.IntegerField(null=True)
    body = SealedField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "key"], name="one_answer_a_key")]
        indexes = [models.Index(fields=["created_at"])]
