"""From ticks to correlations: what the market says, and what is made of it."""

from __future__ import annotations

import msgspec

from schemas.records.base import Record
from schemas.records.words import Label, Side


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
    previous: Label | None = None
    bars_since_change: int = 0
    expected_duration: float = 0.0
    states: tuple[Label, ...] = ()
    transition: tuple[float, ...] = ()
    features: dict[str, float] = msgspec.field(default_factory=dict)
    log_likelihood: float = 0.0
    fit_converged: bool = True


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


class QuoteBar(Record, frozen=True, kw_only=True, tag="headrace.QuoteBar"):
    """A closed window of a symbol's best bid and ask, on its way to a universe's barrier.

    Identity: (universe, symbol, start).
    """

    universe: str
    symbol: str
    kind: str
    start: int
    end: int
    count: int
    open: float
    high: float
    low: float
    close: float
    spread: float
    spread_bps: float
    spread_close: float
    microprice: float
    bid: float
    bid_size: float
    ask: float
    ask_size: float
    first_quote: str
    last_quote: str
    settings: int


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
    eigenvalues: tuple[float, ...] = ()
    explained: tuple[float, ...] = ()
    diversification_ratio: float = 1.0
    effective_bets: float = 1.0
    fit_age_us: int | None = None
    fit_converged: bool | None = None
    fit_status: str = ""
    log_likelihood: float | None = None
    hmm_fit: int | None = None
    unfitted: tuple[str, ...] = ()
    clipped: int = 0
    tail_dependence: tuple[float, ...] = ()
    stress_correlations: tuple[float, ...] = ()
    stress_window: tuple[int, ...] = ()
