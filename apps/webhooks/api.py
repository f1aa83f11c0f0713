"""/v1/webhooks."""

from datetime import UTC, datetime, timedelta
from typing import Any

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from apps.idempotency.api import idempotent
from apps.webhooks import deliveries, services
from apps.webhooks.outbox import PUBLIC
from maas import errors, ids
from maas.api import MaasView, StrictSerializer, TenantRequest, list_of, listing, read_body, read_cursor, read_page, require_id, seconds
from maas.destinations import URL_LIMIT

STATES = ["pending", "delivered", "failed"]
FURTHEST = 253402300799  # Unix seconds: the end of the year 9999


class WebhookInput(StrictSerializer):
    url = serializers.CharField(max_length=URL_LIMIT, help_text="https://, reachable from the internet.")
    events = serializers.ListField(
        child=serializers.CharField(max_length=60), allow_empty=False, max_length=50, help_text=f"{', '.join(PUBLIC)}; or * for all."
    )
    description = serializers.CharField(max_length=services.DESCRIPTION_LIMIT, required=False, allow_blank=True)
    enabled = serializers.BooleanField(required=False, help_text="Switching it on again forgets its failures.")


class WebhookRotation(StrictSerializer):
    grace_seconds = serializers.IntegerField(
        required=False, min_value=0, max_value=int(services.LONGEST_GRACE.total_seconds()),
        help_text="How long the old secret signs too; 86400 if missing, 0 ends it at once.",
    )  # fmt: skip


class ReplayInput(StrictSerializer):
    since = serializers.IntegerField(required=False, min_value=0, max_value=FURTHEST, help_text="Unix seconds; all that failed if missing.")


class ReplayOutput(serializers.Serializer):
    object = serializers.CharField()
    count = serializers.IntegerField(help_text="Deliveries that are sent again.")


class WebhookOutput(serializers.Serializer):
    id = serializers.CharField()
    object = serializers.CharField()
    url = serializers.CharField()
    events = serializers.ListField(child=serializers.CharField())
    description = serializers.CharField()
    enabled = serializers.BooleanField()
    disabled_reason = serializers.ChoiceField(choices=["switched_off", "failing", "gone"], allow_null=True)
    created_at = serializers.IntegerField()
    failing_since = serializers.IntegerField(allow_null=True, help_text="No attempt has succeeded since; switched off after 5 days.")
    last_attempt_at = serializers.IntegerField(allow_null=True)
    last_status = serializers.IntegerField(allow_null=True, help_text="null where there was no answer.")
    old_secret_expires_at = serializers.IntegerField(allow_null=True, help_text="Until when the secret before a rotation signs too.")
    secret = serializers.CharField(required=False, help_text="Only in the answer that makes it.")


class DeliveryOutput(serializers.Serializer):
    id = serializers.CharField()
    object = serializers.CharField()
    webhook_id = serializers.CharField()
    event_id = serializers.CharField(help_text="The webhook-id, the same for every repeat.")
    event_type = serializers.CharField()
    state = serializers.ChoiceField(choices=STATES)
    attempt_count = serializers.IntegerField()
    created_at = serializers.IntegerField()
    next_attempt_at = serializers.IntegerField(allow_null=True)
    last_attempt_at = serializers.IntegerField(allow_null=True)
    last_status = serializers.IntegerField(allow_null=True)
    last_error = serializers.CharField(allow_null=True)


class AttemptOutput(serializers.Serializer):
    number = serializers.IntegerField()
    created_at = serializers.IntegerField()
    url = serializers.CharField()
    milliseconds = serializers.IntegerField()
    error = serializers.CharField(allow_null=True)
    status = serializers.IntegerField(allow_null=True)
    request_headers = serializers.DictField(child=serializers.CharField())
    response_headers = serializers.DictField(child=serializers.CharField())
    response_body = serializers.CharField(help_text="At most 16 KB.")


class DeliveryDetail(DeliveryOutput):
    body = serializers.CharField(help_text="Exactly what was sent.")
    attempts = AttemptOutput(many=True)


