"""The agents' states as they lie in the changelogs: mutable Structs, each owned by one partition of one agent.

A changelog partition holds a ``SourcePosition`` under ``POSITION_KEY``, the partition's own state under
``PARTITION_KEY`` and one state under each key of the source.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from schemas.records import (
    Command,
    Fit,
    Label,
    OrderState,
    OrderType,
    QuoteBar,
    Settings,
    Side,
    TradingState,
    UniverseBar,
)

POSITION_KEY = b"\0position"
PARTITION_KEY = b"\0partition"


class State(msgspec.Struct, kw_only=True, gc=False, tag_field="-type"):
    """Base of all states; mutable, because its partition's owner alone holds it. A tree, as a record is."""


class TickName(State, kw_only=True, tag="headrace.TickName"):
    """The highest sequence seen of one session."""

    source: str
    session: str
    sequence: int


class OpenBar(State, kw_only=True, tag="headrace.OpenBar"):
    """A bar that is not closed yet."""

    kind: str
    start: int
    end: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    notional: float
    price_sum: float
    count: int
    buy_volume: float
    sell_volume: float
    first_time: int
    last_time: int
    first_tick: str
    last_tick: str


class BuilderState(State, kw_only=True, tag="headrace.BuilderState"):
    """What the builder of one bar kind knows beyond its open bar."""

    kind: str
    bars: int = 0
    mark: int = -4611686018427387904
    base: float = 0.0
    bricks: int = 0
    direction: int = 0
    buys: int = 0
    sells: int = 0
    bought: float = 0.0
    sold: float = 0.0
    expected_ticks: float = 0.0
    expected_imbalance: float = 0.0
    buy_share: float = 0.5
    expected_buy: float = 0.0
    expected_sell: float = 0.0


class RegimeState(State, kw_only=True, tag="headrace.RegimeState"):
    """The incremental indicators of one bar kind."""

    kind: str
    bars: int = 0
    previous_high: float = 0.0
    previous_low: float = 0.0
    previous_close: float = 0.0
    atr: float = 0.0
    atr_slow: float = 0.0
    plus_dm: float = 0.0
    minus_dm: float = 0.0
    true_range: float = 0.0
    adx: float = 0.0
    closes: list[float] = msgspec.field(default_factory=list)
    label: Label | None = None
    previous: Label | None = None
    bars_since_change: int = 0
    candidate: Label | None = None
    candidate_bars: int = 0


class SymbolState(State, kw_only=True, tag="headrace.SymbolState"):
    """One symbol's state in the symbols agent."""

    names: list[TickName] = msgspec.field(default_factory=list)
    watermark: int = -4611686018427387904
    last_price: float | None = None
    direction: int = 0
    open_bars: list[OpenBar] = msgspec.field(default_factory=list)
    builders: list[BuilderState] = msgspec.field(default_factory=list)
    regimes: list[RegimeState] = msgspec.field(default_factory=list)


class SymbolsPartition(State, kw_only=True, tag="headrace.SymbolsPartition"):
    """What the symbols agent knows of a partition of market.ticks."""

    settings: Settings | None = None
    source_clocks: dict[str, int] = msgspec.field(default_factory=dict)
    clock: int = -4611686018427387904
    forwarded: int = -4611686018427387904
    later: list[Settings] = msgspec.field(default_factory=list)


class OpenQuoteBar(State, kw_only=True, tag="headrace.OpenQuoteBar"):
    """A window of quotes that is not closed yet."""

    kind: str
    start: int
    end: int
    count: int
    open: float
    high: float
    low: float
    first_time: int
    last_time: int
    first_quote: str
    last_quote: str
    bid: float
    bid_size: float
    ask: float
    ask_size: float
    weighed_from: int
    spread_time: float
    bps_time: float


class QuoteState(State, kw_only=True, tag="headrace.QuoteState"):
    """One symbol's state in the quotes agent."""

    names: list[TickName] = msgspec.field(default_factory=list)
    watermark: int = -4611686018427387904
    bid: float = 0.0
    ask: float = 0.0
    open_bars: list[OpenQuoteBar] = msgspec.field(default_factory=list)


class QuotesPartition(State, kw_only=True, tag="headrace.QuotesPartition"):
    """What the quotes agent knows of a partition of market.quotes."""

    settings: Settings | None = None
    source_clocks: dict[str, int] = msgspec.field(default_factory=dict)
    clock: int = -4611686018427387904
    forwarded: int = -4611686018427387904
    later: list[Settings] = msgspec.field(default_factory=list)


class PendingSnapshot(State, kw_only=True, tag="headrace.PendingSnapshot"):
    """Bars that wait at the barrier: of trades and of quotes."""

    start: int
    bars: list[UniverseBar]
    quotes: list[QuoteBar] = msgspec.field(default_factory=list)


class EwmaState(State, kw_only=True, tag="headrace.EwmaState"):
    """The EWMA covariance."""

    symbols: list[str] = msgspec.field(default_factory=list)
    closes: list[float | None] = msgspec.field(default_factory=list)
    covariance: list[float] = msgspec.field(default_factory=list)
    observations: list[int] = msgspec.field(default_factory=list)


