"""Pictures that strangers send: base64 and data URLs, looked at before anything large is unpacked."""

import base64
import binascii
import io
from typing import Any

from PIL import Image

from maas import errors

BYTE_LIMIT = 10 * 2**20
PIXEL_LIMIT = 16_000_000
SMALL = 128 * 128  # pixels
PACKED = (b"zTXt", b"iTXt", b"iCCP")  # parts of a PNG beside its pixels that are unpacked, to a megabyte each
SCAN, SCANS = b"\xff\xda", 16  # a JPEG's passes over all its pixels, and how many an ordinary one has at most
FORMATS = ("PNG", "JPEG", "WEBP")
Image.MAX_IMAGE_PIXELS = None  # our own limit is lower than Pillow's, and it looks as early


def decode(value: Any) -> bytes:
    """The bytes of a base64 text or of a `data:image/...;base64,` URL."""
    if not isinstance(value, str):
        raise errors.BadRequest("Must be a picture as base64, as a data URL or as the id of an uploaded file.", code="invalid_type")
    if value.startswith("data:"):
        value = value.partition(",")[2]
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        raise errors.BadRequest("Is not valid base64.", code="invalid_base64") from None


def is_small(value: Any) -> bool:
    """Whether what was sent is a picture that is decoded in far less than a millisecond."""
    try:
        body = decode(value)
        if any(name in body for name in PACKED) or body.count(SCAN) > SCANS:
            return False
        with Image.open(io.BytesIO(body), formats=FORMATS) as picture:
            return picture.width * picture.height <= SMALL
    except Exception:  # told to the caller by `check`
        return False


def check(body: bytes) -> bytes:
    """The same bytes, if they are a whole PNG, JPEG or WebP picture of at most 10 MB and 16 million pixels."""
    if not body:
        raise errors.BadRequest("The picture is empty.", code="empty")
    if len(body) > BYTE_LIMIT:
        raise errors.BadRequest(f"The picture has {len(body):,} bytes; the limit is {BYTE_LIMIT:,}.", code="too_large")
    _unpack(body)
    return body


def _unpack(body: bytes) -> None:
    """Read the header, compare the size, then decode: a small file may unpack to gigabytes."""
    try:
        with Image.open(io.BytesIO(body), formats=FORMATS) as picture:
            if picture.width * picture.height > PIXEL_LIMIT:
                size = f"{picture.width} x {picture.height}"
                raise errors.BadRequest(f"The picture is {size}; the limit is {PIXEL_LIMIT:,} pixels.", code="too_large")
            picture.convert("RGB")
    except errors.BadRequest:
        raise
    except Exception:  # Pillow raises whatever a broken file makes its decoders raise
        raise errors.BadRequest("Is not a readable PNG, JPEG or WebP picture.", code="invalid_image") from None
