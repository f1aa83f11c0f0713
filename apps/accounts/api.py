"""/v1/keys."""

from datetime import UTC, datetime
from typing import Any, cast

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from apps.accounts import services
from maas import errors, ids
from maas.api import MaasView, StrictSerializer, TenantRequest, list_of, listing, read_body, require_id


class KeyInput(StrictSerializer):
    name = serializers.CharField(max_length=80)
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=services.SCOPES), allow_empty=False)
    expires_at = serializers.IntegerField(required=False, allow_null=True, min_value=1, max_value=253402300799, help_text="Unix seconds.")


class KeyOutput(serializers.Serializer):
    id = serializers.CharField()
    object = serializers.CharField()
    name = serializers.CharField()
    prefix = serializers.CharField()
    scopes = serializers.ListField(child=serializers.CharField())
    status = serializers.ChoiceField(choices=["active", "expired", "revoked"])
    created_at = serializers.IntegerField()
    expires_at = serializers.IntegerField(allow_null=True)
    revoked_at = serializers.IntegerField(allow_null=True)
    last_used_at = serializers.IntegerField(allow_null=True)
    secret = serializers.CharField(required=False, help_text="Only in the answer that makes the key.")


def render_key(key: services.ApiKey) -> dict[str, Any]:
    """A key as the API shows it: never the secret."""
    times = {name: _seconds(getattr(key, name)) for name in ("created_at", "expires_at", "revoked_at", "last_used_at")}
    return {
        "id": ids.encode(ids.KEY, key.id), "object": "key", "name": key.name, "prefix": key.prefix,
        "scopes": key.scopes, "status": key.status, **times,
    }  # fmt: skip


def _seconds(moment: Any) -> int | None:
    return int(moment.timestamp()) if moment else None


class Keys(MaasView):
    required_scope = "keys"

    @extend_schema(
        operation_id="keys_list", responses=list_of(KeyOutput), tags=["Keys"], parameters=[OpenApiParameter("include_revoked", bool)]
    )  # fmt: skip
    def get(self, request: TenantRequest) -> Response:
        """List the organisation's API keys, newest first."""
        everything = request.query_params.get("include_revoked") == "true"
        return Response(listing([render_key(key) for key in services.list_keys(request.tenant, with_revoked=everything)]))

    @extend_schema(operation_id="keys_create", request=KeyInput, responses={201: KeyOutput}, tags=["Keys"])
    def post(self, request: TenantRequest) -> Response:
        """Make a key. Its secret is in this answer and nowhere else. A key cannot give scopes that it lacks."""
        body = read_body(KeyInput, request)
        self._check_scopes(request.key, body["scopes"])
        user = None if request.key else cast(services.User, request.user)
        key, secret = services.create_key(
            request.tenant, name=body["name"], scopes=body["scopes"], expires_at=_moment(body.get("expires_at")), created_by=user
        )
        return Response({**render_key(key), "secret": secret}, status=201)

    def _check_scopes(self, own: services.ApiKey | None, wanted: list[str]) -> None:
        missing = sorted(set(wanted) - set(own.scopes)) if own else []
        if missing:
            raise errors.Forbidden(f"This key lacks the scope '{missing[0]}', so it cannot give it.", param="scopes", code="missing_scope")


class Key(MaasView):
    required_scope = "keys"

    @extend_schema(operation_id="keys_retrieve", responses=KeyOutput, tags=["Keys"])
    def get(self, request: TenantRequest, key_id: str) -> Response:
        """Show one key."""
        return Response(render_key(services.get_key(request.tenant, require_id(ids.KEY, key_id, "key"))))

    @extend_schema(operation_id="keys_revoke", responses=KeyOutput, tags=["Keys"])
    def delete(self, request: TenantRequest, key_id: str) -> Response:
        """Revoke a key at once. Calls that begin afterwards get 401."""
        return Response(render_key(services.revoke_key(request.tenant, require_id(ids.KEY, key_id, "key"))))


def _moment(seconds: int | None) -> Any:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
