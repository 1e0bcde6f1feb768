"""The pre-trade check: no order that would breach a hard limit leaves.

The check sees positions *and* open orders of the whole portfolio, and counts on the worst: that every open
order of the same side fills and none of the other. An order is valued at the latest close, or at its limit
where that is higher; what is held or open already, at the close. The limits, in the order in which they are
tried (the first that denies is named):

- ``trading_state``: HALTED denies everything; REDUCING everything but reducing orders.
- ``max_orders`` sent in the last ``order_window_us`` of event time; denied orders do not count.
- ``max_order_notional`` of the order itself.
- ``max_position`` (units) and ``max_position_notional`` of the symbol, absolute.
- ``max_leverage``: the sum of all symbols' absolute notionals over equity.
- ``max_daily_loss`` since the day's first snapshot.

A *reducing* order brings its symbol nearer to zero and never across it, even if all open orders of its side
fill first. It is let past the last four: whoever is over such a limit must be able to get back below it. It
is not let past the first three, which guard against runaway and mistaken orders whatever they are for. A
figure equal to its limit is not a breach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from schemas.records import LimitsSpec, Side, TradingState
from schemas.states import HoldingState, OpenOrder
from streams.positions.money import ZERO, rounded, shown


class Proposal(NamedTuple):
    """An order that a strategy would like to send."""

    symbol: str
    side: Side
    quantity: Decimal
    limit_price: Decimal | None


class Denial(NamedTuple):
    """Why an order is not sent: the limit, its value, what was measured against it, and all of it in
    words.
    """

    limit: str
    value: Decimal | None
    figure: Decimal | None
    reason: str


class Standing:
    """What the check knows of a portfolio; `opened` and `closed` keep it in step with the open orders."""

    def __init__(
        self,
        *,
        state: TradingState,
        equity: Decimal,
        daily_loss: Decimal,
        holdings: Sequence[HoldingState],
        orders: Sequence[OpenOrder],
        closes: Mapping[str, Decimal],
        order_times: Sequence[int],
    ) -> None:
        """``order_times`` are those of the orders within the rate's window, which the caller goes on to
        fill.
        """
        self.state = state
        self.equity = equity
        self.daily_loss = daily_loss
        self.order_times = order_times
        self.prices = {**{holding.symbol: holding.last_price for holding in holdings}, **closes}
        self._held = {holding.symbol: holding.quantity for holding in holdings}
        self._pending: dict[Side, dict[str, Decimal]] = {Side.BUY: {}, Side.SELL: {}}
        for order in orders:
            self.opened(order)

    def opened(self, order: OpenOrder) -> None:
        """Count what is left of ``order`` among the open orders."""
        pending = self._pending[order.side]
        pending[order.symbol] = pending.get(order.symbol, ZERO) + order.quantity - order.filled

    def closed(self, order: OpenOrder) -> None:
        """Count what is left of ``order`` no more."""
        self._pending[order.side][order.symbol] -= order.quantity - order.filled

    def furthest(self, symbol: str, side: Side) -> Decimal:
        """The position if all open orders of ``side`` fill and no other, counted positive in that
        direction.
        """
        held = self._held.get(symbol, ZERO)
        return (held if side is Side.BUY else -held) + self._pending[side].get(symbol, ZERO)

    def largest(self, symbol: str) -> Decimal:
        """The largest absolute position that any fills of the open orders can lead to."""
        return max(self.furthest(symbol, Side.BUY), self.furthest(symbol, Side.SELL))

    def gross(self, besides: str) -> Decimal:
        """The largest sum of absolute notionals of all symbols but one."""
        symbols = self._held | self._pending[Side.BUY] | self._pending[Side.SELL]
        return sum((self.largest(other) * self.prices[other] for other in symbols if other != besides), ZERO)


def check(limits: LimitsSpec, standing: Standing, order: Proposal) -> Denial | None:
    """The first limit that ``order`` would breach, or None if it may be sent."""
    position = standing.furthest(order.symbol, order.side) + order.quantity
    reducing = position <= 0
    return _check_always(limits, standing, order, reducing) or (
        None if reducing else _check_exposure(limits, standing, order, position)
    )


def _check_always(limits: LimitsSpec, standing: Standing, order: Proposal, reducing: bool) -> Denial | None:
    if standing.state is TradingState.HALTED:
        return Denial("trading_state", None, None, "the portfolio is HALTED: nothing is sent")
    if standing.state is TradingState.REDUCING and not reducing:
        return Denial(
            "trading_state",
            None,
            None,
            f"the portfolio is REDUCING: {order.side} {shown(order.quantity)} {order.symbol} does not only reduce",
        )
    if limits.max_orders is not None and len(standing.order_times) >= limits.max_orders:
        seconds = Decimal(limits.order_window_us) / 1_000_000
        return _denial(
            "max_orders",
            Decimal(limits.max_orders),
            Decimal(len(standing.order_times) + 1),
            f"order {len(standing.order_times) + 1} within {shown(seconds)} s",
        )
    notional = rounded(order.quantity * _value_price(standing, order))
    if limits.max_order_notional is not None and notional > limits.max_order_notional:
        return _denial(
            "max_order_notional", limits.max_order_notional, notional, f"order would be {shown(notional)}"
        )
    return None


def _check_exposure(
    limits: LimitsSpec, standing: Standing, order: Proposal, position: Decimal
) -> Denial | None:
    notional = rounded(position * _value_price(standing, order))
    if limits.max_position is not None and position > limits.max_position:
        return _denial(
            "max_position", limits.max_position, position, f"{order.symbol} could reach {shown(position)}"
        )
    if limits.max_position_notional is not None and notional > limits.max_position_notional:
        return _denial(
            "max_position_notional",
            limits.max_position_notional,
            notional,
            f"{order.symbol} could reach {shown(notional)}",
        )
    if limits.max_leverage is not None:
        equity = standing.equity
        if equity <= 0:
            return _denial("max_leverage", limits.max_leverage, equity, f"equity is {shown(equity)}")
        already = standing.largest(order.symbol) * standing.prices[order.symbol]
        gross = standing.gross(besides=order.symbol) + max(notional, already)
        leverage = rounded(gross / equity)
        if leverage > limits.max_leverage:
            return _denial(
                "max_leverage", limits.max_leverage, leverage, f"leverage could reach {shown(leverage)}"
            )
    if limits.max_daily_loss is not None and standing.daily_loss > limits.max_daily_loss:
        loss = standing.daily_loss
        return _denial("max_daily_loss", limits.max_daily_loss, loss, f"the day's loss is {shown(loss)}")
    return None


def _value_price(standing: Standing, order: Proposal) -> Decimal:
    close = standing.prices[order.symbol]
    return close if order.limit_price is None else max(close, order.limit_price)


def _denial(limit: str, value: Decimal, figure: Decimal, what: str) -> Denial:
    return Denial(limit, value, figure, f"{limit} {shown(value)}: {what}")
