"""`Idempotency-Key` on the POSTs that make something."""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any
from uuid import UUID

from rest_framework.response import Response

from apps.idempotency import services
from maas import errors
from maas.api import TenantRequest
from maas.tenancy import as_tenant

HEADER = "Idempotency-Key"
LONGEST = 255  # characters of a key
LEASE = timedelta(seconds=60)  # after which a call whose answer is missing counts as dead

Post = Callable[..., Response]


def idempotent(
    post: Post | None = None, *, atomic: bool = True, lease: timedelta = LEASE, fingerprint: Callable[[TenantRequest], bytes] | None = None
) -> Any:
    """Let a POST be repeated safely with the header Idempotency-Key.

    `atomic` runs the POST and the storing of its answer in one transaction. A POST that must not (it waits for a model, or
    stores bytes) makes its effect unique by `request.claim`: see `services.Claim`. `fingerprint` is 32 bytes that tell what
    was asked; by default the address and the body.
    """
    if post is None:
        return lambda function: idempotent(function, atomic=atomic, lease=lease, fingerprint=fingerprint)
    run = _in_one_transaction if atomic else _step_by_step

    @wraps(post)
    def once(view: Any, request: TenantRequest, *args: Any, **kwargs: Any) -> Response:
        request.claim = None
        key = read_key(request)
        if key is None:
            return post(view, request, *args, **kwargs)
        asked = (fingerprint or fingerprint_of_body)(request)
        claim = services.claim(request.tenant.id, key, fingerprint=asked, lease=lease)
        if isinstance(claim, services.Answer):
            return Response(claim.data, status=claim.status, headers={"Idempotency-Replayed": "true"})
        request.claim = claim
        return run(claim, lambda: post(view, request, *args, **kwargs))

    once.is_idempotent = True  # type: ignore[attr-defined]  # the OpenAPI document and a test read it
    return once


def read_key(request: TenantRequest) -> str | None:
    """The key in the header, with or without quotes. BadRequest for one that is malformed or came twice."""
    text = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if text is None:
        return None
    if "," in text:  # so a server joins repeated headers
        message = f"The header {HEADER} came more than once, or holds a comma. Send it once, without commas."
        raise errors.BadRequest(message, param=HEADER, code="duplicate_header")
    key = text.strip()
    key = key[1:-1] if len(key) > 1 and key[0] == key[-1] == '"' else key
    if not 1 <= len(key) <= LONGEST or not key.isascii() or not key.isprintable():
        raise errors.BadRequest(f"{HEADER} must have 1 to {LONGEST} printable ASCII characters.", param=HEADER, code="invalid_header")
    return key


def fingerprint_of_body(request: TenantRequest) -> bytes:
    """SHA-256 of method, address and body."""
    head = f"{request.method} {request.get_full_path()}\n".encode()
    return hashlib.sha256(head + request._request.body).digest()


def made_id(request: TenantRequest) -> UUID | None:
    """The identifier that all attempts of this call share, or None without a key."""
    claim: services.Claim | None = request.claim
    return claim.id if claim else None


def _in_one_transaction(claim: services.Claim, post: Callable[[], Response]) -> Response:
    try:
        with as_tenant(claim.tenant_id):
            response = post()
            services.store(claim, status=response.status_code, data=response.data)
    except Exception:
        services.release(claim)
        raise
    return response


def _step_by_step(claim: services.Claim, post: Callable[[], Response]) -> Response:
    try:
        response = post()
    except Exception:
        services.release(claim)
        raise
    services.store(claim, status=response.status_code, data=response.data)
    return response
