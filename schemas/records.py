"""Every record that crosses a topic, as immutable Structs; the contract itself is ``avsc/`` (units are told there).

Times are microseconds since the epoch, UTC (``_us`` is left out where the field's name says time: start, end,
event_time). Prices and sizes of the market are floats; those of orders, fills and positions are Decimals with
nine places. A record's *identity* names the fields that make it unique: a second copy is the same record.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum

import msgspec

NEVER = -(2**62)
"""An event time before all others: a clock that has not struck yet."""


class Record(msgspec.Struct, frozen=True, kw_only=True, tag_field="-type"):
    """Base of all records. The tag is Avro's full name, which fastavro reads to pick the branch of a union."""


class Side(StrEnum):
    """Which way an order or a trade's aggressor goes."""

    BUY = "BUY"
    SELL = "SELL"


class ClockKind(StrEnum):
    """Where a source's clock comes from: clock records that it writes, or its latest tick."""

    RECORDS = "RECORDS"
    TICKS = "TICKS"


class Label(StrEnum):
    """The four words for the state of a market."""

    TRENDING = "TRENDING"
    RANGING = "RANGING"
    CHOPPY = "CHOPPY"
    CRISIS = "CRISIS"


class OrderType(StrEnum):
    """How an order asks to be filled."""

    MARKET = "MARKET"
    LIMIT = "LIMIT"


class OrderState(StrEnum):
    """Where an order stands in its life cycle (transitions in streams/pretrade/lifecycle.py)."""

    APPROVED = "APPROVED"
    DENIED = "DENIED"
    SUBMITTED = "SUBMITTED"
    ACCEPTED = "ACCEPTED"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


class TradingState(StrEnum):
    """What a portfolio may do: trade; only reduce positions; send nothing."""

    ACTIVE = "ACTIVE"
    REDUCING = "REDUCING"
    HALTED = "HALTED"


class AlertKind(StrEnum):
    """What a risk alert is about."""

    STATE = "STATE"
    LIMIT = "LIMIT"
    DRAWDOWN = "DRAWDOWN"
    COMMAND = "COMMAND"
    SETTINGS = "SETTINGS"


class Reason(StrEnum):
    """Why an input was not processed."""

    UNREADABLE = "UNREADABLE"
    UNKNOWN_SCHEMA = "UNKNOWN_SCHEMA"
    WRONG_SCHEMA = "WRONG_SCHEMA"
    BAD_KEY = "BAD_KEY"
    BAD_PRICE = "BAD_PRICE"
    BAD_SIZE = "BAD_SIZE"
    BAD_TIME = "BAD_TIME"
    AHEAD_OF_CLOCK = "AHEAD_OF_CLOCK"
    UNDECLARED_SOURCE = "UNDECLARED_SOURCE"
    UNDECLARED_KEY = "UNDECLARED_KEY"
    TOO_LARGE = "TOO_LARGE"
    BAD_ROW = "BAD_ROW"
    BAD_CLOCK = "BAD_CLOCK"
    STRATEGY_RAISED = "STRATEGY_RAISED"
    SETTINGS_CHANGED = "SETTINGS_CHANGED"


class Tick(Record, frozen=True, kw_only=True, tag="headrace.Tick"):
    """One trade. Its name is (source, session, sequence); the sequence grows within a session and symbol.

    Identity: (symbol, source, session, sequence).
    """

    symbol: str
    source: str
    session: str = ""
    sequence: int | None = None
    event_time: int
    price: float
    size: float
    exchange: str = ""
    conditions: int = 0
    suspicious: bool = False
    trade_id: str | None = None
    aggressor: Side | None = None


class Quote(Record, frozen=True, kw_only=True, tag="headrace.Quote"):
    """Best bid and ask.

    Identity: (symbol, source, session, sequence).
    """

    symbol: str
    source: str
    session: str = ""
    sequence: int | None = None
    event_time: int
    bid: float
    bid_size: float
    ask: float
    ask_size: float
    exchange: str = ""


