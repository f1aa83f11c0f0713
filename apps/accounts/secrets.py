"""The shape of an API key: `maas_`, 40 random base62 characters, and 6 that a scanner can check offline."""

import hashlib
import re
import secrets
import string
import zlib

PREFIX = "maas_"
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
LENGTH = 40
FORM = re.compile(r"(?<![0-9A-Za-z_])maas_[0-9A-Za-z]{46}(?![0-9A-Za-z])")


def make_secret() -> str:
    """A new key of 238 random bits."""
    body = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
    return PREFIX + body + _checksum(body)


def looks_right(text: str) -> bool:
    """Whether a text has the form of a key and its checksum fits; says nothing of whether the key exists."""
    body, check = text[len(PREFIX) : -6], text[-6:]
    return text.startswith(PREFIX) and len(body) == LENGTH and body.isascii() and check == _checksum(body)


def find_secrets(text: str) -> list[str]:
    """Every different key in a text, in order: by form and checksum, so a made-up one is almost never found."""
    return list(dict.fromkeys(found for found in FORM.findall(text) if looks_right(found)))


def digest(secret: str) -> bytes:
    """What is stored: 32 bytes of SHA-256."""
    return hashlib.sha256(secret.encode()).digest()


def _checksum(body: str) -> str:
    """CRC-32 in six base62 digits, most significant first."""
    rest, digits = zlib.crc32(body.encode()), ""
    for _ in range(6):
        rest, digit = divmod(rest, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
