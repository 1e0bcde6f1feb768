"""The records that a portfolio's decisions leave behind, made in one place from its state."""

from __future__ import annotations

from decimal import Decimal

from schemas.records import (
    NEVER,
    AlertKind,
    Command,
    Equity,
    Execution,
    PortfolioSpec,
    Position,
    Record,
    RiskAlert,
    RiskMetrics,
    Signal,
    TradingState,
)
from schemas.states import HoldingState, OpenOrder, PortfolioState
from streams import positions
from streams.agent import Output
from streams.positions.money import ZERO, from_float, rounded
from streams.pretrade.limits import Denial
from streams.risk import Breach
from streams.signals.strategy import Target
from streams.venue import PaperFill

WITHIN = -1
"""The ordinal of what happens within a snapshot's own decision."""


class Journal:
    """Writes one portfolio's results, stamped with its last snapshot, to the end of ``outputs``.

    ``ordinal`` is the place after that snapshot at which things happen now.
    """

    def __init__(
        self, spec: PortfolioSpec, version: int, state: PortfolioState, outputs: list[Output]
    ) -> None:
        self.ordinal = WITHIN
        self._portfolio = spec.name
        self.version = version
        self._state = state
        self._outputs = outputs

    def signal(self, strategy: str, target: Target) -> None:
        """What a strategy wants."""
        state = self._state
        self._send(
            "strategy.signals",
            Signal(
                portfolio=self._portfolio,
                epoch=state.epoch,
                start=state.last_start,
                end=state.last_end,
                strategy=strategy,
                symbol=target.symbol,
                weight=target.weight,
                order_type=target.order_type,
                limit_price=None if target.limit_price is None else from_float(target.limit_price),
                good_for=target.good_for,
                reason=target.reason,
                figures=dict(target.figures),
                settings=self.version,
            ),
        )

    def execution(
        self,
        order: OpenOrder,
        *,
        fill: PaperFill | None = None,
        denial: Denial | None = None,
        reason: str = "",
    ) -> int:
        """The event that has just brought ``order`` to its state; returns its sequence within the order."""
        state = self._state
        sequence = order.events
        order.events += 1
        self._send(
            "trade.executions",
            Execution(
                portfolio=self._portfolio,
                epoch=state.epoch,
                order_id=order.order_id,
                sequence=sequence,
                state=order.state,
                strategy=order.strategy,
                symbol=order.symbol,
                side=order.side,
                order_type=order.order_type,
                quantity=order.quantity,
                limit_price=order.limit_price,
                last_quantity=fill.quantity if fill else ZERO,
                last_price=fill.price if fill else None,
                fee=fill.fee if fill else ZERO,
                slippage=fill.slippage if fill else ZERO,
                filled=order.filled,
                average_price=rounded(order.cost / order.filled) if order.filled else None,
                decided_on=order.decided_on,
                start=state.last_start,
                ordinal=self.ordinal,
                event_time=state.last_end,
                reason=denial.reason if denial else reason,
                limit=denial.limit if denial else None,
                value=denial.value if denial else None,
                figure=denial.figure if denial else None,
                settings=self.version,
            ),
        )
        return sequence

    def position(self, holding: HoldingState, order: OpenOrder, sequence: int) -> None:
        """A holding after the fill that is event ``sequence`` of ``order``."""
        state = self._state
        self._send(
            "trade.positions",
            Position(
                portfolio=self._portfolio,
                epoch=state.epoch,
                symbol=holding.symbol,
                order_id=order.order_id,
                sequence=sequence,
                quantity=holding.quantity,
                average_cost=positions.average_cost(holding),
                realised=holding.realised,
                unrealised=positions.unrealised(holding),
                fees=holding.fees,
                cash=state.cash,
                start=state.last_start,
                event_time=state.last_end,
            ),
        )

    def metrics(self, metrics: RiskMetrics) -> None:
        """The risk after a snapshot."""
        self._send("risk.metrics", metrics)

    def breach(self, breach: Breach, kind: AlertKind, previous: TradingState) -> None:
        """The alert of a limit that the portfolio has passed."""
        state = self._state
        self._send(
            "risk.alerts",
            RiskAlert(
                portfolio=self._portfolio,
                epoch=state.epoch,
                id=f"{state.last_start}/{breach.limit}",
                kind=kind,
                start=state.last_start,
                ordinal=self.ordinal,
                event_time=state.last_end,
                previous=previous,
                state=state.state,
                limit=breach.limit,
                value=breach.value,
                figure=breach.figure,
                message=breach.message,
            ),
        )

    def settings(self, id: str, message: str) -> None:
        """What people must know of a change of the settings."""
        state = self._state
        event_time = max(state.last_end, 0)
        alert = RiskAlert(
            portfolio=self._portfolio,
            epoch=state.epoch,
            id=id,
            kind=AlertKind.SETTINGS,
            start=state.last_start,
            ordinal=self.ordinal,
            event_time=event_time,
            previous=state.state,
            state=state.state,
            message=message,
        )
        self._outputs.append(Output("risk.alerts", self._portfolio, alert, event_time))

    def command(self, command: Command, previous: TradingState, message: str) -> None:
        """The record of a command and its place; before any snapshot, its time is that of its issue."""
        state = self._state
        event_time = max(command.issued_at, 0) if state.last_end == NEVER else state.last_end
        alert = RiskAlert(
            portfolio=self._portfolio,
            epoch=state.epoch,
            id=command.id,
            kind=AlertKind.COMMAND,
            start=state.last_start,
            ordinal=self.ordinal,
            event_time=event_time,
            previous=previous,
            state=state.state,
            command_id=command.id,
            message=message,
        )
        self._outputs.append(Output("risk.alerts", self._portfolio, alert, event_time))

    def equity(self, equity: Decimal) -> None:
        """Cash, equity and profit and loss after a snapshot."""
        state = self._state
        self._send(
            "trade.equity",
            Equity(
                portfolio=self._portfolio,
                epoch=state.epoch,
                start=state.last_start,
                end=state.last_end,
                cash=state.cash,
                equity=equity,
                realised=sum((holding.realised for holding in state.holdings), ZERO),
                unrealised=sum((positions.unrealised(holding) for holding in state.holdings), ZERO),
                fees=sum((holding.fees for holding in state.holdings), ZERO),
                fills=state.fills,
                open_orders=len(state.orders),
                state=state.state,
                settings=self.version,
            ),
        )

    def _send(self, topic: str, record: Record) -> None:
        self._outputs.append(Output(topic, self._portfolio, record, self._state.last_end))
