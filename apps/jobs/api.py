"""/v1/batches, in OpenAI's shapes."""

import re
from uuid import UUID

from django.http.response import HttpResponseBase
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from apps.files import services as files
from apps.idempotency.api import idempotent
from apps.jobs import services
from apps.jobs.rendering import EVENT, render_batch, render_event
from apps.jobs.streams import Watch
from maas import errors, ids
from maas.api import MaasView, StrictSerializer, TenantRequest, list_of, listing, read_body, read_cursor, read_page, require_id
from maas.streams import stream

STATUSES = ["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
METADATA = re.compile(r"metadata\[(.*)\]", re.DOTALL)


class OutputExpiresAfter(StrictSerializer):
    anchor = serializers.ChoiceField(choices=["created_at"])
    seconds = serializers.IntegerField(min_value=files.SHORTEST_LIFE, max_value=files.LONGEST_LIFE)


class BatchInput(StrictSerializer):
    input_file_id = serializers.CharField(max_length=100)
    endpoint = serializers.CharField(max_length=100, help_text=", ".join(services.ENDPOINTS))
    completion_window = serializers.CharField(max_length=100, help_text="24h")
    metadata = serializers.JSONField(required=False, allow_null=True, help_text="Up to 16 texts by name.")
    output_expires_after = OutputExpiresAfter(required=False, allow_null=True)


class LineError(serializers.Serializer):
    code = serializers.CharField()
    line = serializers.IntegerField(allow_null=True)
    message = serializers.CharField()
    param = serializers.CharField(allow_null=True)


class LineErrors(serializers.Serializer):
    object = serializers.CharField()
    data = LineError(many=True)  # type: ignore[assignment]


class RequestCounts(serializers.Serializer):
    total = serializers.IntegerField()
    completed = serializers.IntegerField()
    failed = serializers.IntegerField()


class Progress(serializers.Serializer):
    percent = serializers.IntegerField(help_text="Of the lines, rounded down.")
    lines_per_second = serializers.FloatField(allow_null=True, help_text="Over the last minute; of the whole run once it has ended.")
    eta_seconds = serializers.IntegerField(allow_null=True, help_text="Until the last line is done at this pace.")


class BatchOutput(serializers.Serializer):
    id = serializers.CharField()
    object = serializers.CharField()
    endpoint = serializers.CharField()
    model = serializers.CharField(allow_null=True, help_text="When all lines name the same one.")
    errors = LineErrors(allow_null=True)  # type: ignore[assignment]
    input_file_id = serializers.CharField()
    completion_window = serializers.CharField()
    status = serializers.ChoiceField(choices=STATUSES)
    output_file_id = serializers.CharField(allow_null=True)
    error_file_id = serializers.CharField(allow_null=True)
    created_at = serializers.IntegerField()
    in_progress_at = serializers.IntegerField(allow_null=True)
    expires_at = serializers.IntegerField(allow_null=True)
    finalizing_at = serializers.IntegerField(allow_null=True)
    completed_at = serializers.IntegerField(allow_null=True)
    failed_at = serializers.IntegerField(allow_null=True)
    expired_at = serializers.IntegerField(allow_null=True)
    cancelling_at = serializers.IntegerField(allow_null=True)
    cancelled_at = serializers.IntegerField(allow_null=True)
    request_counts = RequestCounts()
    metadata = serializers.DictField(child=serializers.CharField(), allow_null=True)
    units = serializers.IntegerField(help_text="Charged so far.")
    progress = Progress(allow_null=True, help_text="Null until the lines are counted.")


class EventOutput(serializers.Serializer):
    id = serializers.CharField()
    object = serializers.CharField()
    created_at = serializers.IntegerField()
    level = serializers.ChoiceField(choices=["info", "warn", "error"])
    message = serializers.CharField()
    data = serializers.DictField()  # type: ignore[assignment]


class Batches(MaasView):
    required_scope = "jobs"

    @extend_schema(
        operation_id="batches_list", responses=list_of(BatchOutput), tags=["Batches"],
        parameters=[
            OpenApiParameter("after", str), OpenApiParameter("limit", int, description="1 to 100; 20 if missing."),
            OpenApiParameter("status", str, enum=STATUSES, many=True, explode=False, description="One of these."),
            OpenApiParameter("model", str, description="Named by a line, in any version unless it says one."),
            OpenApiParameter("key", str, description="The id of the key that started it."),
            OpenApiParameter("metadata", {"type": "object", "additionalProperties": {"type": "string"}}, style="deepObject",
                             description="`metadata[name]=value`; all pairs have to fit."),
        ],
    )  # fmt: skip
    def get(self, request: TenantRequest) -> Response:
        """List your batches, newest first."""
        page, filters = read_page(request), _read_filters(request)
        rows, has_more = services.list_batches(request.tenant, filters=filters, after=read_cursor(page, ids.BATCH), limit=page.limit)
        return Response(listing([render_batch(job) for job in rows], has_more=has_more))

    @extend_schema(operation_id="batches_create", request=BatchInput, responses=BatchOutput, tags=["Batches"])
    @idempotent
    def post(self, request: TenantRequest) -> Response:
        """Run an uploaded file of requests, each on a line of its own."""
        body = read_body(BatchInput, request)
        job = services.create_batch(
            request.tenant, input_file_id=body["input_file_id"], endpoint=body["endpoint"], completion_window=body["completion_window"],
            metadata=body.get("metadata"), key=request.key, output_expires_in=(body.get("output_expires_after") or {}).get("seconds"),
        )  # fmt: skip
        return Response(render_batch(job))


def _read_filters(request: TenantRequest) -> services.Filters:
    """`status` may be given more than once, or with commas."""
    query = request.query_params
    statuses = [word.strip() for text in query.getlist("status") for word in text.split(",") if word.strip()]
    metadata = {found[1]: query[name] for name in query if (found := METADATA.fullmatch(name))}
    return services.read_filters(statuses=statuses, model=query.get("model", ""), key=query.get("key", ""), metadata=metadata)


class Batch(MaasView):
    required_scope = "jobs"

    @extend_schema(operation_id="batches_retrieve", responses=BatchOutput, tags=["Batches"])
    def get(self, request: TenantRequest, batch_id: str) -> Response:
        """Show one batch: its state, how many lines are done, its files."""
        return Response(render_batch(services.get_batch(request.tenant, require_id(ids.BATCH, batch_id, "batch"))))


class Cancel(MaasView):
    required_scope = "jobs"

    @extend_schema(operation_id="batches_cancel", request=None, responses=BatchOutput, tags=["Batches"])
    def post(self, request: TenantRequest, batch_id: str) -> Response:
        """Stop a batch. What is done is kept and charged; the other lines are listed in the error file."""
        return Response(render_batch(services.cancel_batch(request.tenant, require_id(ids.BATCH, batch_id, "batch"))))


class Events(MaasView):
    required_scope = "jobs"

    @extend_schema(
        operation_id="batches_events", responses=list_of(EventOutput), tags=["Batches"],
        parameters=[
            OpenApiParameter("after", str), OpenApiParameter("limit", int, description="1 to 100; 20 if missing."),
            OpenApiParameter("stream", bool, description="Server-sent events as they happen, until the batch has ended."),
            OpenApiParameter("Last-Event-ID", str, OpenApiParameter.HEADER, description="Where a stream goes on."),
        ],
    )  # fmt: skip
    def get(self, request: TenantRequest, batch_id: str) -> HttpResponseBase:
        """List what a batch told, newest first; with `stream=true` tell it as it happens."""
        job_id = require_id(ids.BATCH, batch_id, "batch")
        if request.query_params.get("stream") == "true":
            return _watch(request, job_id)
        page = read_page(request)
        rows = services.list_events(request.tenant, job_id, page.limit + 1, read_cursor(page, EVENT))
        return Response(listing([render_event(event) for event in rows[: page.limit]], has_more=len(rows) > page.limit))


def _watch(request: TenantRequest, job_id: UUID) -> HttpResponseBase:
    """The stream from Last-Event-ID on; 204 once all is told, which is how an EventSource is told not to come back."""
    text = request.META.get("HTTP_LAST_EVENT_ID")
    after = ids.decode(EVENT, text) if text else None
    if text and after is None:
        raise errors.BadRequest("The header Last-Event-ID must be the id of an event.", param="Last-Event-ID", code="invalid_header")
    job = services.get_batch(request.tenant, job_id)
    if job.finished_at and after and not services.list_events_since(request.tenant, job_id, after=after, limit=1):
        return Response(status=204)
    return stream(Watch(request.tenant, job_id, after).look)
