"""A portfolio's books kept a second time, from its fills alone, in exact fractions: no rounding anywhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

from schemas.records import Execution, Side

CENT = Fraction(1, 200)
"""Amounts of money are the same to the cent where they differ by no more than half of one."""


class Books:
    """Cash, positions at average cost, and profit and loss, after the fills taken so far."""

    def __init__(self, cash: Decimal) -> None:
        self.cash = Fraction(cash)
        self.realised = self.fees = Fraction(0)
        self.quantity: defaultdict[str, Fraction] = defaultdict(Fraction)
        self.cost: defaultdict[str, Fraction] = defaultdict(Fraction)

    def take(self, fill: Execution) -> None:
        """A fill: what closes realises its part of the cost, what opens adds to it."""
        assert fill.last_price is not None
        price, fee, symbol = Fraction(fill.last_price), Fraction(fill.fee), fill.symbol
        signed = Fraction(fill.last_quantity) * (1 if fill.side is Side.BUY else -1)
        held, cost = self.quantity[symbol], self.cost[symbol]
        closed = Fraction(0)  # what of the position goes, signed like it
        if held * signed < 0:
            closed = held if abs(signed) >= abs(held) else -signed
        released = cost * closed / held if closed else Fraction(0)
        self.realised += closed * price - released
        self.cost[symbol] = cost - released + (signed + closed) * price
        self.quantity[symbol] = held + signed
        self.cash -= signed * price + fee
        self.fees += fee

    def value(self, closes: Mapping[str, float]) -> Fraction:
        """Of what is held, at these closes."""
        held = [(symbol, quantity) for symbol, quantity in self.quantity.items() if quantity]
        return sum((quantity * Fraction(repr(closes[symbol])) for symbol, quantity in held), Fraction(0))

    def unrealised(self, closes: Mapping[str, float]) -> Fraction:
        """Profit and loss of what is held, at these closes."""
        return self.value(closes) - sum(self.cost.values(), Fraction(0))
