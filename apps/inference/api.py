"""/v1/predictions."""

from datetime import timedelta

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from apps.billing.throttling import counts_units
from apps.idempotency.api import idempotent
from apps.inference import predictions, services
from apps.inference.direct import DirectView
from maas import errors
from maas.api import TenantRequest

LONGEST_MS = 120_000
DEADLINE = "HTTP_X_DEADLINE_MS"
LEASE = timedelta(milliseconds=LONGEST_MS, seconds=30)  # the longest that a call takes, and its checks


class PredictionInput(serializers.Serializer):
    model = serializers.CharField(max_length=predictions.LONGEST_NAME)
    inputs = serializers.JSONField(help_text="One input of the model's task, or a list of up to 128.")
    parameters = serializers.JSONField(required=False, allow_null=True)


class Units(serializers.Serializer):
    units = serializers.IntegerField()
    unit = serializers.CharField()


class Timing(serializers.Serializer):
    queue_ms = serializers.FloatField()
    compute_ms = serializers.FloatField()
    batch_size = serializers.IntegerField(help_text="Inputs that were run together, yours among them.")


class PredictionOutput(serializers.Serializer):
    id = serializers.CharField()
    object = serializers.CharField()
    created = serializers.IntegerField()
    model = serializers.CharField()
    version = serializers.IntegerField()
    outputs = serializers.JSONField(help_text="In the shape of the Hugging Face task; a list when `inputs` was one.")
    usage = Units()
    timing = Timing()


class Predictions(DirectView):
    required_scope = "predict"

    @extend_schema(
        operation_id="predictions_create", request=PredictionInput, responses=PredictionOutput, tags=["Predictions"],
        parameters=[OpenApiParameter("X-Deadline-Ms", int, OpenApiParameter.HEADER, description="How long you wait; 30000 if missing.")],
    )  # fmt: skip
    @counts_units
    @idempotent(atomic=False, lease=LEASE)
    def post(self, request: TenantRequest) -> Response:
        """Ask a model for one prediction, or for a list of them."""
        wanted, claim = predictions.read_body(request.data), request.claim
        answer = services.predict(
            request.tenant, wanted, key_id=request.key.id if request.key else None, deadline_ms=read_deadline(request.META.get(DEADLINE)),
            call_id=claim.fence if claim else None, instead_of=claim.before if claim else None, found=request.found,
        )  # fmt: skip
        return Response(answer)


def read_deadline(text: str | None) -> int:
    """Milliseconds that the caller waits, from its header."""
    if text is None:
        return services.DEADLINE_MS
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= LONGEST_MS:
        raise errors.BadRequest(f"The header X-Deadline-Ms must be a whole number from 1 to {LONGEST_MS}.", param="X-Deadline-Ms")
    return int(text)
