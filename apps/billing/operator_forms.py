"""What the operator's deeds about money ask for."""

from decimal import Decimal

from django import forms
from django.utils.translation import gettext_lazy
from unfold.widgets import UnfoldAdminDecimalFieldWidget, UnfoldAdminIntegerFieldWidget, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from apps.billing.plans import every_plan


class PlanForm(forms.Form):
    plan = forms.ChoiceField(choices=lambda: [(plan.name, plan.title) for plan in every_plan().values()], widget=UnfoldAdminSelectWidget)


class CreditForm(forms.Form):
    amount = forms.DecimalField(
        decimal_places=2, max_digits=9, widget=UnfoldAdminDecimalFieldWidget, label=gettext_lazy("Dollars"),
        help_text=gettext_lazy("Below zero takes credit back that is not used."),
    )  # fmt: skip
    reason = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget, help_text=gettext_lazy("Its members read this."))
    days = forms.IntegerField(
        required=False, min_value=1, max_value=3650, widget=UnfoldAdminIntegerFieldWidget, label=gettext_lazy("Days that it lasts"),
        help_text=gettext_lazy("Empty: for good."),
    )  # fmt: skip


class CouponForm(forms.Form):
    code = forms.CharField(max_length=40, widget=UnfoldAdminTextInputWidget, help_text=gettext_lazy("4 to 40 letters, digits, hyphens."))
    amount = forms.DecimalField(
        decimal_places=2, max_digits=9, min_value=Decimal("0.01"), widget=UnfoldAdminDecimalFieldWidget, label=gettext_lazy("Dollars")
    )
    most = forms.IntegerField(
        required=False, min_value=1, max_value=10**6, widget=UnfoldAdminIntegerFieldWidget,
        label=gettext_lazy("Organisations that may redeem it"), help_text=gettext_lazy("Empty: any number. Each redeems it once."),
    )  # fmt: skip
    days = forms.IntegerField(
        required=False, min_value=1, max_value=3650, widget=UnfoldAdminIntegerFieldWidget,
        label=gettext_lazy("Days until the code ends"), help_text=gettext_lazy("Empty: never."),
    )  # fmt: skip
    credit_days = forms.IntegerField(
        required=False, min_value=1, max_value=3650, widget=UnfoldAdminIntegerFieldWidget,
        label=gettext_lazy("Days that its credit lasts"), help_text=gettext_lazy("Empty: for good."),
    )  # fmt: skip


class NoteForm(forms.Form):
    note = forms.CharField(required=False, max_length=200, widget=UnfoldAdminTextInputWidget, help_text=gettext_lazy("How, or why."))
