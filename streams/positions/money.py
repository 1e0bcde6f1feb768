"""Decimal arithmetic as the contract has it: nine places, halves to even."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal

ARITHMETIC = Context(prec=60, rounding=ROUND_HALF_EVEN)
"""The agent works under this context, so that a product is exact before it is rounded to its nine places."""
ZERO = Decimal(0)
PLACES = Decimal("0.000000001")
MAX_PRICE = 1e12
MAX_VOLUME = 1e15
"""Beyond these a bar's figures do not fit 28 digits with nine places, times what one may hold of them."""


def rounded(amount: Decimal) -> Decimal:
    """``amount`` at nine places, halves to even."""
    return amount.quantize(PLACES, ROUND_HALF_EVEN)


def from_float(value: float) -> Decimal:
    """A market figure as a Decimal: the shortest text that reads back as the float, at nine places."""
    return rounded(Decimal(repr(value)))


def to_lots(quantity: Decimal, lot: Decimal) -> Decimal:
    """``quantity`` cut towards zero to a multiple of ``lot``."""
    return quantity // lot * lot


def shown(amount: Decimal) -> str:
    """``amount`` for people, and the same text whatever zeros it carries."""
    return f"{rounded(amount).normalize():f}"
