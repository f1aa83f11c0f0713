"""What the tests of payments share: a stand-in for Stripe with our prices in it, and organisations that pay there."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from io import StringIO
from typing import Any

from django.core import mail
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from apps.accounts.models import Tenant
from apps.payments import inbox, metering, sending, services
from apps.payments.models import Customer, MeterEvent, StripeEvent, Subscription
from apps.usage import allowances
from apps.usage import services as usage
from apps.usage.periods import month_of
from maas.tenancy import SystemUse, as_system, as_tenant
from tests.stripe_server import StripeServer, stripe_server
from tests.test_usage import line

SECRET = "whsec_of_the_tests"
URLS = {"success_url": "https://maas.invalid/billing?paid", "cancel_url": "https://maas.invalid/billing"}
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@contextmanager
def banking(settings_of: Callable[..., Any], *, seed: int = 0) -> Iterator[StripeServer]:
    """A stand-in that is set up, with nothing left of what other tests paid; mails are kept in memory."""
    forget()
    mails = "django.core.mail.backends.locmem.EmailBackend"
    with stripe_server(SECRET, seed=seed) as bank, settings_of(
        STRIPE_SECRET_KEY=f"sk_test_{bank.state.account}", STRIPE_WEBHOOK_SECRET=SECRET, MAAS_STRIPE_URL=bank.url,
        MAAS_STRIPE_TIMEOUT=1, EMAIL_BACKEND=mails,
    ):  # fmt: skip
        mail.outbox = []
        call_command("stripe_setup", stdout=StringIO())
        yield bank


def forget() -> None:
    """End what earlier tests began: their Stripe is gone."""
    with as_system(SystemUse.COLLECT_PAYMENTS):
        StripeEvent.objects.filter(processed_at=None).update(processed_at=timezone.now(), next_at=None)
        MeterEvent.objects.filter(sent_at=None).delete()
        Subscription.objects.all().update(status="canceled", ended_at=LONG_AGO, owing_since=None)


def on_plan(tenant: Tenant, plan: str) -> Tenant:
    with as_tenant(tenant.id):
        Tenant.objects.filter(pk=tenant.pk).update(plan=plan)
    return now_of(tenant)


def now_of(tenant: Tenant) -> Tenant:
    with as_tenant(tenant.id):
        return Tenant.objects.get(pk=tenant.pk)


def subscribe(bank: StripeServer, tenant: Tenant, plan: str = "team") -> dict[str, Any]:
    """From the free plan through the checkout; the subscription as Stripe has it, all events told."""
    on_plan(tenant, "free")
    url = services.start_checkout(tenant, plan=plan, **URLS)
    paid = bank.pay(url)
    tell(bank)
    return paid


def tell(bank: StripeServer) -> None:
    """Deliver what Stripe has to say, and follow it."""
    bank.deliver(hook)
    follow_all()


def hook(body: str, signature: str) -> int:
    """Our endpoint."""
    return post(body, signature).status_code


def post(body: str | bytes, signature: str | None) -> Any:
    headers = {"Stripe-Signature": signature} if signature is not None else {}
    return Client(raise_request_exception=False).post("/stripe/webhook", body, content_type="application/json", headers=headers)


def follow_all() -> None:
    """As the sweep does, without waiting for the time between two attempts."""
    for _round in range(20):
        with as_system(SystemUse.COLLECT_PAYMENTS):
            if not StripeEvent.objects.filter(processed_at=None, next_at__isnull=False).update(next_at=timezone.now()):
                return
        inbox.follow_due()
    raise AssertionError("events are followed again and again")


def use(tenant: Tenant, units: int) -> None:
    """Charge units now."""
    period = month_of(timezone.now())
    with as_tenant(tenant.id):
        allowances.begin_month(tenant.id, period)
    usage.settle_calls([(tenant.id, line(units=units))])


def send_all() -> None:
    """As the sweep does, without waiting for the time between two attempts."""
    for _round in range(20):
        sending.send_due()
        with as_system(SystemUse.COLLECT_PAYMENTS):
            if not MeterEvent.objects.filter(sent_at=None, held_at=None).update(next_at=timezone.now()):
                return


def bill(tenant: Tenant, period: date | None = None) -> None:
    """Tell Stripe what was used."""
    metering.tell_month(tenant.id, period or month_of(timezone.now()))
    send_all()


def events_of(tenant: Tenant) -> list[MeterEvent]:
    with as_tenant(tenant.id):
        return list(MeterEvent.objects.filter(tenant=tenant).order_by("id"))


def mirror_of(tenant: Tenant) -> dict[str, Any]:
    """What we hold of a tenant's payments, to be compared: without the time of the last change."""
    with as_tenant(tenant.id):
        rows = Subscription.objects.filter(tenant=tenant).order_by("stripe_id")
        subscriptions = [row.__dict__ | {"_state": None, "changed_at": None, "id": None, "created_at": None} for row in rows]
        return {"subscriptions": subscriptions, "customer": customer_of(tenant), "plan": Tenant.objects.get(pk=tenant.pk).plan}


def customer_of(tenant: Tenant) -> str:
    with as_tenant(tenant.id):
        return Customer.objects.get(tenant=tenant).stripe_id
