"""Tables of money: plans over time, budgets, credit, coupons, closed months, invoices.

Amounts are integer micro-dollars; those of invoices, and names that end in `_cents`, are whole cents.
"""

from datetime import datetime

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from maas import ids
from maas.tenancy import TenantOwned


class Collector(models.TextChoices):
    MANUAL = "manual", _("Invoices of the operator")
    STRIPE = "stripe", _("Stripe")


class Account(TenantOwned):
    """How a tenant pays, and what is to come.

    `next_plan` holds from the first of the month `next_from`. Months before `stripe_until` were collected by Stripe though
    `collected_by` is manual by now. Calls are refused a while after `overdue_since`.
    """

    next_plan = models.CharField(max_length=20, blank=True, default="")
    next_from = models.DateField(null=True)
    collected_by = models.CharField(max_length=8, choices=Collector.choices, default=Collector.MANUAL)
    stripe_until = models.DateField(null=True)
    invoice_overdue_since = models.DateTimeField(null=True)  # one of the operator
    stripe_overdue_since = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant"], name="one_account")]
        indexes = [models.Index(fields=["next_from"], name="plans_to_apply", condition=Q(next_from__isnull=False))]

    @property
    def overdue_since(self) -> datetime | None:
        """Since when a payment is overdue, whoever waits for it."""
        return min(filter(None, (self.invoice_overdue_since, self.stripe_overdue_since)), default=None)


class PlanChange(TenantOwned):
    """From `effective_at` on the plan is `after` in place of `before`; rows are only ever added."""

    before = models.CharField(max_length=20)
    after = models.CharField(max_length=20)
    effective_at = models.DateTimeField()
    collected_by = models.CharField(max_length=8, choices=Collector.choices)

    class Meta:
        indexes = [models.Index(fields=["tenant", "effective_at"], name="plan_changes_of_tenant")]


class BudgetScope(models.TextChoices):
    TENANT = "tenant", _("Organisation")
    KEY = "key", _("API key")
    MODEL = "model", _("Model")


class Budget(TenantOwned):
    """What a tenant, a key (its id in hex) or a model (its name) may cost a calendar month; one that is not hard only alerts."""

    scope = models.CharField(max_length=8, choices=BudgetScope.choices)
    subject = models.CharField(max_length=120, blank=True, default="")
    amount = models.BigIntegerField()
    hard = models.BooleanField()
    thresholds = models.JSONField(default=list)  # per cent, rising
    changed_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "scope", "subject"], name="one_budget"),
            models.CheckConstraint(condition=Q(amount__gte=0), name="budget_not_below_zero"),
        ]


class AlertSent(TenantOwned):
    """Somebody was told that a part of a budget, or of the plan's units (scope `included`), is used. Told once a month."""

    period = models.DateField()
    scope = models.CharField(max_length=8)
    subject = models.CharField(max_length=120, blank=True, default="")
    threshold = models.IntegerField()  # per cent
    spent = models.BigIntegerField()  # micro-dollars; units for `included`
    amount = models.BigIntegerField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "period", "scope", "subject", "threshold"], name="one_alert")]


class EntryKind(models.TextChoices):
    GRANT = "grant", _("Granted")
    COUPON = "coupon", _("Coupon")
    DRAW = "draw", _("Used")
    EXPIRY = "expiry", _("Expired")
    TAKEN_BACK = "taken_back", _("Taken back")


class CreditEntry(TenantOwned):
    """One append-only line of the credit; the balance is their sum. Amounts are whole cents, in micro-dollars.

    What adds is a lot; what takes away names the lot that it comes out of. `source` is unique: the same grant twice is one.
    """

    amount = models.BigIntegerField()
    kind = models.CharField(max_length=12, choices=EntryKind.choices)
    reason = models.CharField(max_length=200, blank=True, default="")
    lot = models.ForeignKey("self", null=True, on_delete=models.PROTECT, related_name="taken")
    period = models.DateField(null=True)  # the month that drew
    expires_at = models.DateTimeField(null=True)
    source = models.CharField(max_length=120, null=True)

    class Meta:
        indexes = [models.Index(fields=["tenant", "-id"], name="credit_of_tenant")]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "source"], name="one_entry_a_source"),
            models.CheckConstraint(condition=Q(lot=None, amount__gt=0) | Q(lot__isnull=False, amount__lt=0), name="lots_add"),
            models.CheckConstraint(condition=Q(amount=models.F("amount") / 10_000 * 10_000), name="credit_in_whole_cents"),
        ]


