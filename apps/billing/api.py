"""/v1/limits, /v1/budgets and /v1/credits."""

from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.response import Response

from apps.billing import budgets, credits, rates, terms
from apps.billing.months import this_month
from apps.billing.plans import plan_of
from apps.idempotency.api import idempotent
from maas import errors, ids
from maas.api import MaasView, StrictSerializer, TenantRequest, list_of, listing, read_body, read_cursor, read_page, require_id, seconds

MODEL_LENGTH = 120  # characters of a model's name


class PlanOutput(serializers.Serializer):
    name = serializers.CharField()
    title = serializers.CharField()
    requests_per_minute = serializers.IntegerField(allow_null=True, help_text="Null in any figure: no limit.")
    units_per_minute = serializers.IntegerField(allow_null=True)
    model_requests_per_minute = serializers.IntegerField(allow_null=True)
    model_units_per_minute = serializers.IntegerField(allow_null=True)
    concurrent_jobs = serializers.IntegerField(allow_null=True)
    members = serializers.IntegerField(allow_null=True)
    retention_days = serializers.IntegerField(allow_null=True)
    included_units = serializers.IntegerField(allow_null=True, help_text="A month.")
    overage = serializers.BooleanField(help_text="Whether units above those included go on the invoice; else prepaid credit pays for them.")
    storage_gigabytes = serializers.IntegerField(allow_null=True, help_text="Of files, at 10^9 bytes.")
    monthly_price = serializers.IntegerField(help_text="Prices are micro-dollars.")
    unit_price = serializers.IntegerField(help_text="For each unit above those included.")
    training_minute_price = serializers.IntegerField()


class RateOutput(serializers.Serializer):
    scope = serializers.ChoiceField(choices=["tenant", "key", "model"])
    kind = serializers.ChoiceField(choices=["requests", "units"])
    model = serializers.CharField(allow_null=True)
    limit = serializers.IntegerField(help_text="A minute.")
    remaining = serializers.IntegerField(help_text="Now, after this call.")
    reset_seconds = serializers.FloatField(help_text="Until all of it is there again.")


class AllowanceOutput(serializers.Serializer):
    scope = serializers.ChoiceField(choices=budgets.BudgetScope.values)
    subject = serializers.CharField(allow_null=True, help_text="The key's id or the model's name.")
    limit = serializers.IntegerField(allow_null=True, help_text="Units of this UTC month; null: no limit.")
    reason = serializers.CharField(allow_null=True, help_text="The code of the refusal past it.")
    used = serializers.IntegerField()
    reserved = serializers.IntegerField(help_text="By work that goes on.")
    remaining = serializers.IntegerField(allow_null=True)


class LimitsOutput(serializers.Serializer):
    object = serializers.CharField()
    plan = PlanOutput()
    rate_limits = RateOutput(many=True)
    period = serializers.CharField(help_text="The UTC month of the allowances, such as 2026-11.")
    allowances = AllowanceOutput(many=True, help_text="Empty until the first call of the month.")
    degraded = serializers.BooleanField(help_text="Redis is away: each web process counts by itself, up to a part of each limit.")


class Limits(MaasView):
    required_scope = "usage"

    @extend_schema(
        operation_id="limits_retrieve", responses=LimitsOutput, tags=["Usage"],
        parameters=[OpenApiParameter("model", str, description="Show the limits of this model too.")],
    )  # fmt: skip
    def get(self, request: TenantRequest) -> Response:
        """Show the limits of your plan and key, and what is left of them now."""
        verdict = rates.look(request.tenant, request.key, model=_read_model(request))
        plan = asdict(plan_of(request.tenant.plan))
        rows = [_render(standing) for standing in verdict.standings]
        period = this_month()
        held = [_render_allowance(row) for row in terms.standings_of(request.tenant, period)]
        month = {"period": f"{period:%Y-%m}", "allowances": held}
        return Response({"object": "limits", "plan": plan, "rate_limits": rows, **month, "degraded": verdict.is_local})


def _read_model(request: TenantRequest) -> str | None:
    name = request.query_params.get("model") or None
    if name and len(name) > MODEL_LENGTH:
        raise errors.BadRequest(f"'model' has at most {MODEL_LENGTH} characters.", param="model", code="too_long")
    return name


def _render(standing: Any) -> dict[str, Any]:
    limit = standing.limit
    return {
        "scope": limit.scope, "kind": limit.kind, "model": limit.subject if limit.scope == "model" else None,
        "limit": limit.most, "remaining": standing.remaining, "reset_seconds": round(standing.reset, 3),
    }  # fmt: skip


def _render_allowance(row: Any) -> dict[str, Any]:
    left = None if row.cap is None else max(0, row.cap - row.used - row.reserved)
    return {
        "scope": row.scope, "subject": budgets.subject_id(row.scope, row.subject) or None, "limit": row.cap,
        "reason": row.reason if row.cap is not None else None, "used": row.used, "reserved": row.reserved, "remaining": left,
    }  # fmt: skip


# ---------- budgets ----------
class BudgetInput(StrictSerializer):
    scope = serializers.ChoiceField(choices=budgets.BudgetScope.values)
    subject = serializers.CharField(
        max_length=120, required=False, allow_blank=True, help_text="A key's id or a model's name; left out for the whole organisation."
    )
    amount = serializers.IntegerField(min_value=0, max_value=budgets.LARGEST, help_text="Micro-dollars a UTC month.")
    hard = serializers.BooleanField(required=False, help_text="Refuse calls when it is spent (true if missing), or only alert.")
    thresholds = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=100), max_length=10, required=False,
        help_text="Per cents at which to alert; 50, 80 and 100 if missing.",
    )  # fmt: skip


class BudgetOutput(serializers.Serializer):
    id = serializers.CharField()
    object = serializers.CharField()
    scope = serializers.ChoiceField(choices=budgets.BudgetScope.values)
    subject = serializers.CharField(allow_null=True)
    amount = serializers.IntegerField()
    hard = serializers.BooleanField()
    thresholds = serializers.ListField(child=serializers.IntegerField())
    created_at = serializers.IntegerField()
    changed_at = serializers.IntegerField()


def render_budget(budget: Any) -> dict[str, Any]:
    """A budget as the API shows it."""
    return {
        "id": ids.encode(ids.BUDGET, budget.id), "object": "budget", "scope": budget.scope,
        "subject": budgets.subject_id(budget.scope, budget.subject) or None, "amount": budget.amount, "hard": budget.hard,
        "thresholds": budget.thresholds, "created_at": seconds(budget.created_at), "changed_at": seconds(budget.changed_at),
    }  # fmt: skip


class Budgets(MaasView):
    required_scope = "usage"

    @extend_schema(operation_id="budgets_list", responses=list_of(BudgetOutput), tags=["Billing"])
    def get(self, request: TenantRequest) -> Response:
        """List the budgets of the organisation, its keys and models."""
        return Response(listing([render_budget(budget) for budget in budgets.list_budgets(request.tenant)]))

    @extend_schema(operation_id="budgets_create", request=BudgetInput, responses={201: BudgetOutput}, tags=["Billing"])
    @idempotent
    def post(self, request: TenantRequest) -> Response:
        """Set a budget, in place of the one that the same organisation, key or model has. A member's session may, a key may not."""
        budget = budgets.set_budget(request.tenant, **read_body(BudgetInput, request))
        return Response(render_budget(budget), status=201)


class Budget(MaasView):
    required_scope = "usage"

    @extend_schema(operation_id="budgets_retrieve", responses=BudgetOutput, tags=["Billing"])
    def get(self, request: TenantRequest, budget_id: str) -> Response:
        """Show one budget."""
        return Response(render_budget(budgets.get_budget(request.tenant, _budget(budget_id))))

    @extend_schema(operation_id="budgets_delete", responses={204: OpenApiResponse(description="Deleted.")}, tags=["Billing"])
    def delete(self, request: TenantRequest, budget_id: str) -> Response:
        """Take a budget away; it stops limiting at once. A member's session may, a key may not."""
        budgets.delete_budget(request.tenant, _budget(budget_id))
        return Response(status=204)


def _budget(text: str) -> Any:
    return require_id(ids.BUDGET, text, "budget")


# ---------- credit ----------
class CreditOutput(serializers.Serializer):
    id = serializers.CharField()
    object = serializers.CharField()
    kind = serializers.ChoiceField(choices=credits.EntryKind.values)
    amount = serializers.IntegerField(help_text="Micro-dollars; below zero: used, expired or taken back.")
    reason = serializers.CharField()
    period = serializers.CharField(allow_null=True, help_text="The month that used it, such as 2026-11.")
    created_at = serializers.IntegerField()
    expires_at = serializers.IntegerField(allow_null=True)


class RedeemInput(StrictSerializer):
    code = serializers.CharField(max_length=40)


CREDITS = inline_serializer(
    "CreditsReport",
    {
        "object": serializers.CharField(), "balance": serializers.IntegerField(help_text="Micro-dollars, this month's use included."),
        "available": serializers.IntegerField(help_text="Micro-dollars that nothing has used or reserved."),
        "data": CreditOutput(many=True), "first_id": serializers.CharField(allow_null=True),
        "last_id": serializers.CharField(allow_null=True), "has_more": serializers.BooleanField(),
    },
)  # fmt: skip


def render_credit(entry: Any) -> dict[str, Any]:
    """A line of the credit as the API shows it."""
    return {
        "id": ids.encode(ids.CREDIT, entry.id), "object": "credit", "kind": entry.kind, "amount": entry.amount, "reason": entry.reason,
        "period": f"{entry.period:%Y-%m}" if entry.period else None, "created_at": seconds(entry.created_at),
        "expires_at": seconds(entry.expires_at),
    }  # fmt: skip


class Credits(MaasView):
    required_scope = "usage"

    @extend_schema(
        operation_id="credits_list", responses=CREDITS, tags=["Billing"],
        parameters=[OpenApiParameter("after", str), OpenApiParameter("limit", int, description="1 to 100; 20 if missing.")],
    )  # fmt: skip
    def get(self, request: TenantRequest) -> Response:
        """Show the prepaid credit and what was added to it and taken from it, newest first."""
        page = read_page(request)
        rows, more = credits.list_credits(request.tenant, after=read_cursor(page, ids.CREDIT), limit=page.limit)
        sums = {"balance": credits.balance(request.tenant), "available": credits.left(request.tenant)}
        return Response({**listing([render_credit(row) for row in rows], has_more=more), **sums})


class Redeem(MaasView):
    required_scope = "usage"

    @extend_schema(operation_id="credits_redeem", request=RedeemInput, responses={201: CreditOutput}, tags=["Billing"])
    @idempotent
    def post(self, request: TenantRequest) -> Response:
        """Turn a coupon into credit. A member's session may, a key may not."""
        entry = credits.redeem_coupon(request.tenant, **read_body(RedeemInput, request))
        return Response(render_credit(entry), status=201)