def render_webhook(endpoint: Any) -> dict[str, Any]:
    """An endpoint as the API shows it: never a secret."""
    return {
        "id": ids.encode(ids.WEBHOOK, endpoint.id), "object": "webhook", "url": endpoint.url, "events": endpoint.events,
        "description": endpoint.description, "enabled": endpoint.enabled, "disabled_reason": endpoint.disabled_reason or None,
        "created_at": seconds(endpoint.created_at), "failing_since": seconds(endpoint.failing_since),
        "last_attempt_at": seconds(endpoint.last_at), "last_status": endpoint.last_status,
        "old_secret_expires_at": seconds(endpoint.rotating_until),
    }  # fmt: skip


def render_delivery(delivery: Any) -> dict[str, Any]:
    """A delivery as lists show it."""
    return {
        "id": ids.encode(ids.DELIVERY, delivery.id), "object": "webhook.delivery",
        "webhook_id": ids.encode(ids.WEBHOOK, delivery.endpoint_id), "event_id": ids.encode(ids.EVENT, delivery.message_id),
        "event_type": delivery.message.type, "state": delivery.state, "attempt_count": delivery.attempts,
        "created_at": seconds(delivery.created_at), "next_attempt_at": seconds(delivery.next_at),
        "last_attempt_at": seconds(delivery.last_at), "last_status": delivery.last_status, "last_error": delivery.last_error or None,
    }  # fmt: skip


def render_attempt(attempt: Any) -> dict[str, Any]:
    """One call, as it went out and what came back."""
    same = ("number", "url", "milliseconds", "status", "request_headers", "response_headers", "response_body")
    shown = {name: getattr(attempt, name) for name in same}
    return {**shown, "created_at": seconds(attempt.created_at), "error": attempt.error or None}


class Webhooks(MaasView):
    required_scope = "webhooks"

    @extend_schema(operation_id="webhooks_list", responses=list_of(WebhookOutput), tags=["Webhooks"])
    def get(self, request: TenantRequest) -> Response:
        """List the organisation's webhooks, newest first."""
        return Response(listing([render_webhook(endpoint) for endpoint in services.list_endpoints(request.tenant)]))

    @extend_schema(operation_id="webhooks_create", request=WebhookInput, responses={201: WebhookOutput}, tags=["Webhooks"])
    @idempotent
    def post(self, request: TenantRequest) -> Response:
        """Have an address called for events. The secret that signs the calls is in this answer and nowhere else."""
        endpoint, secret = services.create_endpoint(request.tenant, **read_body(WebhookInput, request))
        return Response({**render_webhook(endpoint), "secret": secret}, status=201)


class Webhook(MaasView):
    required_scope = "webhooks"

    @extend_schema(operation_id="webhooks_retrieve", responses=WebhookOutput, tags=["Webhooks"])
    def get(self, request: TenantRequest, webhook_id: str) -> Response:
        """Show one webhook."""
        return Response(render_webhook(services.get_endpoint(request.tenant, _webhook(webhook_id))))

    @extend_schema(operation_id="webhooks_update", request=WebhookInput(partial=True), responses=WebhookOutput, tags=["Webhooks"])
    def patch(self, request: TenantRequest, webhook_id: str) -> Response:
        """Change a webhook's address, events or description, or switch it on or off."""
        changes = read_body(WebhookInput, request, partial=True)
        return Response(render_webhook(services.change_endpoint(request.tenant, _webhook(webhook_id), **changes)))

    @extend_schema(operation_id="webhooks_delete", responses={204: OpenApiResponse(description="Deleted.")}, tags=["Webhooks"])
    def delete(self, request: TenantRequest, webhook_id: str) -> Response:
        """Delete a webhook and its deliveries."""
        services.delete_endpoint(request.tenant, _webhook(webhook_id))
        return Response(status=204)


