"""What the tests of webhooks share: a receiver that may be called, and short ways to do what all of them do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core import mail
from django.utils import timezone

from apps.webhooks import deliveries, delivering, services
from apps.webhooks.models import Delivery, Endpoint, State
from maas.events import KeyCreated, publish
from maas.ids import uuid7
from maas.tenancy import SystemUse, as_system, as_tenant
from tests.receiver import Receiver, receiver


@contextmanager
def listening(settings_of: Callable[..., Any]) -> Iterator[Receiver]:
    """A receiver on this machine, with calls to it allowed, mails kept in memory, and nothing else that waits."""
    with as_system(SystemUse.SWEEP):
        Delivery.objects.filter(state=State.PENDING).update(state=State.FAILED)
    mails = "django.core.mail.backends.locmem.EmailBackend"
    with settings_of(MAAS_WEBHOOK_ALLOW=["127.0.0.0/8", "::1"], EMAIL_BACKEND=mails), receiver() as told:
        mail.outbox = []
        yield told


def make(cast, target: Receiver, events: list[str] | None = None) -> tuple[Endpoint, str]:
    return services.create_endpoint(cast.tenant, url=target.url, events=events or ["*"])


def tell(cast) -> KeyCreated:
    """Publish a public event."""
    event = KeyCreated(tenant_id=cast.tenant.id, key_id=uuid7(), label="camera")
    with as_tenant(cast.tenant.id):
        publish(event)
    return event


def only(cast, endpoint: Endpoint) -> Delivery:
    (found,), more = deliveries.list_deliveries(cast.tenant, endpoint.id)
    assert not more
    return found


def again(cast, endpoint: Endpoint) -> None:
    """Let everything that waits be due now, without the pause after a failure."""
    with as_tenant(cast.tenant.id):
        Endpoint.objects.filter(pk=endpoint.pk).update(pause_until=None)
        Delivery.objects.filter(endpoint=endpoint, state=State.PENDING).update(next_at=timezone.now())
    delivering.deliver_due()


def current(cast, endpoint: Endpoint) -> Endpoint:
    return services.get_endpoint(cast.tenant, endpoint.id)
