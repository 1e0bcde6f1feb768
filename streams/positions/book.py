"""Average-cost accounting.

A holding carries its cost, signed like its quantity (what a long position was bought for; minus what a short
one was sold for), and not an average, which would have to be rounded at every fill. Every amount of money is
rounded once, at nine places, and then only added and subtracted, so that with fills f, fees and opening cash
C

    cash   = C - sum(bought) + sum(sold) - sum(fees)
    equity = cash + sum(quantity * close) = C + realised + unrealised - fees

hold to the last place. A fill against the position realises its value less the share of the cost that it
closes; one that goes through zero closes all of the cost and opens the rest at its own price.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from decimal import Decimal

from schemas.records import Side
from schemas.states import HoldingState
from streams.positions.money import ZERO, rounded


def holding_of(holdings: list[HoldingState], symbol: str) -> HoldingState:
    """The holding of ``symbol``; a flat one is put in its place in the sorted list where there is none."""
    place = bisect_left(holdings, symbol, key=lambda holding: holding.symbol)
    if place == len(holdings) or holdings[place].symbol != symbol:
        flat = HoldingState(
            symbol=symbol, quantity=ZERO, cost=ZERO, realised=ZERO, fees=ZERO, last_price=ZERO
        )
        holdings.insert(place, flat)
    return holdings[place]


def apply_fill(holding: HoldingState, side: Side, quantity: Decimal, price: Decimal, fee: Decimal) -> Decimal:
    """Take a fill of ``quantity`` (> 0, units) at ``price`` into ``holding``; returns the change of cash."""
    value = rounded(quantity * price)
    signed = quantity if side is Side.BUY else -quantity
    paid = value if side is Side.BUY else -value
    held = holding.quantity
    if held * signed >= 0:
        holding.cost += paid
    elif quantity < abs(held):
        released = rounded(holding.cost * -signed / held)
        holding.cost -= released
        holding.realised -= paid + released
    else:
        closing = rounded(-held * price)
        holding.realised -= closing + holding.cost
        holding.cost = paid - closing
    holding.quantity = held + signed
    holding.fees += fee
    holding.last_price = price
    return -paid - fee


def average_cost(holding: HoldingState) -> Decimal:
    """Quote currency per unit, without fees; zero when flat."""
    return rounded(holding.cost / holding.quantity) if holding.quantity else ZERO


def unrealised(holding: HoldingState) -> Decimal:
    """Profit and loss of what is held, at its latest price."""
    return rounded(holding.quantity * holding.last_price) - holding.cost


def mark(holdings: Iterable[HoldingState], closes: Mapping[str, Decimal]) -> None:
    """Take over the closes of a snapshot as the latest prices."""
    for holding in holdings:
        holding.last_price = closes.get(holding.symbol, holding.last_price)


def equity(cash: Decimal, holdings: Iterable[HoldingState]) -> Decimal:
    """``cash`` and what is held, at the latest prices."""
    return cash + sum((rounded(holding.quantity * holding.last_price) for holding in holdings), ZERO)
