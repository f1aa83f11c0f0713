"""/v1/files, in OpenAI's shapes."""

from datetime import timedelta
from typing import Any, cast

from django.http import HttpRequest, QueryDict
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from apps.files import downloads, services, uploads
from apps.idempotency.api import idempotent, made_id
from maas import errors, ids
from maas.api import MaasView, TenantRequest, list_of, listing, read_cursor, read_page

ANCHOR, SECONDS = "expires_after[anchor]", "expires_after[seconds]"
LEASE = timedelta(minutes=10)  # the longest that storing takes once the body has come in
FIELDS = ("file", "purpose", ANCHOR, SECONDS)


class ExpiresAfter(serializers.Serializer):
    anchor = serializers.ChoiceField(choices=["created_at"])
    seconds = serializers.IntegerField(min_value=services.SHORTEST_LIFE, max_value=services.LONGEST_LIFE)


class FileInput(serializers.Serializer):
    purpose = serializers.ChoiceField(choices=services.UPLOAD_PURPOSES)
    file = serializers.FileField(help_text="Up to 200 MB.")
    expires_after = ExpiresAfter(required=False, help_text="Sent as `expires_after[anchor]` and `expires_after[seconds]`.")


class FileOutput(serializers.Serializer):
    id = serializers.CharField()
    object = serializers.CharField()
    bytes = serializers.IntegerField()
    created_at = serializers.IntegerField()
    expires_at = serializers.IntegerField(allow_null=True)
    filename = serializers.CharField()
    purpose = serializers.ChoiceField(choices=services.PURPOSES)
    status = serializers.ChoiceField(choices=["uploaded", "processed"])
    status_details = serializers.CharField(allow_null=True)


class FileDeletion(serializers.Serializer):
    id = serializers.CharField()
    object = serializers.CharField()
    deleted = serializers.BooleanField()


def render_file(file: Any) -> dict[str, Any]:
    """A file as the API shows it."""
    return {
        "id": ids.encode(ids.FILE, file.id), "object": "file", "bytes": file.bytes,
        "created_at": int(file.created_at.timestamp()),
        "expires_at": int(file.expires_at.timestamp()) if file.expires_at else None,
        "filename": file.filename, "purpose": file.purpose, "status": file.status, "status_details": None,
    }  # fmt: skip


class Files(MaasView):
    required_scope = "files"
    parser_classes = [MultiPartParser]
    refused: errors.MaasError | None = None

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        """Limit the upload before anything reads it: CSRF protection parses the form of a member's session."""
        self.refused = _refusal(request) if request.method == "POST" else None
        return super().initialize_request(request, *args, **kwargs)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        if self.refused is not None:
            raise self.refused
        super().initial(request, *args, **kwargs)

    @extend_schema(
        operation_id="files_list", responses=list_of(FileOutput), tags=["Files"],
        parameters=[
            OpenApiParameter("after", str), OpenApiParameter("limit", int, description="1 to 10000; 20 if missing."),
            OpenApiParameter("order", str, enum=["asc", "desc"]), OpenApiParameter("purpose", str, enum=services.PURPOSES),
        ],
    )  # fmt: skip
    def get(self, request: TenantRequest) -> Response:
        """List your files, newest first."""
        page, purpose = read_page(request, largest=services.LIST_LIMIT), request.query_params.get("purpose")
        rows, has_more = services.list_files(
            request.tenant, purpose=purpose, after=read_cursor(page, ids.FILE), limit=page.limit, order=page.order
        )
        return Response(listing([render_file(file) for file in rows], has_more=has_more))

    @extend_schema(operation_id="files_create", request={"multipart/form-data": FileInput}, responses=FileOutput, tags=["Files"])
    @idempotent(atomic=False, lease=LEASE, fingerprint=uploads.fingerprint)
    def post(self, request: TenantRequest) -> Response:
        """Upload a file of up to 200 MB."""
        form = _read_form(request)
        body, expires_in = uploads.sent_file(request), _read_expiry(form)
        file = services.create_file(
            request.tenant, filename=body.name or "", purpose=form["purpose"], chunks=body.chunks(2**20), expires_in=expires_in,
            file_id=made_id(request),
        )  # fmt: skip
        return Response(render_file(file))


def _refusal(request: HttpRequest) -> errors.MaasError | None:
    """Why a request will be refused. It is raised later, where the error becomes an answer."""
    try:
        uploads.limit_upload(request)
    except errors.MaasError as error:
        return error
    return None


def _read_form(request: TenantRequest) -> dict[str, str]:
    """The fields beside the file; BadRequest for one that is unknown, and without a purpose."""
    form = {name: str(value) for name, value in cast(QueryDict, request.data).items()}
    for name in form:
        if name not in FIELDS:
            message = f"Unknown field '{name[:100]}'. Known: {', '.join(FIELDS)}."
            raise errors.BadRequest(message, param=name[:100], code="unknown_field")
    if "purpose" not in form:
        message = f"'purpose' is missing. Choose from: {', '.join(services.UPLOAD_PURPOSES)}."
        raise errors.BadRequest(message, param="purpose", code="missing_field")
    return form


def _read_expiry(form: dict[str, str]) -> int | None:
    """Seconds until the file expires, or None."""
    if ANCHOR not in form and SECONDS not in form:
        return None
    if form.get(ANCHOR) != "created_at":
        raise errors.BadRequest(f"'{ANCHOR}' must be 'created_at'.", param=ANCHOR, code="invalid_value")
    text = form.get(SECONDS, "")
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise errors.BadRequest(f"'{SECONDS}' must be a whole number.", param=SECONDS, code="invalid_value")
    return int(text)


class File(MaasView):
    required_scope = "files"

    @extend_schema(operation_id="files_retrieve", responses=FileOutput, tags=["Files"])
    def get(self, request: TenantRequest, file_id: str) -> Response:
        """Show one file."""
        return Response(render_file(services.get_file(request.tenant, services.parse_id(file_id))))

    @extend_schema(operation_id="files_delete", responses=FileDeletion, tags=["Files"])
    def delete(self, request: TenantRequest, file_id: str) -> Response:
        """Delete a file for good. A file that an unfinished batch reads stays."""
        services.delete_file(request.tenant, services.parse_id(file_id))
        return Response({"id": file_id, "object": "file", "deleted": True})


class Content(MaasView):
    required_scope = "files"

    @extend_schema(
        operation_id="files_content", tags=["Files"],
        responses={(200, "application/octet-stream"): OpenApiTypes.BINARY, (206, "application/octet-stream"): OpenApiTypes.BINARY},
        parameters=[OpenApiParameter("Range", str, OpenApiParameter.HEADER, description="Bytes, to go on where a download broke off.")],
    )  # fmt: skip
    def get(self, request: TenantRequest, file_id: str) -> HttpResponseBase:
        """Download the bytes of a file."""
        file = services.get_file(request.tenant, services.parse_id(file_id))
        body = services.open_file(request.tenant, file.id)
        return downloads.send_file(request._request, file, body)
