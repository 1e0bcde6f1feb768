"""One portfolio's decisions: the stages of `portfolios` chained, snapshot by snapshot and command by command.

On a snapshot, in this order: resting orders meet the new bars (venue) and their fills are booked (positions);
what is held is marked at the closes and measured (risk), which may reduce the portfolio; each strategy
decides (signals) and its orders are checked and sent (pretrade); the commands that waited for this snapshot
hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from msgspec.structs import replace

from schemas.records import (
    AlertKind,
    Command,
    OrderState,
    PortfolioSpec,
    Reason,
    Side,
    Snapshot,
    TradingState,
)
from schemas.states import OpenOrder, PortfolioState, StrategyState
from streams import commands, positions, risk, venue, versions
from streams.agent import Input, Output, SourcePartition, dead_letter
from streams.errors import StateMismatch
from streams.journal import WITHIN, Journal
from streams.positions.money import MAX_VOLUME, ZERO, from_float, rounded, to_lots
from streams.pretrade.lifecycle import Event, advance
from streams.pretrade.limits import Proposal, Standing, check
from streams.signals.deciding import Decider, Views
from streams.signals.strategy import Target

DAY_US = 86_400_000_000
_MOST_UNITS = Decimal(MAX_VOLUME)


def new_state(spec: PortfolioSpec) -> PortfolioState:
    """A portfolio before its first event."""
    return PortfolioState(epoch=spec.epoch, cash=spec.cash, peak=spec.cash, day_equity=spec.cash)


class Desk:
    """One portfolio during one run: changes ``state`` in place and appends what it sends to ``outputs``."""

    def __init__(
        self,
        spec: PortfolioSpec,
        version: int,
        state: PortfolioState,
        deciders: Sequence[Decider],
        outputs: list[Output],
    ) -> None:
        self._spec = spec
        self._state = state
        self._deciders = deciders
        self._outputs = outputs
        self._journal = Journal(spec, version, state, outputs)
        known = {envelope.name for envelope in state.strategies}
        state.strategies += [decider.new_state() for decider in deciders if decider.name not in known]
        state.strategies.sort(key=lambda envelope: envelope.name)
        self._envelopes = {envelope.name: envelope for envelope in state.strategies}

    def on_command(self, command: Command) -> None:
        """Let a command hold, or keep it for its snapshot; a repeat does nothing."""
        ordinal = commands.arrives(self._state, command)
        if ordinal is not None:
            self._apply(command, ordinal)

    def on_late_settings(self, version: int, message: str) -> None:
        """Tell that settings came too late to hold from where they should."""
        self._journal.settings(f"settings/{version}/late", message)

    def on_snapshot(
        self, snapshot: Snapshot, item: Input, where: SourcePartition, before: PortfolioSpec | None = None
    ) -> None:
        """Decide on a snapshot; a repeat does nothing. ``item``, read from ``where``, is what it came as.

        ``before`` is what the settings said for the last snapshot; where that was something else, people are told.
        """
        state = self._state
        if snapshot.start <= state.last_start:
            return
        state.last_start, state.last_end, state.ordinal = snapshot.start, snapshot.end, 0
        self._journal.ordinal = WITHIN
        if before is not None and before != self._spec and before.epoch == state.epoch:
            self._journal.settings(f"settings/{self._journal.version}", self._changes(before))
        self._match(snapshot)
        closes = {row.symbol: from_float(row.bar.close) for row in snapshot.rows}
        positions.mark(state.holdings, closes)
        equity = positions.equity(state.cash, state.holdings)
        self._measure(snapshot, equity)
        self._decide(snapshot, closes, equity, item, where)
        self._journal.equity(equity)
        for command, ordinal in commands.fall_due(state):
            self._apply(command, ordinal)

    def _changes(self, before: PortfolioSpec) -> str:
        changes = (f"{what} {was} → {now}" for what, was, now in versions.differences(before, self._spec))
        return f"settings {self._journal.version} hold: {'; '.join(changes)}"

    def _match(self, snapshot: Snapshot) -> None:
        state, spec = self._state, self._spec
        wanted = {order.symbol for order in state.orders}
        bars = {
            row.symbol: venue.PaperBar(row.bar, spec.venue, spec.lot, row.quote)
            for row in snapshot.rows
            if row.symbol in wanted and not row.stale
        }
        resting = []
        for order in state.orders:
            bar = bars.get(order.symbol)
            fill = None if bar is None else venue.match(order, bar, spec.venue)
            if fill is not None:
                self._book(order, fill)
            if venue.expires(order):
                advance(order, Event.EXPIRE)
                self._journal.execution(order, reason="rested for as long as it was good for")
            elif order.filled < order.quantity:
                resting.append(order)
        state.orders = resting

    def _book(self, order: OpenOrder, fill: venue.PaperFill) -> None:
        state = self._state
        advance(order, Event.FILL_REST if order.filled == order.quantity else Event.FILL_PART)
        sequence = self._journal.execution(order, fill=fill)
        holding = positions.holding_of(state.holdings, order.symbol)
        state.cash += positions.apply_fill(holding, order.side, fill.quantity, fill.price, fill.fee)
        state.fills += 1
        held = self._envelopes[order.strategy].holdings
        held[order.symbol] = held.get(order.symbol, ZERO) + _signed(order.side, fill.quantity)
        self._journal.position(holding, order, sequence)

    def _measure(self, snapshot: Snapshot, equity: Decimal) -> None:
        """Send the metrics; reduce an active portfolio whose drawdown has passed; alert of a limit once a
        day.
        """
        state, spec = self._state, self._spec
        state.peak = max(state.peak, equity)
        day = snapshot.end // DAY_US
        if day != state.day:
            state.day, state.day_equity, state.alerted = day, equity, []
        metrics = risk.measure(
            spec,
            snapshot,
            {
                holding.symbol: float(rounded(holding.quantity * holding.last_price))
                for holding in state.holdings
                if holding.quantity
            },
            equity,
            state.peak,
            state.day_equity,
            state.state,
            state.epoch,
            self._journal.version,
        )
        for breach in risk.breaches(spec, metrics):
            previous = state.state
            if breach.kind is AlertKind.DRAWDOWN and previous is TradingState.ACTIVE:
                state.state = TradingState.REDUCING
                self._journal.breach(breach, AlertKind.STATE, previous)
                self._cancel_forbidden(breach.message)
            elif breach.limit not in state.alerted:
                self._journal.breach(breach, breach.kind, previous)
            else:
                continue
            state.alerted.append(breach.limit)
        self._journal.metrics(replace(metrics, state=state.state))

    def _decide(
        self,
        snapshot: Snapshot,
        closes: Mapping[str, Decimal],
        equity: Decimal,
        item: Input,
        where: SourcePartition,
    ) -> None:
        views = Views(snapshot, equity)
        stale = {row.symbol for row in snapshot.rows if row.stale}
        standing = self._standing(closes, equity)
        for decider in self._deciders:
            envelope = self._envelopes[decider.name]
            view = views.of(decider.inputs, envelope.holdings, _pending(self._orders_of(decider.name)))
            try:
                targets = decider.step(envelope, view, warm=snapshot.warm)
            except (MemoryError, StateMismatch):  # failures of ours, not of the strategy on this input
                raise
            except Exception as error:
                letter = dead_letter(
                    where,
                    item,
                    stage="signals",
                    reason=Reason.STRATEGY_RAISED,
                    error=f"{type(error).__name__}: {error}",
                    name=f"{self._spec.name}/{snapshot.start}/{decider.name}",
                )
                self._outputs.append(letter)
                continue
            for target in targets:
                self._journal.signal(decider.name, target)
                if target.symbol not in stale:  # an order is not sized on an old price
                    self._order(envelope, target, closes[target.symbol], standing)

    def _standing(self, closes: Mapping[str, Decimal], equity: Decimal) -> Standing:
        state = self._state
        since = state.last_end - self._spec.limits.order_window_us
        state.order_times = [time for time in state.order_times if time > since]
        return Standing(
            state=state.state,
            equity=equity,
            daily_loss=state.day_equity - equity,
            holdings=state.holdings,
            orders=state.orders,
            closes=closes,
            order_times=state.order_times,
        )

    def _order(self, envelope: StrategyState, target: Target, close: Decimal, standing: Standing) -> None:
        """Order what brings a strategy from what it holds and has ordered to ``target``, if it may be sent.

        An open order of its own that goes the other way is cancelled first. One that goes the same way is
        left as it is, whatever its limit, and only the rest is ordered.
        """
        state, spec = self._state, self._spec
        wanted = Decimal(repr(target.weight)) * max(standing.equity, ZERO) / close
        wanted = to_lots(max(min(wanted, _MOST_UNITS), -_MOST_UNITS), spec.lot)
        own = [order for order in self._orders_of(envelope.name) if order.symbol == target.symbol]
        missing = wanted - envelope.holdings.get(target.symbol, ZERO) - sum(map(_open, own), ZERO)
        against = [order for order in own if _open(order) * missing < 0]
        for order in against:
            missing += _open(order)
            standing.closed(order)
            self._cancel(order, "the strategy wants to go the other way")
        if not missing:
            return
        side = Side.BUY if missing > 0 else Side.SELL
        limit_price = None if target.limit_price is None else from_float(target.limit_price)
        order = OpenOrder(
            order_id=f"{spec.name}/{state.epoch}/{state.last_start}/{envelope.name}/{target.symbol}/0",
            strategy=envelope.name,
            symbol=target.symbol,
            side=side,
            order_type=target.order_type,
            quantity=abs(missing),
            limit_price=limit_price,
            reference_price=close,
            filled=ZERO,
            cost=ZERO,
            fees=ZERO,
            events=0,
            state=OrderState.APPROVED,
            decided_on=state.last_start,
            rests_for=target.good_for,
        )
        denial = check(spec.limits, standing, Proposal(target.symbol, side, order.quantity, limit_price))
        if denial is not None:
            order.state = OrderState.DENIED
            self._journal.execution(order, denial=denial)
            return
        self._journal.execution(order, reason=target.reason)
        for event in (Event.SUBMIT, Event.ACCEPT):  # the paper venue takes every order at once
            advance(order, event)
            self._journal.execution(order)
        state.orders.append(order)
        standing.opened(order)
        if spec.limits.max_orders is not None:
            state.order_times.append(state.last_end)

    def _apply(self, command: Command, ordinal: int) -> None:
        """Let a command hold at its place.

        Resuming with the drawdown still past its limit starts the peak anew at the equity of now; otherwise
        the next snapshot would reduce the portfolio again.
        """
        state = self._state
        previous, state.state = state.state, command.state
        limit = self._spec.limits.max_drawdown
        if command.state is TradingState.ACTIVE and previous is not TradingState.ACTIVE and limit is not None:
            equity = positions.equity(state.cash, state.holdings)
            if equity < state.peak * (1 - limit):
                state.peak = equity
        words = f"{command.state} by {command.issued_by or 'someone'}"
        if command.reason:
            words += f": {command.reason}"
        self._journal.ordinal = ordinal
        self._journal.command(command, previous, words)
        self._cancel_forbidden(words)

    def _cancel_forbidden(self, reason: str) -> None:
        """Cancel the resting orders that the trading state would not let through now."""
        state = self._state
        if state.state is TradingState.ACTIVE:
            return
        left = {holding.symbol: holding.quantity for holding in state.holdings}
        for order in list(state.orders):
            held = left.get(order.symbol, ZERO)
            after = held + _open(order)
            reduces = abs(after) < abs(held) and after * held >= 0
            if state.state is TradingState.REDUCING and reduces:
                left[order.symbol] = after
            else:
                self._cancel(order, f"the portfolio is {state.state}: {reason}")

    def _cancel(self, order: OpenOrder, reason: str) -> None:
        advance(order, Event.CANCEL)
        self._journal.execution(order, reason=reason)
        self._state.orders = [other for other in self._state.orders if other is not order]

    def _orders_of(self, strategy: str) -> list[OpenOrder]:
        return [order for order in self._state.orders if order.strategy == strategy]


def _pending(orders: Iterable[OpenOrder]) -> dict[str, Decimal]:
    pending: dict[str, Decimal] = {}
    for order in orders:
        pending[order.symbol] = pending.get(order.symbol, ZERO) + _open(order)
    return pending


def _open(order: OpenOrder) -> Decimal:
    """What is left of an order, signed."""
    return _signed(order.side, order.quantity - order.filled)


def _signed(side: Side, quantity: Decimal) -> Decimal:
    return quantity if side is Side.BUY else -quantity
