"""Addresses of tenants that want to hear of events, and what was sent to them."""

from datetime import datetime

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from maas.sealing import SealedField
from maas.tenancy import TenantOwned


class Endpoint(TenantOwned):
    """An address that is called for events.

    Both secrets sign while the old one lasts. One worker at a time delivers to it: the one whose `fence` is the latest,
    until `lease_until`. After a failure everybody leaves it alone until `pause_until`.
    """

    url = models.CharField(max_length=2000)
    description = models.CharField(max_length=200, blank=True, default="")
    events = models.JSONField(default=list)  # names, or ["*"]
    secret = SealedField()
    old_secret = SealedField(null=True)
    old_secret_until = models.DateTimeField(null=True)
    enabled = models.BooleanField(default=True)
    disabled_reason = models.CharField(max_length=12, default="", blank=True)  # switched_off, failing, gone
    disabled_at = models.DateTimeField(null=True)
    told_at = models.DateTimeField(null=True)  # when the mail about it went out
    failing_since = models.DateTimeField(null=True)  # no attempt has succeeded since
    failures = models.IntegerField(default=0)  # in a row
    pause_until = models.DateTimeField(null=True)
    lease_until = models.DateTimeField(null=True)
    fence = models.IntegerField(default=0)
    served_at = models.DateTimeField(null=True)  # when a worker last took it: tenants take turns by it
    last_at = models.DateTimeField(null=True)  # the latest attempt
    last_status = models.IntegerField(null=True)
    last_error = models.CharField(max_length=300, blank=True, default="")
    deleted_at = models.DateTimeField(null=True)  # gone for its tenant; the rows go a little later

    class Meta:
        indexes = [
            models.Index(fields=["tenant", "-id"], name="endpoints_of_tenant", condition=Q(deleted_at=None)),
            models.Index(fields=["disabled_at"], name="endpoints_to_tell", condition=Q(enabled=False, told_at=None)),
            models.Index(fields=["deleted_at"], name="endpoints_to_remove", condition=Q(deleted_at__isnull=False)),
        ]

    @property
    def rotating_until(self) -> datetime | None:
        """Until when the secret before this one signs too, if it still does."""
        return self.old_secret_until if self.old_secret_until and self.old_secret_until > timezone.now() else None


class Message(TenantOwned):
    """An event as it is told. Its id is the `webhook-id`, the same for every endpoint and every repeat."""

    type = models.CharField(max_length=60)
    body = models.TextField()  # exactly what is sent and signed

    class Meta:
        indexes = [models.Index(fields=["created_at"], name="messages_by_age")]


class State(models.TextChoices):
    PENDING = "pending", _("Waiting")
    DELIVERED = "delivered", _("Delivered")
    FAILED = "failed", _("Failed")


class Delivery(TenantOwned):
    """A message on its way to an endpoint. `attempts` counts all of them, `step` those since it was last sent anew."""

    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="deliveries")
    message = models.ForeignKey(Message, on_delete=models.CASCADE, related_name="deliveries")
    state = models.CharField(max_length=12, choices=State.choices, default=State.PENDING)
    attempts = models.IntegerField(default=0)
    step = models.IntegerField(default=0)
    next_at = models.DateTimeField(null=True)  # of the next attempt, while it waits for one
    ended_at = models.DateTimeField(null=True)
    last_at = models.DateTimeField(null=True)
    last_status = models.IntegerField(null=True)
    last_error = models.CharField(max_length=300, blank=True, default="")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["endpoint", "message"], name="one_delivery_a_message")]
        indexes = [
            models.Index(fields=["endpoint", "next_at"], name="deliveries_due", condition=Q(state="pending")),
            models.Index(fields=["endpoint", "-id"], name="deliveries_of_endpoint"),
            models.Index(fields=["created_at"], name="deliveries_by_age"),
        ]


class Attempt(TenantOwned):
    """One call, as it went out and what came back. Without a status there was no answer, and `error` says why."""

    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="log")
    number = models.IntegerField()
    url = models.CharField(max_length=2000)
    request_headers = models.JSONField(default=dict)
    status = models.IntegerField(null=True)
    response_headers = models.JSONField(default=dict)
    response_body = models.TextField(default="")
    error = models.CharField(max_length=300, blank=True, default="")
    milliseconds = models.IntegerField()

    class Meta:
        indexes = [models.Index(fields=["delivery", "-id"], name="attempts_of_delivery")]
