"""Secrets never reach the log, even if a publisher puts one into an event by mistake."""

import re
from typing import Any

from maas.redaction import REDACTED, hide_secrets

TEXT_LIMIT = 4_000  # characters of one value
NAMES = re.compile(
    r"(^|[_\-. ])(pass(word|wd|phrase)?\d?|secrets?|tokens?|api_?keys?|private_?keys?|authorization|cookies?|credentials?|otp|totp"
    r"|recovery_?codes?|session_?key|signature)$",
    re.IGNORECASE,
)
CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def redact(value: Any, name: str = "") -> Any:
    """The same JSON without secrets, without what a database cannot hold, and with long texts cut."""
    if value is None or isinstance(value, bool | int):
        return value if value is None or abs(value) < 2**63 else hex(value)[:TEXT_LIMIT]  # JSON readers know no larger ones
    if NAMES.search(CAMEL.sub("_", name)):
        return REDACTED
    if isinstance(value, dict):
        return {redact_text(str(key)): redact(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(inner) for inner in value]
    if isinstance(value, float) and value - value == 0:  # neither infinite nor not a number, which JSON lacks
        return value
    return redact_text(str(value))


def redact_text(text: str) -> str:
    """A text without secrets; NUL and broken characters, which PostgreSQL refuses, are replaced."""
    text = text[: 2 * TEXT_LIMIT]  # longer than what is kept: a secret on the edge is still whole here
    clean = text.encode("utf-8", "replace").decode().replace("\0", "�")
    clean = hide_secrets(clean)
    return clean if len(clean) <= TEXT_LIMIT else clean[:TEXT_LIMIT] + "…"
