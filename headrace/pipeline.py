"""What changes results, as people write it in ``headrace.toml``, and as the `Settings` record that the agents read."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from connectors.clocks import ClockSettings
from schemas import records
from schemas.records import (
    NEVER,
    ClockKind,
    CorrelationModel,
    Settings,
    TickFilter,
    VolatilityModel,
)
from schemas.topics import TOPICS
from streams.bars.kinds import Kind, parse, parse_utc
from streams.errors import UnknownKind

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=40)]

Positive = Annotated[Decimal, Field(gt=0, max_digits=28, decimal_places=9)]
NotNegative = Annotated[Decimal, Field(ge=0, max_digits=28, decimal_places=9)]
"""As wide as the decimals of the contract."""


_RULE = records.RegimeSpec(kinds=())
"""The contract's own defaults."""


def _kind(bar: str) -> str:
    """The kind that ``bar`` stands for: a time may be written without its ``time:``."""
    return bar if ":" in bar else f"time:{bar}"


def _bar(bar: str) -> str:
    return _parsed_by(parse, bar)


def _window(bar: str) -> str:
    return _parsed_by(parse_utc, bar)


def _parsed_by(parser: Callable[[str], Kind], bar: str) -> str:
    try:
        parser(_kind(bar))
    except UnknownKind as error:
        raise ValueError(str(error)) from None
    return bar


Bar = Annotated[
    str,
    AfterValidator(_bar),
    Field(
        description="for example 1s, 5m, 1d@XNYS, tick:100, volume:10000, dollar:1000000, range:0.5, renko:0.5"
    ),
]
Window = Annotated[str, AfterValidator(_window), Field(description="for example 1s, 5m, 1d")]


def _upper(word: object) -> object:
    return word.upper() if isinstance(word, str) else word


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourcePart(_Part):
    """A feed whose ticks, or quotes, are taken."""

    name: Name
    clock: Annotated[ClockKind, BeforeValidator(_upper)] = ClockKind.RECORDS


class QuotesPart(_Part):
    """Best bids and asks; with them, universes wait for the quotes too."""

    sources: tuple[SourcePart, ...] = Field(
        min_length=1,
        description="feeds whose quotes are taken; only such that run, and `headrace worker quotes` with them",
    )


class RegimesPart(_Part):
    """The rule classifier of regimes; thresholds as in `schemas.records.RegimeSpec`."""

    bars: tuple[Bar, ...] = ("1m",)
    period: int = Field(_RULE.period, ge=2, le=1000)
    band_period: int = Field(_RULE.band_period, ge=2, le=1000)
    band_width: float = Field(_RULE.band_width, gt=0)
    trend_adx: float = Field(_RULE.trend_adx, gt=0, lt=100)
    choppy_adx: float = Field(_RULE.choppy_adx, gt=0, lt=100)
    choppy_width: float = Field(_RULE.choppy_width, gt=0)
    crisis_ratio: float = Field(_RULE.crisis_ratio, gt=1)
    slow_period: int = Field(_RULE.slow_period, ge=2, le=10_000)
    hold: int = Field(2, ge=1, le=1000, description="bars that say another label before it changes")


class MarketPart(_Part):
    """How ticks become bars and regimes."""

    bars: tuple[Bar, ...] = ("1s", "1m", "5m")
    leave_out: tuple[Annotated[TickFilter, BeforeValidator(_upper)], ...] = Field(
        (), description="ticks that no bar counts: odd_lots, out_of_sequence, extended_hours, suspicious"
    )
    round_lot: float = Field(100.0, gt=0, description="units; a smaller tick is an odd lot")
    lateness_ms: int = Field(0, ge=0, description="a window stays open this long past its end")
    max_ahead_s: int = Field(60, gt=0, description="a tick further past its source's clock is bad input")
    sources: tuple[SourcePart, ...] = Field(
        (SourcePart(name="simulator"),),
        min_length=1,
        description="only feeds that run: a window waits for the clock of every one of them",
    )
    regimes: RegimesPart = RegimesPart()
    quotes: QuotesPart | None = None

    @property
    def quote_sources(self) -> tuple[SourcePart, ...]:
        """Feeds whose quotes are taken; none where the settings have no quotes."""
        return () if self.quotes is None else self.quotes.sources

    def clocks(self, given: ClockSettings) -> ClockSettings:
        """``given`` with a last clock that closes the largest window, and the bound on ticks ahead of it."""
        largest_us = max(parse(_kind(bar)).size_us for bar in self.bars)
        derived = {
            "close_after_us": largest_us + self.lateness_ms * 1000,
            "max_ahead_us": self.max_ahead_s * 1_000_000,
        }
        return ClockSettings(**{**given.model_dump(), **derived})


class FitsPart(_Part):
    """Models that are fitted to a universe: DCC-GARCH correlations, and hidden Markov regimes of its symbols.

    Processes: one more, `headrace worker fitter`.
    """

    model: Annotated[CorrelationModel, BeforeValidator(_upper)] = Field(
        CorrelationModel.DCC, description="of the correlations: DCC, aDCC, cDCC, DECO"
    )
    volatility: Annotated[VolatilityModel, BeforeValidator(_upper)] = Field(
        VolatilityModel.GARCH, description="of each symbol: GARCH, GJR, EGARCH"
    )
    distribution: Literal["normal", "t"] = "normal"
    regimes: int = Field(4, ge=0, le=6, description="states of the hidden Markov model; 0: none is fitted")
    every: Window = Field("1h", description="fits are due at its multiples; a multiple of the universe's bar")
    lag: Window = Field("1m", description="a fit holds from this long after it was due")
    window: int = Field(1250, ge=60, le=10_000, description="snapshots that are fitted to")
    minimum: int = Field(100, ge=30, description="snapshots before the first fit")
    waits: bool = Field(
        False,
        description="snapshots wait for a fit that should hold; else a late one holds from the snapshot after it",
    )

    @model_validator(mode="after")
    def _hangs_together(self) -> FitsPart:
        if self.regimes == 1:
            raise ValueError("regimes: a model of one state tells nothing; 2 to 6, or 0 for none")
        if self.minimum > self.window:
            raise ValueError(f"minimum {self.minimum} is above window {self.window}")
        return self

    def record(self) -> records.FitSpec:
        """As the agents read it."""
        return records.FitSpec(
            model=self.model,
            volatility=self.volatility,
            distribution=self.distribution,
            regimes=self.regimes,
            every_us=_size_us(self.every),
            lag_us=_size_us(self.lag),
            window=self.window,
            minimum=self.minimum,
            waits=self.waits,
        )


def _size_us(window: str) -> int:
    return parse_utc(_kind(window)).size_us


class UniversePart(_Part):
    """Symbols that are looked at together."""

    name: Name
    symbols: tuple[Name, ...] = Field(min_length=1)
    bar: Window = "1m"
    decay: float = Field(0.94, gt=0, lt=1)
    warm_up: int = Field(20, ge=1)
    fits: FitsPart | None = Field(
        None, description="left out: the covariance is the EWMA, and none is fitted"
    )

    @model_validator(mode="after")
    def _hangs_together(self) -> UniversePart:
        if self.fits is not None and _size_us(self.fits.every) % _size_us(self.bar):
            raise ValueError(f"fits.every {self.fits.every} is no multiple of bar {self.bar}")
        return self


class VenuePart(_Part):
    """The paper venue's costs."""

    half_spread_bps: NotNegative = Decimal("1")
    slippage_bps: NotNegative = Decimal("5")
    fee_bps: NotNegative = Decimal("0")
    fee_per_unit: NotNegative = Decimal("0.0035")
    minimum_fee: NotNegative = Decimal("0.35")
    participation: Annotated[Decimal, Field(gt=0, le=1, decimal_places=9)] = Decimal("0.1")


class LimitsPart(_Part):
    """Hard limits; leave one out to have none."""

    max_position: Positive | None = None
    max_order_notional: Positive | None = None
    max_position_notional: Positive | None = None
    max_leverage: Positive | None = None
    max_daily_loss: Positive | None = None
    max_orders: int | None = Field(None, ge=0)
    order_window_s: int = Field(60, gt=0)
    max_drawdown: Annotated[Decimal, Field(gt=0, le=1, decimal_places=9)] | None = None


class StrategyPart(_Part):
    """A strategy and its parameters."""

    name: Name
    uses: str = Field(description="entry point of the group headrace.strategies, or path/to/file.py:Class")
    parameters: dict[str, Any] = {}


class PortfolioPart(_Part):
    """A book of cash and positions, and what trades it."""

    name: Name
    universe: Name
    symbols: tuple[Name, ...] | None = Field(None, description="None: all of the universe")
    epoch: int = Field(1, ge=1)
    currency: str = "USD"
    cash: Positive = Decimal("1000000")
    lot: Positive = Decimal("1")
    confidence: float = Field(0.99, gt=0.5, lt=1)
    venue: VenuePart = VenuePart()
    limits: LimitsPart = LimitsPart()
    strategies: tuple[StrategyPart, ...] = Field(min_length=1)


