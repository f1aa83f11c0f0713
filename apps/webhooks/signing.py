"""Signatures as Standard Webhooks wants them (https://www.standardwebhooks.com, specification 1.0.0)."""

import base64
import hashlib
import hmac
import secrets

PREFIX = "whsec_"


def make_secret() -> str:
    """whsec_ and 32 random bytes in base64."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def sign(secret: str, *, message_id: str, timestamp: int, body: str) -> str:
    """v1, and the HMAC-SHA256 of id, Unix seconds and body with dots between them."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = f"{message_id}.{timestamp}.{body}".encode()
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def headers_for(secrets: list[str], *, message_id: str, timestamp: int, body: str) -> dict[str, str]:
    """The headers of a message; each secret adds a signature, so that receivers can move from one to the next."""
    signatures = [sign(secret, message_id=message_id, timestamp=timestamp, body=body) for secret in secrets]
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }
