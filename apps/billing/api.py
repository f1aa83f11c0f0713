"""/v1/limits."""

from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from apps.billing import rates
from apps.billing.plans import plan_of
from maas import errors
from maas.api import MaasView, TenantRequest

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
    monthly_price = serializers.IntegerField(help_text="Prices are micro-dollars.")
    unit_price = serializers.IntegerField()
    training_minute_price = serializers.IntegerField()
    storage_price = serializers.IntegerField(help_text="For a gigabyte and month.")


class RateOutput(serializers.Serializer):
    scope = serializers.ChoiceField(choices=["tenant", "key", "model"])
    kind = serializers.ChoiceField(choices=["requests", "units"])
    model = serializers.CharField(allow_null=True)
    limit = serializers.IntegerField(help_text="A minute.")
    remaining = serializers.IntegerField(help_text="Now, after this call.")
    reset_seconds = serializers.FloatField(help_text="Until all of it is there again.")


class LimitsOutput(serializers.Serializer):
    object = serializers.CharField()
    plan = PlanOutput()
    rate_limits = RateOutput(many=True)
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
        return Response({"object": "limits", "plan": plan, "rate_limits": rows, "degraded": verdict.is_local})


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
