"""What a portfolio decides: risk, signals, orders, positions, equity."""

from __future__ import annotations

from decimal import Decimal

from schemas.records.base import Record
from schemas.records.words import AlertKind, OrderState, OrderType, Side, TradingState


class Exposure(Record, frozen=True, kw_only=True, tag="headrace.Exposure"):
    """One symbol's part in a portfolio's risk."""

    symbol: str
    notional: float
    weight: float
    component_var: float


class RiskMetrics(Record, frozen=True, kw_only=True, tag="headrace.RiskMetrics"):
    """Risk after a snapshot.

    Identity: (portfolio, epoch, start).
    """

    portfolio: str
    epoch: int
    start: int
    end: int
    equity: float
    gross: float
    net: float
    leverage: float
    volatility: float
    confidence: float
    value_at_risk: float
    conditional_value_at_risk: float
    drawdown: float
    daily_loss: float
    warm: bool
    state: TradingState
    exposures: tuple[Exposure, ...]
    settings: int


class RiskAlert(Record, frozen=True, kw_only=True, tag="headrace.RiskAlert"):
    """A breach or a change of the trading state.

    Identity: (portfolio, epoch, id).
    """

    portfolio: str
    epoch: int
    id: str
    kind: AlertKind
    start: int
    ordinal: int
    event_time: int
    previous: TradingState
    state: TradingState
    limit: str | None = None
    value: Decimal | None = None
    figure: Decimal | None = None
    command_id: str | None = None
    message: str


class Signal(Record, frozen=True, kw_only=True, tag="headrace.Signal"):
    """What a strategy wants, and why.

    Identity: (portfolio, epoch, start, strategy, symbol).
    """

    portfolio: str
    epoch: int
    start: int
    end: int
    strategy: str
    symbol: str
    weight: float
    order_type: OrderType
    limit_price: Decimal | None = None
    good_for: int
    reason: str
    figures: dict[str, float]
    settings: int


class Order(Record, frozen=True, kw_only=True, tag="headrace.Order"):
    """An approved order for a real broker.

    Identity: (order_id).
    """

    order_id: str
    account: str
    portfolio: str
    strategy: str
    symbol: str
    side: Side
    order_type: OrderType
    quantity: Decimal
    limit_price: Decimal | None = None
    good_for: int
    start: int
    event_time: int


class CancelOrder(Record, frozen=True, kw_only=True, tag="headrace.CancelOrder"):
    """Asks a broker to cancel an order.

    Identity: (order_id).
    """

    order_id: str
    account: str
    reason: str
    event_time: int


class AccountHalt(Record, frozen=True, kw_only=True, tag="headrace.AccountHalt"):
    """Stops an account.

    Identity: (account, id).
    """

    account: str
    id: str
    state: TradingState
    reason: str = ""
    issued_by: str = ""
    issued_at: int


class Execution(Record, frozen=True, kw_only=True, tag="headrace.Execution"):
    """One event in an order's life.

    Identity: (order_id, sequence).
    """

    portfolio: str
    epoch: int
    order_id: str
    sequence: int
    state: OrderState
    strategy: str
    symbol: str
    side: Side
    order_type: OrderType
    quantity: Decimal
    limit_price: Decimal | None = None
    last_quantity: Decimal
    last_price: Decimal | None = None
    fee: Decimal
    slippage: Decimal
    filled: Decimal
    average_price: Decimal | None = None
    decided_on: int
    start: int
    ordinal: int
    event_time: int
    reason: str = ""
    limit: str | None = None
    value: Decimal | None = None
    figure: Decimal | None = None
    settings: int


class Position(Record, frozen=True, kw_only=True, tag="headrace.Position"):
    """A symbol's position after a fill.

    Identity: (portfolio, epoch, symbol, order_id, sequence).
    """

    portfolio: str
    epoch: int
    symbol: str
    order_id: str
    sequence: int
    quantity: Decimal
    average_cost: Decimal
    realised: Decimal
    unrealised: Decimal
    fees: Decimal
    cash: Decimal
    start: int
    event_time: int


class Equity(Record, frozen=True, kw_only=True, tag="headrace.Equity"):
    """Cash and equity after a snapshot.

    Identity: (portfolio, epoch, start).
    """

    portfolio: str
    epoch: int
    start: int
    end: int
    cash: Decimal
    equity: Decimal
    realised: Decimal
    unrealised: Decimal
    fees: Decimal
    fills: int
    open_orders: int
    state: TradingState
    settings: int
