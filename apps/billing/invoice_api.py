"""/v1/invoices."""

import csv
import io
from datetime import UTC, date, datetime
from typing import Any

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from apps.billing import invoices
from maas import errors, ids
from maas.api import MaasView, TenantRequest, list_of, listing, read_cursor, read_page, require_id, seconds

COLUMNS = ("kind", "text", "model", "key", "units", "included", "charged", "unit_price", "amount", "amount_cents")
AFTER = [OpenApiParameter("after", str), OpenApiParameter("limit", int, description="1 to 100; 20 if missing.")]
AS_CSV = OpenApiParameter("format", str, enum=["json", "csv"], description="csv: the lines alone. `Accept: text/csv` does the same.")


class LineOutput(serializers.Serializer):
    kind = serializers.CharField(help_text="plan, proration, usage, credit, waived or other; detail: a part of the line of the units.")
    text = serializers.CharField()
    model = serializers.CharField(allow_null=True)
    key = serializers.CharField(allow_null=True)
    units = serializers.IntegerField(allow_null=True)
    included = serializers.IntegerField(allow_null=True, help_text="Units that the plan includes.")
    charged = serializers.IntegerField(allow_null=True, help_text="Units above those.")
    unit_price = serializers.IntegerField(allow_null=True, help_text="Micro-dollars.")
    amount = serializers.IntegerField(help_text="Micro-dollars, before rounding.")
    amount_cents = serializers.IntegerField(allow_null=True, help_text="Rounded once, half to even. Null: a detail.")


class InvoiceOutput(serializers.Serializer):
    id = serializers.CharField()
    object = serializers.CharField()
    number = serializers.CharField(allow_null=True)
    state = serializers.ChoiceField(choices=invoices.InvoiceState.values)
    collected_by = serializers.ChoiceField(choices=["manual", "stripe"])
    period = serializers.CharField(help_text="The UTC month of the units, such as 2026-11.")
    currency = serializers.CharField()
    subtotal_cents = serializers.IntegerField()
    tax_cents = serializers.IntegerField()
    total_cents = serializers.IntegerField()
    issued_at = serializers.IntegerField(allow_null=True)
    due_at = serializers.IntegerField(allow_null=True)
    paid_at = serializers.IntegerField(allow_null=True)
    page_url = serializers.CharField(allow_null=True, help_text="Where it can be paid.")
    pdf_url = serializers.CharField(allow_null=True)


class InvoiceDetail(InvoiceOutput):
    lines = LineOutput(many=True)


class PreviewOutput(serializers.Serializer):
    object = serializers.CharField()
    period = serializers.CharField()
    issued_on = serializers.CharField(help_text="The day of the invoice.")
    is_closed = serializers.BooleanField()
    collected_by = serializers.ChoiceField(choices=["manual", "stripe"])
    plan = serializers.CharField()
    units = serializers.IntegerField()
    included = serializers.IntegerField(allow_null=True)
    usage_cents = serializers.IntegerField()
    credit_cents = serializers.IntegerField()
    charge_cents = serializers.IntegerField(help_text="What the units cost besides credit.")
    total_cents = serializers.IntegerField()
    lines = LineOutput(many=True)


def render_invoice(invoice: Any) -> dict[str, Any]:
    """An invoice as lists show it."""
    same = ("state", "collected_by", "currency", "subtotal_cents", "tax_cents", "total_cents")
    texts = {name: getattr(invoice, name) or None for name in ("number", "page_url", "pdf_url")}
    times = {name: seconds(getattr(invoice, name)) for name in ("issued_at", "due_at", "paid_at")}
    shown = {name: getattr(invoice, name) for name in same}
    head = {"id": ids.encode(ids.INVOICE, invoice.id), "object": "invoice", "period": f"{invoice.period:%Y-%m}"}
    return {**head, **shown, **texts, **times}


def render_line(line: Any) -> dict[str, Any]:
    """A stored line."""
    same = ("kind", "text", "units", "included", "charged", "unit_price", "amount", "amount_cents")
    return {**{name: getattr(line, name) for name in same}, "model": line.model or None, "key": _key(line.key_id)}


