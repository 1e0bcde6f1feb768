"""Small, complete examples of records for tests; override what a test is about with keyword arguments."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from schemas.records import (
    NEVER,
    Bar,
    LimitsSpec,
    PortfolioSpec,
    Quote,
    QuoteBar,
    RegimeSpec,
    Settings,
    SourceSpec,
    StrategySpec,
    Tick,
    UniverseSpec,
    VenueSpec,
)

SECOND = 1_000_000
MINUTE = 60 * SECOND
DAY0 = 1_381_132_800 * SECOND
"""2013-10-07 08:00 UTC, a whole minute."""


def venue(**over: Any) -> VenueSpec:
    base = VenueSpec(
        half_spread_bps=Decimal("1"),
        slippage_bps=Decimal("5"),
        fee_bps=Decimal("0"),
        fee_per_unit=Decimal("0.005"),
        minimum_fee=Decimal("1"),
        participation=Decimal("0.1"),
    )
    return msgspec.structs.replace(base, **over)


def portfolio(name: str = "alpha", **over: Any) -> PortfolioSpec:
    base = PortfolioSpec(
        name=name,
        universe="u1",
        symbols=("A", "B"),
        cash=Decimal("1000000"),
        lot=Decimal("1"),
        venue=venue(),
        limits=LimitsSpec(),
        strategies=(
            StrategySpec(name="momentum", uses="momentum", parameters="{}"),
            StrategySpec(name="reversion", uses="reversion", parameters="{}"),
        ),
    )
    return msgspec.structs.replace(base, **over)


def settings(**over: Any) -> Settings:
    base = Settings(
        version=1,
        effective_from=NEVER,
        tick_partitions=4,
        sources=(SourceSpec(name="test"),),
        kinds=("time:1s", "time:1m", "time:5m"),
        regimes=RegimeSpec(kinds=("time:1m",)),
        universes=(UniverseSpec(name="u1", symbols=("A", "B"), kind="time:1m"),),
        portfolios=(portfolio(),),
    )
    return msgspec.structs.replace(base, **over)


def tick(
    symbol: str = "A", time: int = DAY0, price: float = 100.0, sequence: int | None = 0, **over: Any
) -> Tick:
    base = Tick(
        symbol=symbol, source="test", session="s", sequence=sequence, event_time=time, price=price, size=100.0
    )
    return msgspec.structs.replace(base, **over)


def quote(
    symbol: str = "A",
    time: int = DAY0,
    bid: float = 99.0,
    ask: float = 101.0,
    sequence: int | None = 0,
    **over: Any,
) -> Quote:
    base = Quote(
        symbol=symbol,
        source="test",
        session="s",
        sequence=sequence,
        event_time=time,
        bid=bid,
        bid_size=100.0,
        ask=ask,
        ask_size=300.0,
    )
    return msgspec.structs.replace(base, **over)


def quote_bar(symbol: str = "A", start: int = DAY0, spread_bps: float = 20.0, **over: Any) -> QuoteBar:
    base = QuoteBar(
        universe="u1",
        symbol=symbol,
        kind="time:1m",
        start=start,
        end=start + MINUTE,
        count=3,
        open=100.0,
        high=101.0,
        low=99.0,
        close=100.0,
        spread=spread_bps / 100,
        spread_bps=spread_bps,
        spread_close=0.2,
        microprice=100.02,
        bid=99.9,
        bid_size=300.0,
        ask=100.1,
        ask_size=200.0,
        first_quote="test/s/0",
        last_quote="test/s/2",
        settings=1,
    )
    return msgspec.structs.replace(base, **over)


def bar(symbol: str = "A", start: int = DAY0, close: float = 100.0, **over: Any) -> Bar:
    base = Bar(
        symbol=symbol,
        kind="time:1m",
        start=start,
        end=start + MINUTE,
        open=close,
        high=close + 1.0,
        low=close - 1.0,
        close=close,
        volume=1000.0,
        vwap=close,
        count=10,
        buy_volume=600.0,
        sell_volume=400.0,
        first_tick="test/s/0",
        last_tick="test/s/9",
        settings=1,
    )
    return msgspec.structs.replace(base, **over)
