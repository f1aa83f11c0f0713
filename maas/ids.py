"""Identifiers: UUIDv7 in the database, a prefix and 32 hex digits on the wire."""

import os
import time
import uuid

FILE, BATCH, PREDICTION, KEY, REQUEST = "file-", "batch_", "pred_", "key_", "req_"
WEBHOOK, EVENT, DELIVERY, AUDIT, INVITATION = "whk_", "evt_", "dlv_", "aud_", "inv_"
BUDGET, INVOICE, CREDIT = "bgt_", "in_", "crd_"


def uuid7() -> uuid.UUID:
    """A time-ordered identifier: 48 bits of Unix milliseconds, then 74 random bits (RFC 9562, section 5.7)."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = milliseconds << 80 | 0x7 << 76 | (random >> 68 & 0xFFF) << 64 | 0b10 << 62 | random & (1 << 62) - 1
    return uuid.UUID(int=value)


def encode(prefix: str, value: uuid.UUID) -> str:
    """`file-` and a UUID to `file-0199...` as the API shows it."""
    return prefix + value.hex


def decode(prefix: str, text: str) -> uuid.UUID | None:
    """The UUID behind an identifier of this kind, or None for any other text."""
    digits = text.removeprefix(prefix)
    if digits == text or len(digits) != 32 or not set(digits) <= set("0123456789abcdef"):
        return None
    return uuid.UUID(digits)
