"""What changes results: the first record of every input partition, and one for each change."""

from __future__ import annotations

from decimal import Decimal

from schemas.records.base import Record
from schemas.records.words import ClockKind, CorrelationModel, TickFilter, VolatilityModel


class SourceSpec(Record, frozen=True, kw_only=True, tag="headrace.SourceSpec"):
    """A feed that may write ticks, or quotes."""

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
    hold: int = 1


class FitSpec(Record, frozen=True, kw_only=True, tag="headrace.FitSpec"):
    """How models are fitted to a universe, and when."""

    model: CorrelationModel
    volatility: VolatilityModel = VolatilityModel.GARCH
    distribution: str = "normal"
    regimes: int = 4
    every_us: int = 3600000000
    lag_us: int = 60000000
    window: int = 1250
    minimum: int = 100
    waits: bool = False


class UniverseSpec(Record, frozen=True, kw_only=True, tag="headrace.UniverseSpec"):
    """Symbols that are looked at together, on one bar kind."""

    name: str
    symbols: tuple[str, ...]
    kind: str
    decay: float = 0.94
    warm_up: int = 20
    fits: FitSpec | None = None


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
    """What changes results: the first record of every input partition, and one for each change.

    Identity: (version).
    """

    version: int
    effective_from: int
    tick_partitions: int
    max_ahead_us: int = 60000000
    lateness_us: int = 0
    sources: tuple[SourceSpec, ...]
    kinds: tuple[str, ...]
    leave_out: tuple[TickFilter, ...] = ()
    round_lot: float = 100.0
    regimes: RegimeSpec
    universes: tuple[UniverseSpec, ...]
    portfolios: tuple[PortfolioSpec, ...]
    quote_sources: tuple[SourceSpec, ...] = ()
    quote_partitions: int = 0
