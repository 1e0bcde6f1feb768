"""Seeded source partitions for worlds: ticks and quotes as they may come, and what agents make of them for others."""

from __future__ import annotations

import functools
import random

from schemas.records import (
    Command,
    CorrelationModel,
    FitSpec,
    RegimeSpec,
    SourceSpec,
    StrategySpec,
    TradingState,
    UniverseSpec,
)
from schemas.topics import TOPICS
from streams.agent import Output
from streams.runtime.inline import Inline
from streams.topology import agent, agents
from tests.examples import DAY0, SECOND, portfolio, quote, settings, tick
from tests.simulation.codec import CODEC
from tests.simulation.world import Reference, SourceRecord

FITS = FitSpec(
    model=CorrelationModel.DCC,
    every_us=75 * SECOND,
    lag_us=2 * SECOND,
    window=100,
    minimum=30,
    regimes=2,
    waits=True,
)
"""One in each log, and good."""
UNIVERSE = UniverseSpec(name="u1", symbols=("A", "B", "C"), kind="time:1s", warm_up=4, fits=FITS)
MOMENTUM = '{"lookback": 2, "target_volatility": 0.5, "bars_per_year": 1000}'
SETTINGS = settings(
    kinds=("time:1s", "time:5s"),
    regimes=RegimeSpec(kinds=("time:1s",), period=3, band_period=4, slow_period=6),
    universes=(UNIVERSE,),
    quote_sources=(SourceSpec(name="test"),),
    quote_partitions=4,
    portfolios=(
        portfolio(
            "alpha",
            symbols=UNIVERSE.symbols,
            strategies=(
                StrategySpec(name="momentum", uses="momentum", parameters=MOMENTUM),
                StrategySpec(name="reversion", uses="reversion", parameters="{}"),
            ),
        ),
        portfolio(
            "beta",
            symbols=("A", "C"),
            strategies=(StrategySpec(name="fast", uses="momentum", parameters=MOMENTUM),),
        ),
    ),
)


def source_records(topic: str, seed: int) -> tuple[list[SourceRecord], int]:
    """Settings, ticks or quotes, clocks, repeats, late and bad ones, offsets without a record; where the log ends."""
    rng = random.Random(seed)
    log = [SourceRecord(0, 0, None, CODEC.encode(topic, SETTINGS))]
    offset, time, sequence = 1, DAY0, 0
    for _ in range(60):
        offset += rng.choice([0, 0, 0, 0, 1, 2])
        kind = rng.random()
        time += rng.choice([0, SECOND // 4, SECOND])
        if kind < 0.15:
            log.append(SourceRecord(offset, time // 1000, None, None, (("source", b"test"),)))
        else:
            sequence += kind < 0.9
            late = 3 * SECOND if kind > 0.8 else 0
            symbol, price = rng.choice("ABCDEFGH"), 100 + rng.random()
            record = (
                tick(symbol, time - late, price=price, sequence=sequence)
                if topic == "market.ticks"
                else quote(symbol, time - late, bid=price, ask=price + rng.random(), sequence=sequence)
            )
            value = b"\0no record" if kind > 0.97 else CODEC.encode(topic, record)
            log.append(SourceRecord(offset, time // 1000, symbol.encode(), value))
        offset += 1
    return log, offset + rng.randint(0, 2)


def inner(topic: str, seed: int) -> tuple[list[SourceRecord], int]:
    """What the agents upstream write to ``topic`` on a random walk of three symbols; between, commands and junk."""
    rng, outputs = random.Random(seed), list[Output]()
    inline = Inline(agents(), SETTINGS, outputs.append, run_records=rng.choice([1, 7, 100]))
    prices = dict.fromkeys(UNIVERSE.symbols, 100.0)
    for now in range(DAY0, DAY0 + 90 * SECOND, SECOND):
        for symbol in UNIVERSE.symbols:
            prices[symbol] *= 1 + rng.gauss(0, 0.01)
            if rng.random() < 0.9:
                trade = tick(symbol, now, price=prices[symbol], sequence=now, size=5000.0)
                inline.tick(symbol, trade, now // 1000)
            if rng.random() < 0.9:
                bid = prices[symbol] * (1 - 1e-3 * rng.random())
                best = quote(symbol, now, bid=bid, ask=prices[symbol], sequence=now)
                inline.tick(symbol, best, now // 1000, "market.quotes")
        for source in ("market.ticks", "market.quotes"):
            inline.clock("test", now // 1000, source)
    inline.flush()

    values = [(o.key, CODEC.encode(topic, o.value), o.event_time) for o in outputs if o.topic == topic]
    between = [("u1", b"no frame")]
    if topic == "portfolio.events":
        between = [("alpha", CODEC.encode(topic, command(state))) for state in TradingState] + between
    for place, (key, value) in zip(
        sorted(rng.sample(range(20, len(values)), len(between))), between, strict=True
    ):
        values.insert(place, (key, value, DAY0))
    log = [SourceRecord(0, 0, None, CODEC.encode(topic, SETTINGS))]
    for offset, (key, value, event_time) in enumerate(values, 1):
        log.append(SourceRecord(offset, event_time // 1000, key.encode(), value))
    return log, len(log)


def command(state: TradingState) -> Command:
    return Command(portfolio="alpha", id=f"to {state}", state=state, issued_at=DAY0)


@functools.cache
def reference(name: str, seed: int) -> Reference:
    """One agent of the topology, undisturbed over a partition of its source."""
    source = agent(name).source
    log, end = source_records(source, seed) if TOPICS[source].role == "source" else inner(source, seed)
    return Reference(lambda: agent(name), log, end)
