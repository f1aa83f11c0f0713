"""Endpoints as a tenant sees them: made, changed, rotated, removed."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.utils import timezone
from django.utils.translation import gettext as _

from apps.accounts.services import Tenant
from apps.webhooks import signing
from apps.webhooks.models import Delivery, Endpoint, State
from apps.webhooks.outbox import EVERYTHING, PUBLIC
from maas import errors, ids
from maas.actors import Permission, require
from maas.destinations import Resolve, check_url, resolve
from maas.events import EndpointChanged, EndpointCreated, EndpointDeleted, EndpointDisabled, SecretRotated, publish
from maas.sealing import reveal
from maas.tenancy import as_tenant

__all__ = ["Delivery", "Endpoint", "State"]  # what the layers above may name

ENDPOINT_LIMIT = 20  # of one tenant
DESCRIPTION_LIMIT = 200  # characters
GRACE, LONGEST_GRACE = timedelta(days=1), timedelta(days=30)  # that the secret before a rotation signs too
SHOWN = ("url", "description", "events", "enabled")
FRESH = {"disabled_reason": "", "disabled_at": None, "told_at": None, "failing_since": None, "failures": 0, "pause_until": None}


# ---------- making and changing ----------
def create_endpoint(
    tenant: Tenant, *, url: str, events: list[str], description: str = "", enabled: bool = True, resolve: Resolve = resolve
) -> tuple[Endpoint, str]:
    """A new endpoint and its secret, which is shown this once.

    Raises BadRequest for an address that cannot or may not be called, for unknown events and at 20 endpoints.
    """
    require(tenant.id, Permission.WEBHOOKS)
    wanted = {"url": url, "events": check_events(events), "description": check_description(description), "enabled": enabled}
    check_url(url, resolve=resolve)
    secret = signing.make_secret()
    with as_tenant(tenant.id):
        Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)  # two requests must not pass the limit together
        if Endpoint.objects.filter(tenant=tenant, deleted_at=None).count() >= ENDPOINT_LIMIT:
            message = _("An organisation can have %(n)d webhooks. Delete one first.") % {"n": ENDPOINT_LIMIT}
            raise errors.BadRequest(message, code="webhook_limit")
        endpoint = Endpoint.objects.create(tenant=tenant, secret=secret, **wanted, **({} if enabled else _off("switched_off")))
        publish(EndpointCreated(tenant_id=tenant.id, endpoint_id=endpoint.id, label=url, after=wanted))
    return endpoint, secret


def change_endpoint(tenant: Tenant, endpoint_id: UUID, *, resolve: Resolve = resolve, **changes: Any) -> Endpoint:
    """Give an endpoint another `url`, `description`, `events` or `enabled`. Switching it on forgets its failures.

    Raises as `create_endpoint` does.
    """
    require(tenant.id, Permission.WEBHOOKS)
    if "events" in changes:
        check_events(changes["events"])
    check_description(changes.get("description", ""))
    if "url" in changes and changes["url"] != get_endpoint(tenant, endpoint_id).url:
        check_url(changes["url"], resolve=resolve)
    with as_tenant(tenant.id):
        endpoint = _lock(tenant, endpoint_id)
        _change(endpoint, {name: value for name, value in changes.items() if value != getattr(endpoint, name)})
        return get_endpoint(tenant, endpoint_id)


def _change(endpoint: Endpoint, changes: dict[str, Any]) -> None:
    if not changes:
        return
    before = {name: getattr(endpoint, name) for name in SHOWN}
    extra: dict[str, Any] = FRESH if changes.get("enabled") else {}
    if changes.get("enabled") is False:
        extra = _off("switched_off")
        give_up_waiting(endpoint)
    Endpoint.objects.filter(pk=endpoint.pk).update(**changes, **extra)
    label = changes.get("url", endpoint.url)
    publish(EndpointChanged(tenant_id=endpoint.tenant_id, endpoint_id=endpoint.id, label=label, before=before, after={**before, **changes}))


def _off(reason: str) -> dict[str, Any]:
    """Switched off by a person, who need not be told by mail."""
    return {"disabled_reason": reason, "disabled_at": timezone.now(), "told_at": timezone.now()}


def switch_off(endpoint: Endpoint, *, reason: str) -> bool:
    """Stop calling an endpoint that is `failing` or `gone`; the sweep tells its people. Inside of the tenant's transaction."""
    off = {"enabled": False, "disabled_reason": reason, "disabled_at": timezone.now(), "told_at": None}
    if not Endpoint.objects.filter(tenant_id=endpoint.tenant_id, pk=endpoint.pk, enabled=True).update(**off):
        return False
    give_up_waiting(endpoint)
    failing = endpoint.failing_since.isoformat() if endpoint.failing_since else None
    after = {"reason": reason, "failing_since": failing}
    publish(EndpointDisabled(tenant_id=endpoint.tenant_id, endpoint_id=endpoint.id, label=endpoint.url, after=after))
    return True