class Rotation(MaasView):
    required_scope = "webhooks"

    @extend_schema(operation_id="webhooks_rotate", request=WebhookRotation, responses=WebhookOutput, tags=["Webhooks"])
    @idempotent
    def post(self, request: TenantRequest, webhook_id: str) -> Response:
        """Give a webhook a new secret. Calls carry a signature of each for the grace period, so nothing has to stop."""
        body = read_body(WebhookRotation, request)
        grace = timedelta(seconds=body.get("grace_seconds", services.GRACE.total_seconds()))
        endpoint, secret = services.rotate_secret(request.tenant, _webhook(webhook_id), grace=grace)
        return Response({**render_webhook(endpoint), "secret": secret})


class Test(MaasView):
    required_scope = "webhooks"

    @extend_schema(operation_id="webhooks_test", request=None, responses={202: DeliveryOutput}, tags=["Webhooks"])
    @idempotent
    def post(self, request: TenantRequest, webhook_id: str) -> Response:
        """Send the event webhook.test to this webhook alone. The delivery tells what came of it."""
        return Response(render_delivery(deliveries.send_test(request.tenant, _webhook(webhook_id))), status=202)


class ReplayFailed(MaasView):
    required_scope = "webhooks"

    @extend_schema(operation_id="webhooks_replay", request=ReplayInput, responses={202: ReplayOutput}, tags=["Webhooks"])
    @idempotent
    def post(self, request: TenantRequest, webhook_id: str) -> Response:
        """Send again what failed, or what failed of the events since a time."""
        since = read_body(ReplayInput, request).get("since")
        moment = None if since is None else datetime.fromtimestamp(since, UTC)
        count = deliveries.replay_failed(request.tenant, _webhook(webhook_id), since=moment)
        return Response({"object": "webhook.replay", "count": count}, status=202)


class Deliveries(MaasView):
    required_scope = "webhooks"

    @extend_schema(
        operation_id="webhooks_deliveries", responses=list_of(DeliveryOutput), tags=["Webhooks"],
        parameters=[
            OpenApiParameter("state", str, enum=STATES), OpenApiParameter("after", str),
            OpenApiParameter("limit", int, description="1 to 100; 20 if missing."),
        ],
    )  # fmt: skip
    def get(self, request: TenantRequest, webhook_id: str) -> Response:
        """List what was sent to a webhook in the last 30 days, newest first."""
        page, state = read_page(request), request.query_params.get("state")
        if state is not None and state not in STATES:
            raise errors.BadRequest(f"'state' must be one of {', '.join(STATES)}.", param="state")
        after = read_cursor(page, ids.DELIVERY)
        rows, more = deliveries.list_deliveries(request.tenant, _webhook(webhook_id), state=state, after=after, limit=page.limit)
        return Response(listing([render_delivery(row) for row in rows], has_more=more))


class Delivery(MaasView):
    required_scope = "webhooks"

    @extend_schema(operation_id="webhooks_delivery", responses=DeliveryDetail, tags=["Webhooks"])
    def get(self, request: TenantRequest, webhook_id: str, delivery_id: str) -> Response:
        """Show a delivery with what was sent and answered at each attempt."""
        found, attempts = deliveries.get_delivery(request.tenant, _webhook(webhook_id), _delivery(delivery_id))
        log = [render_attempt(attempt) for attempt in attempts]
        return Response({**render_delivery(found), "body": found.message.body, "attempts": log})


class Replay(MaasView):
    required_scope = "webhooks"

    @extend_schema(operation_id="webhooks_delivery_replay", request=None, responses={202: DeliveryOutput}, tags=["Webhooks"])
    @idempotent
    def post(self, request: TenantRequest, webhook_id: str, delivery_id: str) -> Response:
        """Send a message once more: same id and body, new time and signature."""
        row = deliveries.replay_delivery(request.tenant, _webhook(webhook_id), _delivery(delivery_id))
        return Response(render_delivery(row), status=202)


def _webhook(text: str) -> Any:
    return require_id(ids.WEBHOOK, text, "webhook")


def _delivery(text: str) -> Any:
    return require_id(ids.DELIVERY, text, "delivery")
