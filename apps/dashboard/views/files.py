"""Stored files: what lies there, taking it home, throwing it away."""

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django_htmx.http import HttpResponseClientRedirect

from apps.dashboard import words
from apps.dashboard.page import MemberRequest, page, read_id, require_writer
from apps.files import downloads, services
from maas import ids

PAGE = 25
PURPOSES = tuple(words.PURPOSES)


@page()
def index(request: MemberRequest) -> HttpResponse:
    purpose = request.GET.get("purpose") if request.GET.get("purpose") in PURPOSES else None
    after = ids.decode(ids.FILE, request.GET.get("after", ""))
    found, has_more = services.list_files(request.tenant, purpose=purpose, after=after, limit=PAGE)
    context = {
        "section": "files",
        "files": found,
        "has_more": has_more,
        "purpose": purpose,
        "purposes": PURPOSES,
        "paged": after is not None,
    }
    return render(request, "files.html", context)


@page()
def download(request: MemberRequest, file_id: str) -> HttpResponse:
    file = services.get_file(request.tenant, read_id(ids.FILE, file_id))
    body = services.open_file(request.tenant, file.id)
    return downloads.send_file(request, file, body)  # type: ignore[return-value]


@page("GET", "POST")
def delete(request: MemberRequest, file_id: str) -> HttpResponse:
    """Ask once more, then delete."""
    require_writer(request)
    file = services.get_file(request.tenant, read_id(ids.FILE, file_id))
    if request.method == "POST":
        services.delete_file(request.tenant, file.id)
        messages.success(request, _("%(name)s is deleted.") % {"name": file.filename})
        return HttpResponseClientRedirect("/files") if request.htmx else redirect("files")
    template = "parts/delete_file.html" if request.htmx else "delete_file.html"
    return render(request, template, {"file": file, "section": "files"})
