"""Whole numbers of money: micro-dollars to cents, and a whole cut into parts that add up to it."""

from collections.abc import Sequence

CENT = 10_000  # micro-dollars


def to_cents(amount: int) -> int:
    """Micro-dollars to cents, half to even."""
    cents, rest = divmod(amount, CENT)
    return cents + (rest * 2 > CENT or (rest * 2 == CENT and cents % 2 == 1))


def spread(total: int, weights: Sequence[int]) -> list[int]:
    """Parts of `total` in proportion to weights of zero or more, by largest remainder; they add up to it exactly.

    Equal remainders are served in order. `total` must not be larger than what the weights add up to, or a part could
    be larger than its weight.
    """
    whole = sum(weights)
    if not whole:
        return [0] * len(weights)
    parts = [total * weight // whole for weight in weights]
    order = sorted(range(len(weights)), key=lambda place: (-(total * weights[place] % whole), place))
    for place in order[: total - sum(parts)]:
        parts[place] += 1
    return parts


def prorate(price: int, days: int, of_days: int) -> int:
    """The cents of a monthly price in micro-dollars for a part of the month, half to even."""
    quotient, rest = divmod(price * days, of_days * CENT)
    double = rest * 2
    return quotient + (double > of_days * CENT or (double == of_days * CENT and quotient % 2 == 1))


def dollars(amount: int) -> str:
    """Micro-dollars as people read them: $1,234.56, rounded to cents."""
    cents = to_cents(amount)
    return f"{'-' if cents < 0 else ''}${abs(cents) // 100:,}.{abs(cents) % 100:02}"
