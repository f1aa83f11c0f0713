"""/v1/embeddings, as OpenAI's clients know it."""

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from apps.billing.throttling import counts_units
from apps.idempotency.api import idempotent
from apps.inference import embeddings, services
from apps.inference.api import DEADLINE, LEASE, read_deadline
from apps.inference.direct import DirectView
from maas.api import TenantRequest


class EmbeddingsInput(serializers.Serializer):
    model = serializers.CharField(max_length=200)
    input = serializers.JSONField(help_text="A text, or a list of up to 128. Arrays of tokens are refused.")
    encoding_format = serializers.ChoiceField(embeddings.ENCODINGS, required=False, help_text="base64 is float32, little-endian.")
    dimensions = serializers.IntegerField(required=False, help_text="The size of the model's vectors; no other.")
    user = serializers.CharField(required=False, help_text="Accepted and not used.")


class Embedding(serializers.Serializer):
    object = serializers.CharField()
    index = serializers.IntegerField()
    embedding = serializers.JSONField(help_text="A list of numbers, or a text in base64.")


class Tokens(serializers.Serializer):
    prompt_tokens = serializers.IntegerField()
    total_tokens = serializers.IntegerField()


class EmbeddingsOutput(serializers.Serializer):
    object = serializers.CharField()
    data = Embedding(many=True)  # type: ignore[assignment]  # OpenAI calls it so
    model = serializers.CharField()
    usage = Tokens()


class Embeddings(DirectView):
    required_scope = "predict"

    @extend_schema(
        operation_id="embeddings_create", request=EmbeddingsInput, responses=EmbeddingsOutput, tags=["Predictions"],
        parameters=[OpenApiParameter("X-Deadline-Ms", int, OpenApiParameter.HEADER, description="How long you wait; 30000 if missing.")],
    )  # fmt: skip
    @counts_units
    @idempotent(atomic=False, lease=LEASE)
    def post(self, request: TenantRequest) -> Response:
        """Turn texts into vectors, in OpenAI's shape."""
        wanted, claim = embeddings.read_body(request.data), request.claim
        answer = services.predict(
            request.tenant, wanted, key_id=request.key.id if request.key else None, deadline_ms=read_deadline(request.META.get(DEADLINE)),
            call_id=claim.fence if claim else None, instead_of=claim.before if claim else None, found=request.found,
        )  # fmt: skip
        return Response(answer)
