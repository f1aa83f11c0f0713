"""/v1/keys."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.response import Response

from apps.accounts import keys, leaks
from apps.accounts.restrictions import LARGEST_LIMIT, LIST_LIMIT, SCOPES
from apps.accounts.services import ApiKey, User
from apps.idempotency.api import idempotent
from maas import ids
from maas.api import MaasView, StrictSerializer, TenantRequest, list_of, listing, read_body, require_id, seconds

FURTHEST = 253402300799  # Unix seconds: the end of the year 9999
REPORT_CHARACTERS = 1_000_000


class KeyLimits(StrictSerializer):
    requests_per_minute = serializers.IntegerField(required=False, allow_null=True, min_value=1, max_value=LARGEST_LIMIT)
    units_per_minute = serializers.IntegerField(required=False, allow_null=True, min_value=1, max_value=LARGEST_LIMIT)


class KeyChanges(StrictSerializer):
    name = serializers.CharField(max_length=80)
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=SCOPES), allow_empty=False)
    allowed_models = serializers.ListField(
        child=serializers.CharField(max_length=120), max_length=LIST_LIMIT, required=False, help_text="Names; empty allows all."
    )
    allowed_addresses = serializers.ListField(
        child=serializers.CharField(max_length=60), max_length=LIST_LIMIT, required=False,
        help_text="IP addresses and networks such as 203.0.113.0/24; empty allows all.",
    )  # fmt: skip
    limits = KeyLimits(required=False, help_text="Of this key alone, below those of the plan; what is missing is not limited.")
    expires_at = serializers.IntegerField(required=False, allow_null=True, min_value=1, max_value=FURTHEST, help_text="Unix seconds.")


class KeyInput(KeyChanges):
    pass


class RotateInput(StrictSerializer):
    grace_seconds = serializers.IntegerField(
        required=False, min_value=0, max_value=int(keys.LONGEST_GRACE.total_seconds()),
        help_text="How long the old secret stays valid; 86400 if missing, 0 ends it at once.",
    )  # fmt: skip


class ReportInput(StrictSerializer):
    text = serializers.CharField(max_length=REPORT_CHARACTERS, help_text="Whatever holds the keys: a file, a commit, a log.")
    url = serializers.CharField(max_length=500, required=False, allow_blank=True, help_text="Where it was found.")


class Finding(serializers.Serializer):
    last4 = serializers.CharField()
    status = serializers.ChoiceField(choices=["revoked", "ended", "unknown"])


class ReportOutput(serializers.Serializer):
    object = serializers.CharField()
    keys = Finding(many=True)


class KeyOutput(serializers.Serializer):
    id = serializers.CharField()
    object = serializers.CharField()
    name = serializers.CharField()
    prefix = serializers.CharField()
    scopes = serializers.ListField(child=serializers.CharField())
    allowed_models = serializers.ListField(child=serializers.CharField())
    allowed_addresses = serializers.ListField(child=serializers.CharField())
    limits = KeyLimits()
    status = serializers.ChoiceField(choices=["active", "expired", "revoked"])
    created_at = serializers.IntegerField()
    expires_at = serializers.IntegerField(allow_null=True)
    old_secret_expires_at = serializers.IntegerField(allow_null=True, help_text="Until when the secret before a rotation works.")
    revoked_at = serializers.IntegerField(allow_null=True)
    last_used_at = serializers.IntegerField(allow_null=True)
    secret = serializers.CharField(required=False, help_text="Only in the answer that makes it.")


def render_key(key: ApiKey) -> dict[str, Any]:
    """A key as the API shows it: never the secret."""
    times = {name: seconds(getattr(key, name)) for name in ("created_at", "expires_at", "revoked_at", "last_used_at")}
    return {
        "id": ids.encode(ids.KEY, key.id), "object": "key", "name": key.name, "prefix": key.prefix, "scopes": key.scopes,
        "allowed_models": key.allowed_models, "allowed_addresses": key.allowed_addresses, "limits": key.limits, "status": key.status,
        "old_secret_expires_at": seconds(key.rotating_until), **times,
    }  # fmt: skip


class Keys(MaasView):
    required_scope = "keys"

    @extend_schema(
        operation_id="keys_list", responses=list_of(KeyOutput), tags=["Keys"], parameters=[OpenApiParameter("include_revoked", bool)]
    )  # fmt: skip
    def get(self, request: TenantRequest) -> Response:
        """List the organisation's API keys, newest first."""
        everything = request.query_params.get("include_revoked") == "true"
        return Response(listing([render_key(key) for key in keys.list_keys(request.tenant, with_revoked=everything)]))

    @extend_schema(operation_id="keys_create", request=KeyInput, responses={201: KeyOutput}, tags=["Keys"])
    @idempotent
    def post(self, request: TenantRequest) -> Response:
        """Make a key. Its secret is in this answer and nowhere else. A key cannot give more than it has itself."""
        user = None if request.key else cast(User, request.user)
        key, secret = keys.create_key(request.tenant, created_by=user, **_with_moment(read_body(KeyInput, request)))
        return Response({**render_key(key), "secret": secret}, status=201)


class Key(MaasView):
    required_scope = "keys"

    @extend_schema(operation_id="keys_retrieve", responses=KeyOutput, tags=["Keys"])
    def get(self, request: TenantRequest, key_id: str) -> Response:
        """Show one key."""
        return Response(render_key(keys.get_key(request.tenant, require_id(ids.KEY, key_id, "key"))))

    @extend_schema(operation_id="keys_update", request=KeyChanges(partial=True), responses=KeyOutput, tags=["Keys"])
    def patch(self, request: TenantRequest, key_id: str) -> Response:
        """Change a key's name, scopes, models, addresses, limits or expiry. It holds from the next call on."""
        changes = _with_moment(read_body(KeyChanges, request, partial=True))
        return Response(render_key(keys.change_key(request.tenant, require_id(ids.KEY, key_id, "key"), **changes)))

    @extend_schema(operation_id="keys_revoke", responses=KeyOutput, tags=["Keys"])
    def delete(self, request: TenantRequest, key_id: str) -> Response:
        """Revoke a key at once. Calls that begin afterwards get 401."""
        return Response(render_key(keys.revoke_key(request.tenant, require_id(ids.KEY, key_id, "key"))))


class Rotation(MaasView):
    required_scope = "keys"

    @extend_schema(operation_id="keys_rotate", request=RotateInput, responses=KeyOutput, tags=["Keys"])
    @idempotent
    def post(self, request: TenantRequest, key_id: str) -> Response:
        """Give a key a new secret. The old one works for the grace period beside it, so nothing has to stop."""
        body = read_body(RotateInput, request)
        grace = timedelta(seconds=body.get("grace_seconds", keys.GRACE.total_seconds()))
        key, secret = keys.rotate_key(request.tenant, require_id(ids.KEY, key_id, "key"), grace=grace)
        return Response({**render_key(key), "secret": secret})


class Report(MaasView):
    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(operation_id="keys_report", request=ReportInput, responses=ReportOutput, tags=["Keys"], auth=[])
    def post(self, request: TenantRequest) -> Response:
        """Report keys that leaked; needs no key. Those of this installation are revoked and their owners told by mail."""
        body = read_body(ReportInput, request)
        found = leaks.report_leak(body["text"], url=body.get("url", ""))
        return Response({"object": "key.report", "keys": [finding.__dict__ for finding in found]})


def _with_moment(body: dict[str, Any]) -> dict[str, Any]:
    """Unix seconds to a moment, where the body has any."""
    if body.get("expires_at"):
        body["expires_at"] = datetime.fromtimestamp(body["expires_at"], UTC)
    return body