def render_preview(found: invoices.Preview) -> dict[str, Any]:
    """The next invoice with its lines; below the one of the units what it is made of."""
    statement = found.statement
    lines: list[dict[str, Any]] = []
    for line in found.lines:
        lines.append(_render_next(line))
        lines += [_render_part(statement, part) for part in found.details if line.kind == "usage"]
    same = {name: getattr(statement, name) for name in ("plan", "units", "included", "usage_cents", "credit_cents", "is_closed")}
    return {
        "object": "invoice.preview", "period": f"{statement.period:%Y-%m}", "issued_on": found.issued_on.isoformat(),
        "collected_by": found.collected_by, **same, "charge_cents": found.charge_cents, "total_cents": found.total_cents, "lines": lines,
    }  # fmt: skip


class Invoices(MaasView):
    required_scope = "usage"

    @extend_schema(operation_id="invoices_list", responses=list_of(InvoiceOutput), tags=["Billing"], parameters=AFTER)
    def get(self, request: TenantRequest) -> Response:
        """List the organisation's invoices, newest first."""
        page = read_page(request)
        rows, more = invoices.list_invoices(request.tenant, after=read_cursor(page, ids.INVOICE), limit=page.limit)
        return Response(listing([render_invoice(row) for row in rows], has_more=more))


class Preview(MaasView):
    required_scope = "usage"

    @extend_schema(
        operation_id="invoices_preview", responses=PreviewOutput, tags=["Billing"],
        parameters=[OpenApiParameter("period", str, description="A UTC month such as 2026-11; the running one if missing."), AS_CSV],
    )  # fmt: skip
    def get(self, request: TenantRequest) -> Response | HttpResponse:
        """Show what a month costs so far, line by line, as the invoice of the 1st after it will say."""
        found = render_preview(invoices.preview(request.tenant, _period(request)))
        return _csv(found["lines"], f"preview-{found['period']}") if _wants_csv(request) else Response(found)


class Invoice(MaasView):
    required_scope = "usage"

    @extend_schema(operation_id="invoices_retrieve", responses=InvoiceDetail, tags=["Billing"], parameters=[AS_CSV])
    def get(self, request: TenantRequest, invoice_id: str) -> Response | HttpResponse:
        """Show one invoice with its lines, or the lines as CSV."""
        invoice, rows = invoices.get_invoice(request.tenant, require_id(ids.INVOICE, invoice_id, "invoice"))
        lines = [render_line(row) for row in rows]
        return _csv(lines, invoice.number or "invoice") if _wants_csv(request) else Response({**render_invoice(invoice), "lines": lines})


def _render_next(line: invoices.Line) -> dict[str, Any]:
    same = {name: getattr(line, name) for name in ("kind", "text", "units", "included", "charged", "unit_price", "amount")}
    return {**same, "model": None, "key": None, "amount_cents": line.cents}


def _render_part(statement: invoices.Statement, part: invoices.Detail) -> dict[str, Any]:
    same = {name: getattr(part, name) for name in ("model", "units", "included", "charged", "amount")}
    fixed = {"kind": "detail", "text": part.model, "unit_price": statement.unit_price, "amount_cents": None}
    return {**same, **fixed, "key": _key(part.key_id)}


def _key(key_id: Any) -> str | None:
    return ids.encode(ids.KEY, key_id) if key_id else None


def _period(request: TenantRequest) -> date | None:
    text = request.query_params.get("period")
    if not text:
        return None
    try:
        return datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC).date()
    except ValueError:
        raise errors.BadRequest("'period' must be a month such as 2026-11.", param="period", code="invalid_value") from None


def _wants_csv(request: TenantRequest) -> bool:
    return "text/csv" in request.META.get("HTTP_ACCEPT", "") or request.query_params.get("format") == "csv"


def _csv(lines: list[dict[str, Any]], name: str) -> HttpResponse:
    body = io.StringIO()
    writer = csv.DictWriter(body, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    return HttpResponse(body.getvalue(), content_type="text/csv; charset=utf-8", headers=headers)