class PipelineSettings(_Part):
    """Everything that changes results; `version` grows with every change."""

    version: int = Field(1, ge=1)
    market: MarketPart = MarketPart()
    universes: tuple[UniversePart, ...] = ()
    portfolios: tuple[PortfolioPart, ...] = ()

    @model_validator(mode="after")
    def _hangs_together(self) -> PipelineSettings:
        by_name = {universe.name: universe for universe in self.universes}
        _no_repeats("universe", [u.name for u in self.universes])
        _no_repeats("portfolio", [p.name for p in self.portfolios])
        _no_repeats("source", [s.name for s in self.market.sources])
        _no_repeats("market.quotes: source", [s.name for s in self.market.quote_sources])
        _no_repeats("market.bars: bar", list(self.market.bars))
        _no_repeats("market.regimes: bar", list(self.market.regimes.bars))
        for universe in self.universes:
            if universe.bar not in self.market.bars:
                raise ValueError(f"universe {universe.name}: bar {universe.bar} is not in market.bars")
        for bar in self.market.regimes.bars:
            if bar not in self.market.bars:
                raise ValueError(f"market.regimes: bar {bar} is not in market.bars")
        for portfolio in self.portfolios:
            if portfolio.universe not in by_name:
                raise ValueError(
                    f"portfolio {portfolio.name}: universe {portfolio.universe} is not declared; "
                    f"there are: {', '.join(by_name) or 'none'}"
                )
            foreign = set(portfolio.symbols or ()) - set(by_name[portfolio.universe].symbols)
            if foreign:
                raise ValueError(
                    f"portfolio {portfolio.name}: not in its universe: {', '.join(sorted(foreign))}"
                )
            _no_repeats(f"portfolio {portfolio.name}: strategy", [s.name for s in portfolio.strategies])
        return self

    def record(self) -> Settings:
        """The record that is written first into every input partition."""
        market = self.market
        regimes = market.regimes.model_dump(exclude={"bars"})
        symbols = {universe.name: universe.symbols for universe in self.universes}
        return Settings(
            version=self.version,
            effective_from=NEVER,
            tick_partitions=TOPICS["market.ticks"].partitions,
            max_ahead_us=market.max_ahead_s * 1_000_000,
            lateness_us=market.lateness_ms * 1_000,
            sources=_sources(market.sources),
            kinds=tuple(_kind(bar) for bar in market.bars),
            leave_out=tuple(sorted(set(market.leave_out))),
            round_lot=market.round_lot,
            regimes=records.RegimeSpec(kinds=tuple(_kind(bar) for bar in market.regimes.bars), **regimes),
            universes=tuple(
                records.UniverseSpec(
                    name=u.name,
                    symbols=tuple(sorted(set(u.symbols))),
                    kind=_kind(u.bar),
                    decay=u.decay,
                    warm_up=u.warm_up,
                    fits=None if u.fits is None else u.fits.record(),
                )
                for u in self.universes
            ),
            portfolios=tuple(_portfolio(p, p.symbols or symbols[p.universe]) for p in self.portfolios),
            quote_sources=_sources(market.quote_sources),
            quote_partitions=TOPICS["market.quotes"].partitions if market.quotes else 0,
        )


def _sources(parts: tuple[SourcePart, ...]) -> tuple[records.SourceSpec, ...]:
    return tuple(records.SourceSpec(name=part.name, clock=part.clock) for part in parts)


def _portfolio(part: PortfolioPart, symbols: tuple[str, ...]) -> records.PortfolioSpec:
    limits = part.limits.model_dump()
    return records.PortfolioSpec(
        name=part.name,
        epoch=part.epoch,
        universe=part.universe,
        symbols=tuple(sorted(set(symbols))),
        currency=part.currency,
        cash=part.cash,
        lot=part.lot,
        confidence=part.confidence,
        venue=records.VenueSpec(**part.venue.model_dump()),
        limits=records.LimitsSpec(order_window_us=limits.pop("order_window_s") * 1_000_000, **limits),
        strategies=tuple(
            records.StrategySpec(
                name=s.name, uses=s.uses, parameters=json.dumps(s.parameters, sort_keys=True)
            )
            for s in part.strategies
        ),
    )


def _no_repeats(what: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{what} {name} is declared twice")
