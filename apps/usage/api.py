"""/v1/usage."""

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.response import Response

from apps.usage import services
from maas import errors, ids
from maas.api import MaasView, TenantRequest


class UsageRow(serializers.Serializer):
    day = serializers.CharField(required=False)
    hour = serializers.CharField(required=False)
    model = serializers.CharField(required=False)
    key = serializers.CharField(required=False, allow_null=True)
    job = serializers.CharField(required=False, allow_null=True)
    unit = serializers.CharField()
    requests = serializers.IntegerField()
    quantity = serializers.IntegerField()
    units = serializers.IntegerField()


REPORT = inline_serializer(
    "UsageReport",
    {
        "object": serializers.CharField(), "start": serializers.IntegerField(), "end": serializers.IntegerField(),
        "data": UsageRow(many=True), "has_more": serializers.BooleanField(),
    },
)  # fmt: skip


class Usage(MaasView):
    required_scope = "usage"

    @extend_schema(
        operation_id="usage_report", responses=REPORT, tags=["Usage"],
        parameters=[
            OpenApiParameter("start", str, description="Unix seconds or ISO date; the first of this month if missing."),
            OpenApiParameter("end", str, description="Unix seconds or ISO date, not included; now if missing."),
            OpenApiParameter("group_by", str, description="day, hour, model, key, job; several with commas."),
            OpenApiParameter("format", str, enum=["json", "csv"]),
        ],
    )  # fmt: skip
    def get(self, request: TenantRequest) -> Response | HttpResponse:
        """Add up usage from the ledger. `Accept: text/csv` or `format=csv` gives CSV."""
        start, end = read_span(request)
        groups = [name for name in request.query_params.get("group_by", "day").split(",") if name]
        rows = services.report(request.tenant, start=start, end=end, group_by=groups)
        data = [render_row(row) for row in rows]
        if "text/csv" in request.META.get("HTTP_ACCEPT", "") or request.query_params.get("format") == "csv":
            return csv_response(data, groups)
        return Response({"object": "list", "start": int(start.timestamp()), "end": int(end.timestamp()), "data": data, "has_more": False})


def read_span(request: TenantRequest) -> tuple[datetime, datetime]:
    """`start` and `end` of the query string in UTC."""
    now = timezone.now()
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return _moment(request, "start", first), _moment(request, "end", now + timedelta(seconds=1))


def _moment(request: TenantRequest, name: str, default: datetime) -> datetime:
    text = request.query_params.get(name)
    if not text:
        return default
    try:
        found = datetime.fromtimestamp(int(text), UTC) if text.isdecimal() else datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise errors.BadRequest(f"'{name}' must be Unix seconds or a date such as 2026-11-01.", param=name, code="invalid_value") from None


def render_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the report with identifiers as the API spells them."""
    prefixes = {"key": ids.KEY, "job": ids.BATCH}
    return {name: ids.encode(prefixes[name], value) if name in prefixes and value else value for name, value in row.items()}


def csv_response(data: list[dict[str, Any]], groups: list[str]) -> HttpResponse:
    """The same rows as CSV with a header."""
    body = io.StringIO()
    writer = csv.DictWriter(body, [*groups, "unit", "requests", "quantity", "units"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(data)
    name = {"Content-Disposition": 'attachment; filename="usage.csv"'}
    return HttpResponse(body.getvalue(), content_type="text/csv; charset=utf-8", headers=name)