class DccState(State, kw_only=True, tag="headrace.DccState"):
    """The state of a fitted DCC-GARCH model; its symbols and parameters are those of its fit."""

    closes: list[float | None]
    variance: list[float]
    q: list[float]
    observations: list[int]
    clipped: int = 0


class HmmState(State, kw_only=True, tag="headrace.HmmState"):
    """One symbol's hidden Markov model as it goes from bar to bar."""

    symbol: str
    close: float | None = None
    drift: float = 0.0
    pace: float = 0.0
    fit: int = 0
    probabilities: list[float] = msgspec.field(default_factory=list)
    label: Label | None = None
    previous: Label | None = None
    bars_since_change: int = 0
    candidate: Label | None = None
    candidate_bars: int = 0


class UniverseState(State, kw_only=True, tag="headrace.UniverseState"):
    """One universe's state in the universes agent."""

    pending: list[PendingSnapshot] = msgspec.field(default_factory=list)
    clocks: dict[str, int] = msgspec.field(default_factory=dict)
    last_start: int = -4611686018427387904
    carried: list[UniverseBar] = msgspec.field(default_factory=list)
    ewma: EwmaState
    snapshots: int = 0
    dues: list[int] = msgspec.field(default_factory=list)
    has_news: bool = False
    last_due: int = -4611686018427387904
    fitted: int = -4611686018427387904
    versions: dict[str, int] = msgspec.field(default_factory=dict)
    fits: list[Fit] = msgspec.field(default_factory=list)
    fit: Fit | None = None
    dcc: DccState | None = None
    hmm_fit: Fit | None = None
    hmm: list[HmmState] = msgspec.field(default_factory=list)


class UniversesPartition(State, kw_only=True, tag="headrace.UniversesPartition"):
    """What the universes agent knows of a partition of universe.bars."""

    settings: Settings | None = None
    later: list[Settings] = msgspec.field(default_factory=list)


class FitterState(State, kw_only=True, tag="headrace.FitterState"):
    """One universe's state in the fitter; what was seen lies in blocks of its own."""

    barrier: UniverseState
    fits: int = 0
    good: dict[str, Fit] = msgspec.field(default_factory=dict)


class HistoryBlock(State, kw_only=True, tag="headrace.HistoryBlock"):
    """A stretch of a universe's snapshots, as the fitter keeps them: so that a commit writes the last stretch alone."""

    first: int
    starts: list[int] = msgspec.field(default_factory=list)
    columns: dict[str, list[float]] = msgspec.field(default_factory=dict)


class FitterPartition(State, kw_only=True, tag="headrace.FitterPartition"):
    """What the fitter knows of a partition of universe.bars."""

    settings: Settings | None = None
    later: list[Settings] = msgspec.field(default_factory=list)


class OpenOrder(State, kw_only=True, tag="headrace.OpenOrder"):
    """An order that rests at the venue."""

    order_id: str
    strategy: str
    symbol: str
    side: Side
    order_type: OrderType
    quantity: Decimal
    limit_price: Decimal | None = None
    reference_price: Decimal
    filled: Decimal
    cost: Decimal
    fees: Decimal
    events: int
    state: OrderState
    decided_on: int
    rests_for: int


class HoldingState(State, kw_only=True, tag="headrace.HoldingState"):
    """One symbol's position."""

    symbol: str
    quantity: Decimal
    cost: Decimal
    realised: Decimal
    fees: Decimal
    last_price: Decimal


class StrategyState(State, kw_only=True, tag="headrace.StrategyState"):
    """A strategy's own state in its envelope."""

    name: str
    schema: str
    body: bytes
    snapshots: int
    holdings: dict[str, Decimal] = msgspec.field(default_factory=dict)


class PortfolioState(State, kw_only=True, tag="headrace.PortfolioState"):
    """One portfolio's state in the portfolios agent."""

    epoch: int = 0
    state: TradingState = TradingState.ACTIVE
    last_start: int = -4611686018427387904
    last_end: int = -4611686018427387904
    ordinal: int = 0
    kept: list[Command] = msgspec.field(default_factory=list)
    seen: list[str] = msgspec.field(default_factory=list)
    cash: Decimal
    holdings: list[HoldingState] = msgspec.field(default_factory=list)
    orders: list[OpenOrder] = msgspec.field(default_factory=list)
    strategies: list[StrategyState] = msgspec.field(default_factory=list)
    peak: Decimal
    day: int = -1
    day_equity: Decimal
    alerted: list[str] = msgspec.field(default_factory=list)
    order_times: list[int] = msgspec.field(default_factory=list)
    fills: int = 0


class PortfoliosPartition(State, kw_only=True, tag="headrace.PortfoliosPartition"):
    """What the portfolios agent knows of a partition of portfolio.events."""

    settings: Settings | None = None
    later: list[Settings] = msgspec.field(default_factory=list)


class SourcePosition(State, kw_only=True, tag="headrace.SourcePosition"):
    """Where the owner of a partition goes on; in the same transaction as the states.

    The ids are the broker's, of the topic that it was read from and of the changelog that it lies in: a topic that was
    deleted and made again has its name, and is another. Empty: not known (a simulation, a state of 0.1).
    """

    topic: str
    partition: int
    next_offset: int
    source_id: str = ""
    changelog_id: str = ""