class SourceSpec(Record, frozen=True, kw_only=True, tag="headrace.SourceSpec"):
    """A feed that may write ticks."""

    name: str
    clock: ClockKind = ClockKind.RECORDS


class RegimeSpec(Record, frozen=True, kw_only=True, tag="headrace.RegimeSpec"):
    """Periods and thresholds of the rule classifier."""

    kinds: tuple[str, ...]
    period: int = 14
    band_period: int = 20
    band_width: float = 2.0
    trend_adx: float = 25.0
    choppy_adx: float = 25.0
    choppy_width: float = 3.0
    crisis_ratio: float = 1.75
    slow_period: int = 100


class UniverseSpec(Record, frozen=True, kw_only=True, tag="headrace.UniverseSpec"):
    """Symbols that are looked at together, on one bar kind."""

    name: str
    symbols: tuple[str, ...]
    kind: str
    decay: float = 0.94
    warm_up: int = 20


class VenueSpec(Record, frozen=True, kw_only=True, tag="headrace.VenueSpec"):
    """The paper venue's costs and limits."""

    half_spread_bps: Decimal
    slippage_bps: Decimal
    fee_bps: Decimal
    fee_per_unit: Decimal
    minimum_fee: Decimal
    participation: Decimal


class LimitsSpec(Record, frozen=True, kw_only=True, tag="headrace.LimitsSpec"):
    """Hard limits; an order that would breach one is denied. Null: no limit."""

    max_position: Decimal | None = None
    max_order_notional: Decimal | None = None
    max_position_notional: Decimal | None = None
    max_leverage: Decimal | None = None
    max_daily_loss: Decimal | None = None
    max_orders: int | None = None
    order_window_us: int = 60000000
    max_drawdown: Decimal | None = None


class StrategySpec(Record, frozen=True, kw_only=True, tag="headrace.StrategySpec"):
    """One strategy of a portfolio."""

    name: str
    uses: str
    parameters: str


class PortfolioSpec(Record, frozen=True, kw_only=True, tag="headrace.PortfolioSpec"):
    """One book of cash and positions, and what trades it."""

    name: str
    epoch: int = 1
    universe: str
    symbols: tuple[str, ...]
    currency: str = "USD"
    cash: Decimal
    lot: Decimal
    account: str | None = None
    confidence: float = 0.99
    venue: VenueSpec
    limits: LimitsSpec
    strategies: tuple[StrategySpec, ...]


class Settings(Record, frozen=True, kw_only=True, tag="headrace.Settings"):
    """What changes results; the first record of every input partition.

    Identity: (version).
    """

    version: int
    effective_from: int
    tick_partitions: int
    max_ahead_us: int = 60000000
    lateness_us: int = 0
    sources: tuple[SourceSpec, ...]
    kinds: tuple[str, ...]
    regimes: RegimeSpec
    universes: tuple[UniverseSpec, ...]
    portfolios: tuple[PortfolioSpec, ...]


class LateTick(Record, frozen=True, kw_only=True, tag="headrace.LateTick"):
    """A tick that came after its bar had closed.

    Identity: (symbol, name).
    """

    symbol: str
    name: str
    tick: Tick
    kinds: tuple[str, ...]
    mark: int
    reason: str


class Bar(Record, frozen=True, kw_only=True, tag="headrace.Bar"):
    """A closed bar.

    Identity: (symbol, kind, start, ordinal).
    """

    symbol: str
    kind: str
    start: int
    end: int
    ordinal: int = 0
    open: float
    high: float
    low: float
    close: float
    volume: float
    vwap: float
    count: int
    buy_volume: float
    sell_volume: float
    first_tick: str
    last_tick: str
    settings: int


class Indicators(Record, frozen=True, kw_only=True, tag="headrace.Indicators"):
    """What a regime verdict rests on; NaN before its warm-up."""

    atr: float
    atr_slow: float
    adx: float
    plus_di: float
    minus_di: float
    band_middle: float
    band_upper: float
    band_lower: float
    band_width: float