def give_up_waiting(endpoint: Endpoint) -> None:
    """What waits for an endpoint that is off counts as failed, so that it can be found and sent again later."""
    waiting = Delivery.objects.filter(tenant_id=endpoint.tenant_id, endpoint=endpoint, state=State.PENDING)
    waiting.update(state=State.FAILED, next_at=None, ended_at=timezone.now(), last_error=_("The webhook was switched off."))


def delete_endpoint(tenant: Tenant, endpoint_id: UUID) -> None:
    """Forget an endpoint and everything sent to it. What is on its way this moment may still arrive."""
    require(tenant.id, Permission.WEBHOOKS)
    with as_tenant(tenant.id):
        endpoint = _lock(tenant, endpoint_id)
        # The row stays until the sweep takes it: an event that is just being published may refer to it.
        gone = {"enabled": False, "deleted_at": timezone.now(), "told_at": timezone.now(), "secret": "", "old_secret": None}
        Endpoint.objects.filter(pk=endpoint.pk).update(**gone)
        give_up_waiting(endpoint)
        before = {name: getattr(endpoint, name) for name in SHOWN}
        publish(EndpointDeleted(tenant_id=tenant.id, endpoint_id=endpoint.id, label=endpoint.url, before=before))


def rotate_secret(tenant: Tenant, endpoint_id: UUID, *, grace: timedelta = GRACE) -> tuple[Endpoint, str]:
    """A new secret. For `grace` every message carries a signature of the old one too; one older than that ends at once.

    Raises BadRequest for a grace of more than 30 days.
    """
    require(tenant.id, Permission.WEBHOOKS)
    if not timedelta(0) <= grace <= LONGEST_GRACE:
        raise errors.BadRequest(_("The old secret can stay valid for 0 to 30 days."), param="grace_seconds", code="invalid_value")
    secret = signing.make_secret()
    with as_tenant(tenant.id):
        endpoint = _lock(tenant, endpoint_id)
        until = timezone.now() + grace
        old = {"old_secret": endpoint.secret if grace else None, "old_secret_until": until if grace else None}
        Endpoint.objects.filter(pk=endpoint.pk).update(secret=secret, **old)
        after = {"old_valid_until": until.isoformat()}
        publish(SecretRotated(tenant_id=tenant.id, endpoint_id=endpoint.id, label=endpoint.url, after=after))
        return get_endpoint(tenant, endpoint_id), secret


def valid_secrets(endpoint: Endpoint) -> list[str]:
    """The secrets that sign now, the newest first."""
    old = [reveal(endpoint.old_secret)] if endpoint.old_secret and endpoint.rotating_until else []
    return [reveal(endpoint.secret), *old]


# ---------- looking ----------
def list_endpoints(tenant: Tenant) -> list[Endpoint]:
    """The tenant's endpoints, newest first."""
    with as_tenant(tenant.id):
        return list(Endpoint.objects.filter(tenant=tenant, deleted_at=None).order_by("-id"))


def get_endpoint(tenant: Tenant, endpoint_id: UUID) -> Endpoint:
    """One of the tenant's endpoints; NotFound for any other."""
    with as_tenant(tenant.id):
        found = Endpoint.objects.filter(tenant=tenant, pk=endpoint_id, deleted_at=None).first()
    return found or _missing(endpoint_id)


def _lock(tenant: Tenant, endpoint_id: UUID) -> Endpoint:
    rows = Endpoint.objects.select_for_update(no_key=True)
    return rows.filter(tenant=tenant, pk=endpoint_id, deleted_at=None).first() or _missing(endpoint_id)


def _missing(endpoint_id: UUID) -> Any:
    raise errors.NotFound(_("There is no webhook '%(id)s'.") % {"id": ids.encode(ids.WEBHOOK, endpoint_id)}, param="id")


# ---------- checking ----------
def check_events(events: list[str]) -> list[str]:
    """The names, if all can be asked for; BadRequest names the first that cannot."""
    if not events:
        message = _("Name at least one event, or '*' for all of them.")
        raise errors.BadRequest(message, param="events", code="invalid_value")
    for number, name in enumerate(events):
        if name not in (*PUBLIC, EVERYTHING):
            words = {"name": str(name)[:60], "known": ", ".join(PUBLIC)}
            message = _("There is no event '%(name)s'. Known: %(known)s, and * for all of them.") % words
            raise errors.BadRequest(message, param=f"events[{number}]", code="unknown_event")
    return events


def check_description(text: str) -> str:
    """The text, if it is short enough and can be stored."""
    if len(text) > DESCRIPTION_LIMIT or "\0" in text:
        message = _("Use up to %(n)d characters, without NUL.") % {"n": DESCRIPTION_LIMIT}
        raise errors.BadRequest(message, param="description", code="invalid_value")
    return text
