"""What secrets look like wherever they stand, so that logs and the audit log can hide them."""

import re

REDACTED = "[redacted]"
# Our keys, webhook secrets, other services' keys, tokens, private keys, passwords in addresses, links that let somebody in.
SHAPES = re.compile(
    r"maas_[0-9A-Za-z]{20,}|whsec_[0-9A-Za-z+/=_-]+|\b(?:sk|rk|pk)_(?:live|test)_[0-9A-Za-z]+|\bsk-[0-9A-Za-z_-]{20,}"
    r"|\bgh[pousr]_[0-9A-Za-z]{20,}|\bAKIA[0-9A-Z]{16}\b|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*|\b(?:Bearer|Basic)\s+[\w.+/=~-]{8,}"
    r"|-----BEGIN[^-]*PRIVATE KEY-----.*?(?:-----END[^-]*-----|$)|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"
    r"|(?<=/invitations/)[\w-]{20,}|(?<=/password/reset/key/)[\w-]+|(?<=/confirm-email/)[\w:.-]+",
    re.DOTALL | re.IGNORECASE,
)


def hide_secrets(text: str) -> str:
    """The text with every secret in it replaced."""
    return SHAPES.sub(REDACTED, text)
