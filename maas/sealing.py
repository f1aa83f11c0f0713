"""Secrets at rest: sealed with the first key of MAAS_SEALING_KEYS, opened with any of them.

Fernet (AES-128-CBC with HMAC-SHA256, https://github.com/fernet/spec) by the cryptography library; each key is derived
from a text of the settings by HKDF (RFC 5869).
"""

import base64
from functools import cache
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.db import models


class Secret:
    """A text that does not show itself in logs, tracebacks and pages. `reveal()` is the one way to it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "<secret>"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


class SealedField(models.TextField):
    """A column that holds sealed text; in Python it is a `Secret` (or None)."""

    def get_prep_value(self, value: Any) -> str | None:
        return None if value is None else seal(value.reveal() if isinstance(value, Secret) else value)

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Secret | None:
        return None if value is None else Secret(unseal(value))

    def to_python(self, value: Any) -> Secret | None:
        return value if value is None or isinstance(value, Secret) else Secret(value)


def reveal(value: Any) -> str:
    """The text of a sealed column, which type checkers take for a plain one."""
    return Secret.reveal(value)


def seal(text: str) -> str:
    """The text under the first key, as printable ASCII; sealing twice gives two different texts."""
    return _keys(tuple(settings.MAAS_SEALING_KEYS)).encrypt(text.encode()).decode()


def unseal(sealed: str) -> str:
    """The text again. Raises RuntimeError, without the text, when none of the keys fits."""
    try:
        return _keys(tuple(settings.MAAS_SEALING_KEYS)).decrypt(sealed.encode()).decode()
    except InvalidToken:
        raise RuntimeError("A stored secret cannot be opened: MAAS_SEALING_KEYS lacks the key that sealed it.") from None


def reseal(sealed: str) -> str:
    """The same text under the first key, so that older keys can be taken away."""
    return seal(unseal(sealed))


@cache
def _keys(texts: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(_derive(text)) for text in texts])


def _derive(text: str) -> bytes:
    return base64.urlsafe_b64encode(HKDF(SHA256(), 32, salt=None, info=b"maas sealing").derive(text.encode()))
