"""/v1/audit."""

import json
from datetime import UTC, datetime
from typing import Any

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from apps.audit import services
from maas import errors, ids
from maas.api import MaasView, TenantRequest, list_of, listing, read_cursor, read_page

TYPES = {"jsonl": "application/jsonl", "csv": "text/csv"}
TEXT_LIMIT = 300  # characters of a filter
FILTERS = [
    OpenApiParameter("action", str, description="Names such as key.created, or beginnings such as key., with commas."),
    OpenApiParameter("actor", str, description="Who did it: user_..., key_..., an e-mail address, a key's name, or system."),
    OpenApiParameter("target", str, description="To what: an id as the API spells it."),
    OpenApiParameter("search", str, description="A part of a target, its name, an address or an actor's name."),
    OpenApiParameter("start", str, description="Unix seconds or ISO date."),
    OpenApiParameter("end", str, description="Unix seconds or ISO date, not included."),
]


class ActorOutput(serializers.Serializer):
    kind = serializers.ChoiceField(choices=["user", "key", "system", "nobody"])
    id = serializers.CharField()
    name = serializers.CharField()
    role = serializers.CharField()


class AuditOutput(serializers.Serializer):
    id = serializers.CharField()
    object = serializers.CharField()
    seq = serializers.IntegerField(help_text="The entry's place in the chain, without gaps.")
    created_at = serializers.IntegerField()
    actor = ActorOutput()
    action = serializers.CharField()
    target = serializers.CharField()
    label = serializers.CharField()  # type: ignore[assignment]
    address = serializers.CharField()
    request_id = serializers.CharField()
    before = serializers.DictField(allow_null=True)
    after = serializers.DictField(allow_null=True)
    result = serializers.ChoiceField(choices=["ok", "refused"])
    hash = serializers.CharField(help_text="SHA-256 over the hash before it, seq and the entry.")


def render_entry(entry: services.Entry) -> dict[str, Any]:
    """An entry as the API shows it, from the text that the chain covers."""
    said = json.loads(entry.body)
    shown = {name: said[name] for name in ("action", "target", "label", "address", "request_id", "before", "after", "result")}
    return {
        "id": entry.public_id, "object": "audit_entry", "seq": entry.seq, "created_at": said["at"] // 1000,
        "actor": said["actor"], **shown, "hash": bytes(entry.hash or b"").hex(),
    }  # fmt: skip


class Audit(MaasView):
    required_scope = "keys"

    @extend_schema(
        operation_id="audit_list", responses=list_of(AuditOutput), tags=["Audit"],
        parameters=[
            *FILTERS, OpenApiParameter("after", str), OpenApiParameter("limit", int, description="1 to 100; 20 if missing."),
            OpenApiParameter("order", str, enum=["desc", "asc"]),
        ],
    )  # fmt: skip
    def get(self, request: TenantRequest) -> Response:
        """List who did what, newest first. With order=asc and the last id as after, a program follows the log and misses nothing."""
        page = read_page(request)
        after = read_cursor(page, ids.AUDIT)
        rows, has_more = services.list_entries(request.tenant, read_filters(request), after=after, limit=page.limit, order=page.order)
        return Response(listing([render_entry(entry) for entry in rows], has_more=has_more))


class Export(MaasView):
    required_scope = "keys"

    @extend_schema(
        operation_id="audit_export", tags=["Audit"], parameters=[*FILTERS, OpenApiParameter("format", str, enum=["jsonl", "csv"])],
        responses={(200, kind): OpenApiResponse(OpenApiTypes.STR) for kind in TYPES.values()},
    )  # fmt: skip
    def get(self, request: TenantRequest) -> StreamingHttpResponse:
        """Download the log, oldest entry first, with what is needed to verify it offline. The export is itself an entry."""
        form = request.query_params.get("format", "jsonl")
        body = services.export_entries(request.tenant, read_filters(request), form=form)
        name = f"audit-{request.tenant.slug}-{datetime.now(UTC):%Y-%m-%d}.{form}"
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
        return StreamingHttpResponse(body, content_type=f"{TYPES[form]}; charset=utf-8", headers=headers)


def read_filters(request: TenantRequest) -> services.Filters:
    """The filters of the query string; BadRequest names the one that does not fit."""
    actions = tuple(name for name in (_text(request, "action") or "").split(",") if name)
    return services.Filters(
        actions, _text(request, "actor"), _text(request, "target"), _text(request, "search"),
        _moment(request, "start"), _moment(request, "end"),
    )  # fmt: skip


def _text(request: TenantRequest, name: str) -> str | None:
    text = request.query_params.get(name, "")
    if len(text) > TEXT_LIMIT or "\0" in text:
        raise errors.BadRequest(f"'{name}' must be a text of at most {TEXT_LIMIT} characters.", param=name, code="invalid_value")
    return text or None


def _moment(request: TenantRequest, name: str) -> datetime | None:
    text = request.query_params.get(name)
    if not text:
        return None
    try:
        found = datetime.fromtimestamp(int(text), UTC) if text.isdecimal() else datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise errors.BadRequest(f"'{name}' must be Unix seconds or a date such as 2026-11-01.", param=name, code="invalid_value") from None
