"""What Stripe knows of a tenant, and what it is told."""

from django.db import models
from django.db.models import Q

from maas.tenancy import TenantOwned


class Customer(TenantOwned):
    """A tenant as Stripe's customer. `stripe_id` is empty until Stripe has made it, and again after it was deleted there.

    `attempt` is a part of every idempotency key: Stripe answers a key that failed once with the same failure for a day.
    `card` is `{"brand", "last4", "exp_month", "exp_year"}`, or empty.
    """

    stripe_id = models.CharField(max_length=60, default="", blank=True)
    attempt = models.IntegerField(default=0)
    card = models.JSONField(default=dict)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant"], name="one_customer"),
            models.UniqueConstraint(fields=["stripe_id"], name="one_tenant_a_customer", condition=~Q(stripe_id="")),
        ]


class Subscription(TenantOwned):
    """A subscription as Stripe last told it; `plan` is what its licensed price stands for."""

    stripe_id = models.CharField(max_length=60, unique=True)
    customer = models.CharField(max_length=60)
    status = models.CharField(max_length=24)
    plan = models.CharField(max_length=20)
    item_id = models.CharField(max_length=60)  # of the licensed price: what a change of plan replaces
    metered_item_id = models.CharField(max_length=60, default="", blank=True)
    price_id = models.CharField(max_length=120)
    period_start = models.DateTimeField()
    period_end = models.DateTimeField()
    cancel_at_period_end = models.BooleanField(default=False)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    owing_since = models.DateTimeField(null=True)  # while its latest invoice could not be collected
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        indexes = [models.Index(fields=["tenant", "-started_at"], name="subscriptions_of_tenant")]


class Meter(TenantOwned):
    """What Stripe was told of a month so far, or will be by events that wait. `sequence` counts the tellings."""

    period = models.DateField()
    units_told = models.BigIntegerField(default=0)
    cents_told = models.BigIntegerField(default=0)
    sequence = models.IntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "period"], name="one_meter_a_month")]


class MeterEvent(TenantOwned):
    """A change of a meter on its way to Stripe; below zero when something was taken back.

    `uncertain_since` is when the first attempt began of which nobody knows whether it arrived: Stripe tells such an event
    from a new one by its identifier, but only for a day. Past that the event is held (`held_at`) for the operator.
    """

    period = models.DateField()
    sequence = models.IntegerField()
    meter = models.CharField(max_length=20)
    value = models.BigIntegerField()
    identifier = models.CharField(max_length=100, unique=True)
    customer = models.CharField(max_length=60)
    timestamp = models.DateTimeField()
    sent_at = models.DateTimeField(null=True)
    attempts = models.IntegerField(default=0)
    next_at = models.DateTimeField(null=True)  # of the next attempt; while one is made, the end of its lease
    uncertain_since = models.DateTimeField(null=True)
    held_at = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=300, default="", blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["next_at"], name="meter_events_due", condition=Q(sent_at=None, held_at=None)),
            models.Index(fields=["tenant", "period"], name="meter_events_of_month"),
        ]


class StripeEvent(models.Model):
    """Something that Stripe told by webhook, stored before anything is done about it. It belongs to no tenant yet.

    `outcome` is empty while it waits, then mirrored, ignored, or failed: nothing more is tried, and `error` says why.
    """

    id = models.CharField(primary_key=True, max_length=100)
    type = models.CharField(max_length=100)
    object_id = models.CharField(max_length=100)
    payload = models.TextField()  # the body as it came
    received_at = models.DateTimeField()
    processed_at = models.DateTimeField(null=True)
    outcome = models.CharField(max_length=12, default="", blank=True)
    attempts = models.IntegerField(default=0)
    next_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=300, default="", blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["next_at"], name="stripe_events_due", condition=Q(processed_at=None, next_at__isnull=False)),
            models.Index(fields=["received_at"], name="stripe_events_by_age"),
        ]


class Fetched(models.Model):
    """Which look at one of Stripe's objects was written last. A ticket is drawn before looking, so a later one saw more."""

    id = models.CharField(primary_key=True, max_length=100)
    ticket = models.BigIntegerField()
