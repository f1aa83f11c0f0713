"""Money as people read and type it. Amounts are whole micro-dollars, or whole cents where a name says so; never floats."""

from decimal import Decimal
from typing import Any

from django import forms
from django.utils.translation import gettext as _

from apps.billing.money import CENT, to_cents

MICRO = 1_000_000  # of a dollar
LARGEST = 10**9  # dollars


def exact(amount: int) -> str:
    """Micro-dollars to the last one: $1,234.50, $0.0003."""
    dollars, rest = divmod(abs(amount), MICRO)
    digits = f"{rest:06}".rstrip("0").ljust(2, "0")
    return f"{'-' if amount < 0 else ''}${dollars:,}.{digits}"


def cents(amount: int) -> str:
    """Whole cents: $54.27, -$3.00."""
    return exact(amount * CENT)


def rounded(amount: int) -> str:
    """Micro-dollars to the cent, half to even, as an invoice rounds them."""
    return cents(to_cents(amount))


def short(amount: int) -> str:
    """As `exact`, without cents where there are none: $49, $0.30."""
    return exact(amount).removesuffix(".00")


def typed(amount: int) -> str:
    """Micro-dollars as one types them: 100, 2.50."""
    return short(amount).replace("$", "").replace(",", "")


def unit_price(price: int) -> str:
    """The price of a unit, by the thousand."""
    return _("%(price)s per 1,000") % {"price": exact(price * 1000)}


class DollarField(forms.DecimalField):
    """Dollars as one types them; cleaned to whole micro-dollars, None for nothing."""

    def __init__(self, **kwargs: Any) -> None:
        control = forms.NumberInput(attrs={"step": "any", "inputmode": "decimal"})
        super().__init__(min_value=0, max_value=LARGEST, decimal_places=6, widget=control, **kwargs)

    def clean(self, value: Any) -> int | None:  # type: ignore[override]
        found: Decimal | None = super().clean(value)
        return None if found is None else int(found * MICRO)
