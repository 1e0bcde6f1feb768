"""The paper venue's matching rules. An order decided on the snapshot of T meets the bars of the snapshots
after it.

- **Order.** Resting orders are tried in the order of their approval. The orders of one portfolio in one
  symbol share ``participation`` times the bar's volume, cut down to the lot: who was approved first takes
  first. What is left of an order waits for the next bar. Bars that are only carried (stale) match nothing.
- **Market orders** fill at the bar's open, worsened by half the spread and by slippage
  (`costs.market_price`). The spread is the mean one of the bar's own quotes; where none came in the bar, that
  of the settings. They rest until they are filled or cancelled, however long their symbol has no bar.
- **Limit orders** fill when the bar trades through the limit: its low is below a buy's limit, its high above
  a sell's. A touch does not fill, since the queue at that price is not known. A buy fills at the lower of
  open and limit, a sell at the higher, without spread or slippage: it waited to be traded with.
- **Expiry.** A limit order rests for ``good_for`` snapshots after its own, whether or not its symbol had a
  bar in them; what is then left expires.
- **Fees** are charged with each fill (`costs.fee_due`).

The venue knows no cash and no positions: whether the portfolio may send an order is the pre-trade check's
business.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from schemas.records import Bar, OrderType, QuoteBar, Side, VenueSpec
from schemas.states import OpenOrder
from streams.positions.money import from_float, rounded, to_lots
from streams.venue import costs


class PaperBar:
    """What the venue has left to trade with in one bar."""

    __slots__ = ("available", "half_spread_bps", "high", "low", "opening", "volume")

    def __init__(self, bar: Bar, spec: VenueSpec, lot: Decimal, quote: QuoteBar | None = None) -> None:
        self.opening = from_float(bar.open)
        self.high = from_float(bar.high)
        self.low = from_float(bar.low)
        self.volume = from_float(bar.volume)
        self.half_spread_bps = costs.half_spread_bps(spec, quote)
        self.available = to_lots(spec.participation * self.volume, lot)


class PaperFill(NamedTuple):
    """One fill: units, price per unit, and in quote currency the fee and the slippage against the
    decision.
    """

    quantity: Decimal
    price: Decimal
    fee: Decimal
    slippage: Decimal


def match(order: OpenOrder, bar: PaperBar, spec: VenueSpec) -> PaperFill | None:
    """Try ``order`` against ``bar``. A fill is taken off the bar and added to the order's sums."""
    quantity = min(order.quantity - order.filled, bar.available)
    if quantity <= 0:
        return None
    if order.limit_price is None:
        price = costs.market_price(spec, order.side, bar.opening, quantity, bar.volume, bar.half_spread_bps)
    elif order.side is Side.BUY:
        if bar.low >= order.limit_price:
            return None
        price = min(bar.opening, order.limit_price)
    else:
        if bar.high <= order.limit_price:
            return None
        price = max(bar.opening, order.limit_price)
    bar.available -= quantity
    order.filled += quantity
    order.cost += rounded(quantity * price)
    fee = costs.fee_due(spec, order.filled, order.cost) - order.fees
    order.fees += fee
    return PaperFill(quantity, price, fee, costs.slippage(order.side, order.reference_price, price, quantity))


def expires(order: OpenOrder) -> bool:
    """Count the snapshot that ``order`` has just rested through; whether it was the last it was good for."""
    if order.order_type is OrderType.MARKET:
        return False
    order.rests_for -= 1
    return order.rests_for <= 0 and order.filled < order.quantity