class Coupon(models.Model):
    """A code that is worth credit. It belongs to the platform; who redeemed it says `Redemption`."""

    id = models.UUIDField(primary_key=True, default=ids.uuid7, editable=False)
    code = models.CharField(max_length=40, unique=True)
    amount = models.BigIntegerField()
    expires_at = models.DateTimeField(null=True)  # of the code
    credit_days = models.IntegerField(null=True)  # that its credit lasts; None: for good
    most = models.IntegerField(null=True)  # redemptions
    redeemed = models.IntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.code


class Redemption(TenantOwned):
    coupon = models.ForeignKey(Coupon, on_delete=models.PROTECT, related_name="redemptions")
    entry = models.ForeignKey(CreditEntry, on_delete=models.PROTECT, related_name="+")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "coupon"], name="one_redemption")]


class ClosedMonth(TenantOwned):
    """What a month came to, for good: made once, an hour or more after its end, with the plan and prices of that moment."""

    period = models.DateField()
    plan = models.CharField(max_length=20)
    units = models.BigIntegerField()
    included = models.BigIntegerField(null=True)  # None: all
    unit_price = models.BigIntegerField()
    usage_cents = models.BigIntegerField()
    credit_cents = models.BigIntegerField()
    waived_cents = models.BigIntegerField()
    collected_by = models.CharField(max_length=8, choices=Collector.choices)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "period"], name="one_end_of_a_month")]


class InvoiceState(models.TextChoices):
    DRAFT = "draft", _("Draft")
    OPEN = "open", _("Open")
    PAID = "paid", _("Paid")
    VOID = "void", _("Void")
    UNCOLLECTIBLE = "uncollectible", _("Uncollectible")


class Invoice(TenantOwned):
    """What is to be paid. `period` is the month whose units it holds; those of Stripe are copies of what Stripe says."""

    number = models.CharField(max_length=60, blank=True, default="")
    state = models.CharField(max_length=16, choices=InvoiceState.choices)
    collected_by = models.CharField(max_length=8, choices=Collector.choices)
    period = models.DateField()
    currency = models.CharField(max_length=3, default="usd")
    subtotal_cents = models.BigIntegerField()
    tax_cents = models.BigIntegerField(default=0)
    total_cents = models.BigIntegerField()
    issued_at = models.DateTimeField(null=True)
    due_at = models.DateTimeField(null=True)
    paid_at = models.DateTimeField(null=True)
    stripe_id = models.CharField(max_length=120, null=True, unique=True)
    page_url = models.CharField(max_length=2000, blank=True, default="")  # where Stripe shows it and takes the payment
    pdf_url = models.CharField(max_length=2000, blank=True, default="")
    note = models.CharField(max_length=200, blank=True, default="")  # how it was paid, or why it is not asked for

    class Meta:
        indexes = [models.Index(fields=["tenant", "-id"], name="invoices_of_tenant")]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "period"], name="one_invoice_a_month", condition=Q(collected_by="manual")),
            models.UniqueConstraint(fields=["number"], name="one_number", condition=Q(collected_by="manual")),
        ]


class InvoiceLine(TenantOwned):
    """A line, or for the kind `detail` what a line is made of: its micro-dollars add up to the units' line, rounded once."""

    invoice = models.ForeignKey(Invoice, on_delete=models.CASCADE, related_name="lines")
    position = models.IntegerField()
    kind = models.CharField(max_length=12)  # plan, proration, usage, detail, credit, waived, other
    text = models.CharField(max_length=300)
    model = models.CharField(max_length=120, blank=True, default="")
    key_id = models.UUIDField(null=True)
    units = models.BigIntegerField(null=True)
    included = models.BigIntegerField(null=True)
    charged = models.BigIntegerField(null=True)
    unit_price = models.BigIntegerField(null=True)
    amount = models.BigIntegerField()  # micro-dollars, before rounding
    amount_cents = models.BigIntegerField(null=True)  # None: a detail

    class Meta:
        constraints = [models.UniqueConstraint(fields=["invoice", "position"], name="one_line_a_position")]


class InvoiceNumber(models.Model):
    """The last number given to an invoice of a month: taken in the transaction that makes it, so that none is missing."""

    month = models.DateField(primary_key=True)
    last = models.IntegerField()
