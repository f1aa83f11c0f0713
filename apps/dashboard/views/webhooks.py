"""Webhooks: the addresses that are called, what was sent to them, and sending it again."""

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django_htmx.http import HttpResponseClientRedirect

from apps.dashboard.page import MemberRequest, page, read_id, require_writer
from apps.dashboard.words import EVENTS
from apps.webhooks import deliveries, services
from maas import errors, ids

PAGE = 25
GRACES = {"0": timedelta(0), "1": timedelta(days=1), "7": timedelta(days=7), "30": timedelta(days=30)}
STATES = ("pending", "delivered", "failed")


class WebhookForm(forms.Form):
    """What an endpoint is asked for. `asked` are the events that it has now: the API knows more than can be ticked here."""

    url = forms.CharField(
        label=gettext_lazy("Address"), max_length=2000, widget=forms.URLInput(attrs={"placeholder": "https://example.com/webhooks"})
    )
    description = forms.CharField(label=gettext_lazy("Description"), max_length=services.DESCRIPTION_LIMIT, required=False)
    events = forms.MultipleChoiceField(
        label=gettext_lazy("Events"),
        initial=["*"],
        error_messages={"required": gettext_lazy("Choose at least one event.")},
    )

    def __init__(self, *args: Any, asked: list[str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.known = EVENTS | {name: "" for name in asked or [] if name not in EVENTS}
        self.fields["events"].choices = list(self.known.items())  # type: ignore[attr-defined]

    def wanted(self) -> dict[str, Any]:
        """The arguments of `services.create_endpoint` and `services.change_endpoint`."""
        data = self.cleaned_data
        return {**data, "events": ["*"] if "*" in data["events"] else data["events"]}

    def refuse(self, error: errors.MaasError) -> None:
        """Put a service's error under its field."""
        field = (error.param or "").partition("[")[0]
        self.add_error(field if field in self.fields else None, error.message)


# ---------- the list ----------
@page()
def index(request: MemberRequest) -> HttpResponse:
    return render(request, "webhooks.html", _list(request) | {"form": WebhookForm()})


def _list(request: MemberRequest) -> dict[str, Any]:
    found = services.list_endpoints(request.tenant)
    return {"section": "webhooks", "endpoints": found, "limit": services.ENDPOINT_LIMIT}


@page("GET", "POST")
def new(request: MemberRequest) -> HttpResponse:
    """The form as a page of its own, and where the dialog posts to. The secret is in this one answer and nowhere else."""
    require_writer(request)
    form = WebhookForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            return _show_secret(request, *services.create_endpoint(request.tenant, **form.wanted()))
        except errors.BadRequest as error:
            form.refuse(error)
    template = "parts/webhook_form.html" if request.htmx and request.method == "POST" else "new_webhook.html"
    context = {"form": form, "section": "webhooks"}
    return render(request, template, context, status=422 if form.errors else 200)


def _show_secret(request: MemberRequest, endpoint: Any, secret: str) -> HttpResponse:
    """The list with the secret above it; in place of the whole page where a dialog asked."""
    response = render(request, "webhooks.html", _list(request) | {"form": WebhookForm(), "made": endpoint, "secret": secret})
    response["Cache-Control"] = "no-store"
    response["HX-Push-Url"] = "/webhooks"
    response["HX-Retarget"], response["HX-Reswap"], response["HX-Reselect"] = "#main", "outerHTML show:window:top", "#main"
    return response


# ---------- one of them ----------
@page()
def show(request: MemberRequest, webhook_id: str) -> HttpResponse:
    """An endpoint and what was sent to it, newest first."""
    endpoint = _endpoint(request, webhook_id)
    state = request.GET.get("state") if request.GET.get("state") in STATES else None
    after = ids.decode(ids.DELIVERY, request.GET.get("after", ""))
    rows, has_more = deliveries.list_deliveries(request.tenant, endpoint.id, state=state, after=after, limit=PAGE)
    context = {
        "section": "webhooks",
        "endpoint": endpoint,
        "deliveries": rows,
        "has_more": has_more,
        "paged": after is not None,
        "chip": state or "",
        "chips": [("", _("All")), ("pending", _("Waiting")), ("delivered", _("Delivered")), ("failed", _("Failed"))],
        "failed": deliveries.count_failed(request.tenant, endpoint.id),
    }
    return render(request, "webhook.html", context)


@page()
def delivery(request: MemberRequest, webhook_id: str, delivery_id: str) -> HttpResponse:
    """A delivery with the request and the answer of each attempt."""
    endpoint = _endpoint(request, webhook_id)
    found, attempts = deliveries.get_delivery(request.tenant, endpoint.id, read_id(ids.DELIVERY, delivery_id))
    context = {"section": "webhooks", "endpoint": endpoint, "delivery": found, "attempts": attempts}
    return render(request, "webhook_delivery.html", context)


@page("GET", "POST")
def edit(request: MemberRequest, webhook_id: str) -> HttpResponse:
    """Change where and what is sent."""
    require_writer(request)
    endpoint = _endpoint(request, webhook_id)
    initial = {name: getattr(endpoint, name) for name in ("url", "description", "events")}
    form = WebhookForm(request.POST if request.method == "POST" else None, initial=initial, asked=endpoint.events)
    if request.method == "POST" and form.is_valid():
        try:
            services.change_endpoint(request.tenant, endpoint.id, **form.wanted())
            messages.success(request, _("The webhook is changed."))
            return redirect("webhook", webhook_id)
        except errors.BadRequest as error:
            form.refuse(error)
    context = {"form": form, "endpoint": endpoint, "section": "webhooks"}
    return render(request, "edit_webhook.html", context, status=422 if form.errors else 200)


@page("POST")
def switch(request: MemberRequest, webhook_id: str) -> HttpResponse:
    """Switch an endpoint on or off; what waits for one that goes off counts as failed and can be sent again."""
    on = request.POST.get("enabled") == "true"
    services.change_endpoint(request.tenant, read_id(ids.WEBHOOK, webhook_id), enabled=on)
    messages.success(request, _("The webhook is switched on.") if on else _("The webhook is switched off."))
    return redirect("webhook", webhook_id)


@page("GET", "POST")
def rotate(request: MemberRequest, webhook_id: str) -> HttpResponse:
    """Ask how long the old secret stays, then show the new one."""
    require_writer(request)
    endpoint = _endpoint(request, webhook_id)
    if request.method == "POST":
        grace = GRACES.get(request.POST.get("grace", ""), services.GRACE)
        return _show_secret(request, *services.rotate_secret(request.tenant, endpoint.id, grace=grace))
    template = "parts/rotate_webhook.html" if request.htmx else "rotate_webhook.html"
    return render(request, template, {"endpoint": endpoint, "section": "webhooks"})


@page("GET", "POST")
def delete(request: MemberRequest, webhook_id: str) -> HttpResponse:
    """Ask once more, then delete."""
    require_writer(request)
    endpoint = _endpoint(request, webhook_id)
    if request.method == "POST":
        services.delete_endpoint(request.tenant, endpoint.id)
        messages.success(request, _("%(url)s is called no more.") % {"url": endpoint.url})
        return HttpResponseClientRedirect("/webhooks") if request.htmx else redirect("webhooks")
    template = "parts/delete_webhook.html" if request.htmx else "delete_webhook.html"
    return render(request, template, {"endpoint": endpoint, "section": "webhooks"})


# ---------- sending ----------
@page("POST")
def test(request: MemberRequest, webhook_id: str) -> HttpResponse:
    """Send a test and show what comes of it."""
    sent = deliveries.send_test(request.tenant, read_id(ids.WEBHOOK, webhook_id))
    messages.success(request, _("A test is on its way. Reload to see the answer."))
    return redirect("webhook_delivery", webhook_id, ids.encode(ids.DELIVERY, sent.id))


@page("POST")
def replay(request: MemberRequest, webhook_id: str, delivery_id: str) -> HttpResponse:
    """Send one delivery again."""
    deliveries.replay_delivery(request.tenant, read_id(ids.WEBHOOK, webhook_id), read_id(ids.DELIVERY, delivery_id))
    messages.success(request, _("It is sent again. Reload to see the answer."))
    return redirect("webhook_delivery", webhook_id, delivery_id)


@page("POST")
def replay_failed(request: MemberRequest, webhook_id: str) -> HttpResponse:
    """Send everything again that failed."""
    count = deliveries.replay_failed(request.tenant, read_id(ids.WEBHOOK, webhook_id))
    messages.success(request, ngettext("%(n)d delivery is sent again.", "%(n)d deliveries are sent again.", count) % {"n": count})
    return redirect("webhook", webhook_id)


def _endpoint(request: MemberRequest, webhook_id: str) -> services.Endpoint:
    return services.get_endpoint(request.tenant, read_id(ids.WEBHOOK, webhook_id))
