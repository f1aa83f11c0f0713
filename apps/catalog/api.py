"""/v1/models."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from apps.catalog import services
from maas import errors
from maas.api import MaasView, TenantRequest, list_of, listing


class ModelOutput(serializers.Serializer):
    id = serializers.CharField()
    object = serializers.CharField()
    created = serializers.IntegerField()
    owned_by = serializers.CharField()
    task = serializers.CharField()
    description = serializers.CharField()
    status = serializers.CharField()
    current_version = serializers.IntegerField()
    price = serializers.DictField(help_text='{"unit", "per", "units"}: units charged for every `per` of `unit` begun, per input.')


class VersionOutput(serializers.Serializer):
    id = serializers.CharField()
    object = serializers.CharField()
    version = serializers.IntegerField()
    created = serializers.IntegerField()
    aliases = serializers.ListField(child=serializers.CharField())
    metrics = serializers.ListField(child=serializers.DictField())
    recipe = serializers.CharField()
    licence = serializers.CharField()
    files = serializers.DictField(child=serializers.CharField())


class ModelDetail(ModelOutput):
    card = serializers.CharField()
    metrics = serializers.ListField(child=serializers.DictField())
    licence = serializers.CharField()


def render_model(model: services.Model) -> dict[str, Any]:
    """A model in OpenAI's shape and ours."""
    version = services.current_version(model)
    return {
        "id": model.name, "object": "model", "created": int(model.created_at.timestamp()),
        "owned_by": model.name.partition("/")[0] if model.tenant_id else "maas",
        "task": model.task, "description": model.description, "status": model.status,
        "current_version": version.number, "price": version.rate,
    }  # fmt: skip


def render_version(model: services.Model, version: services.Version) -> dict[str, Any]:
    """A version with its measured metrics and the sha256 of its files."""
    return {
        "id": f"{model.name}@{version.number}", "object": "model.version", "version": version.number,
        "created": int(version.created_at.timestamp()),
        "aliases": [alias.name for alias in model.aliases.all() if alias.version_id == version.id],
        "metrics": version.metrics, "recipe": version.recipe, "licence": version.licence, "files": version.files,
    }  # fmt: skip


class Models(MaasView):
    required_scope = "models"

    @extend_schema(operation_id="models_list", responses=list_of(ModelOutput), tags=["Models"], parameters=[OpenApiParameter("task", str)])
    def get(self, request: TenantRequest) -> Response:
        """List the models that you can call."""
        rows = services.list_models(request.tenant, task=request.query_params.get("task"))
        return Response(listing([render_model(model) for model in rows]))


class Model(MaasView):
    required_scope = "models"

    @extend_schema(operation_id="models_retrieve", responses=ModelDetail, tags=["Models"])
    def get(self, request: TenantRequest, model: str) -> Response:
        """Show one model with its card and its measured metrics."""
        found = services.get_model(request.tenant, model)
        version = services.current_version(found)
        return Response({**render_model(found), "card": version.card, "metrics": version.metrics, "licence": version.licence})

    @extend_schema(operation_id="models_delete", responses={403: None}, tags=["Models"])
    def delete(self, request: TenantRequest, model: str) -> Response:
        """Delete a model of your own. Shared models stay."""
        found = services.get_model(request.tenant, model)
        raise errors.Forbidden(f"'{found.name}' is shared by all organisations and cannot be deleted.", param="model", code="shared_model")


class Versions(MaasView):
    required_scope = "models"

    @extend_schema(operation_id="models_versions", responses=list_of(VersionOutput), tags=["Models"])
    def get(self, request: TenantRequest, model: str) -> Response:
        """List the versions of a model, newest first."""
        found = services.get_model(request.tenant, model)
        return Response(listing([render_version(found, version) for version in found.versions.all()]))