class Regime(Record, frozen=True, kw_only=True, tag="headrace.Regime"):
    """The state of one market on one closed bar, by rule.

    Identity: (symbol, kind, start, ordinal).
    """

    symbol: str
    kind: str
    start: int
    end: int
    ordinal: int = 0
    label: Label
    previous: Label | None = None
    bars_since_change: int
    warm: bool
    probabilities: dict[str, float]
    indicators: Indicators
    close: float
    classifier: str = "rule"
    settings: int


class HmmRegime(Record, frozen=True, kw_only=True, tag="headrace.HmmRegime"):
    """A symbol's state probabilities by the hidden Markov model.

    Identity: (universe, start, symbol).
    """

    universe: str
    symbol: str
    start: int
    end: int
    label: Label
    probabilities: dict[str, float]
    fit: int
    settings: int


class UniverseBar(Record, frozen=True, kw_only=True, tag="headrace.UniverseBar"):
    """A closed bar on its way to a universe's barrier.

    Identity: (universe, bar.symbol, bar.start).
    """

    universe: str
    bar: Bar
    regime: Regime | None = None


class Clock(Record, frozen=True, kw_only=True, tag="headrace.Clock"):
    """All windows of a source partition are closed through this time.

    Identity: (universe, topic, partition, through).
    """

    universe: str
    topic: str
    partition: int
    through: int


class Fit(Record, frozen=True, kw_only=True, tag="headrace.Fit"):
    """Parameters of a fitted model.

    Identity: (universe, model, version).
    """

    universe: str
    model: str
    version: int
    due: int
    data_through: int
    holds_from: int
    converged: bool
    status: str
    log_likelihood: float | None = None
    observations: int
    symbols: tuple[str, ...]
    parameters: dict[str, tuple[float, ...]]


class Correlations(Record, frozen=True, kw_only=True, tag="headrace.Correlations"):
    """Volatilities and correlations of a universe after one snapshot.

    Identity: (universe, start).
    """

    universe: str
    start: int
    end: int
    kind: str
    model: str
    fit: int | None = None
    warm: bool
    observations: int
    symbols: tuple[str, ...]
    stale: tuple[bool, ...]
    volatilities: tuple[float, ...]
    correlations: tuple[float, ...]
    average_correlation: float
    settings: int


class SnapshotRow(Record, frozen=True, kw_only=True, tag="headrace.SnapshotRow"):
    """One symbol in a snapshot."""

    symbol: str
    stale: bool
    bar: Bar
    regime: Regime | None = None


class Snapshot(Record, frozen=True, kw_only=True, tag="headrace.Snapshot"):
    """What a portfolio sees at the close of a bar.

    Identity: (portfolio, start).
    """

    portfolio: str
    universe: str
    start: int
    end: int
    kind: str
    rows: tuple[SnapshotRow, ...]
    warm: bool
    model: str
    fit: int | None = None
    covariance: tuple[float, ...]
    settings: int


class Place(Record, frozen=True, kw_only=True, tag="headrace.Place"):
    """A place in a portfolio's order of events."""

    start: int
    ordinal: int


class Command(Record, frozen=True, kw_only=True, tag="headrace.Command"):
    """What a person tells a portfolio.

    Identity: (portfolio, id).
    """

    portfolio: str
    id: str
    state: TradingState
    reason: str = ""
    issued_by: str = ""
    issued_at: int
    after: Place | None = None


class Answer(Record, frozen=True, kw_only=True, tag="headrace.Answer"):
    """What an account's broker says of an order.

    Identity: (portfolio, id).
    """

    portfolio: str
    id: str
    order_id: str
    state: OrderState
    broker_order_id: str | None = None
    quantity: Decimal | None = None
    price: Decimal | None = None
    fee: Decimal | None = None
    reason: str = ""
    event_time: int
    after: Place | None = None


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


class DeadLetter(Record, frozen=True, kw_only=True, tag="headrace.DeadLetter"):
    """Input that could not be processed, whole.

    Identity: (stage, input, reason).
    """

    stage: str
    reason: Reason
    error: str
    input: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None = None
    value: bytes | None = None
    value_size: int
    symbol: str | None = None
