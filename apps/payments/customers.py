"""A tenant as Stripe's customer: made once, and found again by what Stripe calls it."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import stripe
from django.db.models import F

from apps.accounts.members import addresses_of
from apps.accounts.services import Role, Tenant
from apps.payments import calls
from apps.payments.models import Customer, Subscription
from maas.tenancy import SystemUse, as_system, as_tenant


def find_customer(tenant: Tenant) -> Customer | None:
    """What Stripe knows the tenant as; None, or one without a `stripe_id`, when it does not yet."""
    with as_tenant(tenant.id):
        return Customer.objects.filter(tenant=tenant).first()


def ensure_customer(tenant: Tenant) -> str:
    """The id of the tenant's customer at Stripe, made there when it is not there yet. Raises what Stripe raises."""
    with as_tenant(tenant.id):
        row, _made = Customer.objects.get_or_create(tenant=tenant)
    if row.stripe_id:
        return row.stripe_id
    params: dict[str, Any] = {"name": tenant.name, "metadata": {"tenant": tenant.id.hex}}
    owners = addresses_of(tenant, Role.OWNER)
    made = once(tenant, "customer", {**params, "email": owners[0]} if owners else params, calls.client().v1.customers.create)
    with as_tenant(tenant.id):
        Customer.objects.filter(tenant=tenant, stripe_id="").update(stripe_id=made.id)
        return Customer.objects.get(tenant=tenant).stripe_id


def once(tenant: Tenant, what: str, params: dict[str, Any], call: Callable[[Any, Any], Any]) -> Any:
    """Ask Stripe for something so that asking again, by whomever and however often, gets the same thing.

    A failure that Stripe has answered is what it answers to the same key for a day, so the next attempt has another one.
    """
    attempt = getattr(find_customer(tenant), "attempt", 0)
    key = calls.key_for(what, tenant.id.hex, attempt, params=params)
    try:
        return call(params, {"idempotency_key": key})
    except stripe.APIError:
        with as_tenant(tenant.id):
            Customer.objects.filter(tenant=tenant, attempt=attempt).update(attempt=F("attempt") + 1)
        raise


def tenant_of(customer: str, subscription: str = "") -> UUID | None:
    """Whose customer or subscription this is; None for one that we did not make."""
    with as_system(SystemUse.COLLECT_PAYMENTS):
        rows = Customer.objects.filter(stripe_id=customer) if customer else Customer.objects.none()
        found = rows.values_list("tenant_id", flat=True).first()
        # A customer that was deleted is no longer ours, but how its subscriptions end still matters.
        return found or Subscription.objects.filter(stripe_id=subscription).values_list("tenant_id", flat=True).first()
