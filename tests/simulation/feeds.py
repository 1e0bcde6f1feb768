"""What connectors send in a world, seeded: ticks of a few symbols, skewed over the partitions, and clocks.

A world's results are a function of the order in which market.ticks holds the records, partition by partition. Most
scripts are made so that this order decides nothing: one feed, or two that share no symbol and are never late. Such a
script needs a single run of the oracle for all worlds that are made of it. In an open one (`Script.is_open`) two feeds
share their symbols, ticks are late, and commands hold where they happen to lie: the oracle takes the world's own order.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple

import msgspec

from connectors.messages import QUOTES, TICKS, Message
from schemas.records import (
    Command,
    CorrelationModel,
    FitSpec,
    Place,
    RegimeSpec,
    Settings,
    SourceSpec,
    StrategySpec,
    Tick,
    TradingState,
    UniverseSpec,
)
from schemas.topics import TOPICS
from tests.examples import DAY0, SECOND, portfolio, quote, settings, tick

SCRIPTS = 20
"""How many the worlds of a stretch share."""
STRETCH = 5000
"""So many seeds on, the scripts are others."""
KINDS = ("time:1s", "time:3s", "tick:3", "renko:1", "tick-imbalance:3:4")
"""The last three carry a running state from bar to bar (the count so far, the brick's base, the expectation), and a
tick that is lost or counted twice shifts the ordinal, the boundary or the first and last tick of all bars behind it.
Time bars alone would hide it where it falls between two commits: half a commit that is lost must not hide."""
SYMBOLS = ("A", "B", "C", "G")
"""In the partitions 2, 0, 0 and 3 of four: one has two symbols, one has none."""
MAX_AHEAD_US = 10 * SECOND
FITS = FitSpec(
    model=CorrelationModel.DCC, every_us=2 * SECOND, lag_us=SECOND, window=100, regimes=2, waits=True
)
"""In eight seconds none can be good; but each is a record that a snapshot waits for."""
MOMENTUM = '{"lookback": 2, "target_volatility": 0.5, "bars_per_year": 1000}'


class Script(NamedTuple):
    """One world's input."""

    number: int
    settings: Settings
    feeds: tuple[tuple[Message, ...], ...]
    commands: tuple[Command, ...]
    changes: tuple[Settings, ...]
    """What is applied while ticks flow, by ``effective_from``."""
    is_open: bool
    """Whether its results depend on how the feeds meet in a partition, and the commands with the snapshots."""

    @property
    def agents(self) -> tuple[str, ...]:
        """Those that have work, upstream first."""
        quotes = ("quotes",) if self.settings.quote_sources else ()
        fitter = ("fitter",) if any(universe.fits for universe in self.settings.universes) else ()
        return ("symbols", *quotes, *fitter, "universes", "portfolios")

    @property
    def kinds(self) -> set[str]:
        """Those that all versions of the settings name: every tick counts in each."""
        return set(self.settings.kinds).intersection(*(change.kinds for change in self.changes))

    def names(self, symbol: str) -> set[str]:
        """The names of a symbol's ticks."""
        return {
            f"{message.record.source}/{message.record.session}/{message.record.sequence}"
            for feed in self.feeds
            for message in feed
            if isinstance(message.record, Tick) and message.key == symbol
        }


def script_of(seed: int) -> Script:
    """What is sent in the world of a seed."""
    return script(seed // STRETCH * SCRIPTS + seed % SCRIPTS)


@functools.cache
def script(number: int) -> Script:
    """One script, seeded by its number."""
    rng = random.Random(f"script {number}")
    is_open, feeds, has_quotes = number % 10 == 9, 1 + number % 2, number % 5 == 3
    symbols = SYMBOLS[: 2 + number % 3]
    shares = [symbols] if feeds == 1 else [symbols] * 2 if is_open else [symbols[::2], symbols[1::2]]
    sources = [f"feed{place}" for place in range(feeds)]
    lateness = rng.choice([0, SECOND])
    fits = FITS if number % 4 == 1 else None
    told = settings(
        kinds=KINDS,
        lateness_us=lateness,
        max_ahead_us=MAX_AHEAD_US,
        sources=tuple(SourceSpec(name=source) for source in sources),
        regimes=RegimeSpec(kinds=("time:1s",), period=2, band_period=2, slow_period=3),
        universes=(
            UniverseSpec(name="u1", symbols=symbols, kind="time:1s", warm_up=2, fits=fits),
            UniverseSpec(name="u5", symbols=symbols[:2], kind="time:3s", warm_up=1),
        ),
        portfolios=(
            portfolio(
                "alpha",
                symbols=symbols,
                strategies=(StrategySpec(name="fast", uses="momentum", parameters=MOMENTUM),),
            ),
            portfolio(
                "zeta",
                universe=rng.choice(["u1", "u5"]),
                symbols=symbols[:2],
                strategies=(
                    StrategySpec(name="momentum", uses="momentum", parameters=MOMENTUM),
                    StrategySpec(name="reversion", uses="reversion", parameters="{}"),
                ),
            ),
        ),
    )
    if has_quotes:
        told = msgspec.structs.replace(
            told, quote_sources=told.sources, quote_partitions=TOPICS[QUOTES].partitions
        )
    may_be_late = feeds == 1 or is_open
    return Script(
        number,
        told,
        tuple(
            _feed(rng, source, share, may_be_late, has_quotes)
            for source, share in zip(sources, shares, strict=True)
        ),
        tuple(_commands(rng, is_open)),
        tuple(_changes(number, told, is_open)),
        is_open,
    )


def _changes(number: int, before: Settings, is_open: bool) -> Iterator[Settings]:
    """Two changes within the feed's eight seconds, in every third script; their times fall within windows too."""
    if number % 3 != 2 and not (is_open and number % 20 == 19):
        return
    rng = random.Random(f"changes {number}")
    symbols = before.universes[0].symbols
    alpha, zeta = before.portfolios
    fewer = symbols[1:]
    beta = portfolio("beta", universe="u9", symbols=fewer, strategies=alpha.strategies)
    tight = msgspec.structs.replace(alpha.limits, max_position=Decimal(40), max_leverage=Decimal("0.5"))
    change = msgspec.structs.replace
    second = change(
        before,
        version=2,
        effective_from=DAY0 + rng.randint(3, 6) * SECOND // 2,
        kinds=("tick:2", *KINDS, "time:2s"),
        regimes=change(before.regimes, kinds=("time:3s", "time:2s"), trend_adx=40.0),
        universes=(
            change(before.universes[0], symbols=fewer, decay=0.9),
            *before.universes[1:],
            UniverseSpec(name="u9", symbols=(*fewer, "NEW"), kind="time:1s", warm_up=1),
        ),
        portfolios=(change(alpha, symbols=fewer, limits=tight), zeta, beta),
    )
    yield second
    yield change(
        second,
        version=3,
        effective_from=second.effective_from + rng.randint(1, 6) * SECOND // 2,
        kinds=tuple(reversed(KINDS)),
        sources=before.sources[:1] if is_open else before.sources,
        regimes=before.regimes,
        universes=(before.universes[0], *second.universes[1:]),
        portfolios=(
            change(alpha, epoch=2, strategies=zeta.strategies),
            *((zeta,) if is_open or rng.random() < 0.5 else ()),
            change(beta, limits=tight),
        ),
    )


def _feed(
    rng: random.Random, source: str, symbols: Sequence[str], may_be_late: bool, has_quotes: bool
) -> tuple[Message, ...]:
    """Ticks of eight seconds, with a clock at each whole one; at times late, bad, or of a new session."""
    topics = (TICKS, QUOTES) if has_quotes else (TICKS,)
    messages = [Message(None, None, DAY0, source, topic) for topic in topics]
    now, session, sequence = DAY0, 0, 0
    prices = dict.fromkeys(symbols, 100.0)
    while now < DAY0 + 8 * SECOND:
        later = now + rng.choice([0, 0, SECOND // 4, SECOND // 4, SECOND // 2, 2 * SECOND])
        for struck in range(now // SECOND + 1, later // SECOND + 1):
            messages += [Message(None, None, struck * SECOND, source, topic) for topic in topics]
        now = later
        if rng.random() < 0.05:
            session, sequence = session + 1, 0
        sequence += 1
        symbol = rng.choice(symbols)
        prices[symbol] *= math.exp(rng.gauss(0.002, 0.01))
        made = tick(
            symbol,
            now,
            prices[symbol],
            sequence,
            source=source,
            session=f"{session}",
            size=1000.0 * rng.randint(1, 9),
        )
        kind = rng.random()
        if may_be_late and kind < 0.12:
            made = msgspec.structs.replace(
                made, event_time=max(now - rng.randint(1, 4) * SECOND, DAY0 - SECOND)
            )
        elif kind > 0.97:
            made = msgspec.structs.replace(made, price=-1.0)
        elif kind > 0.95:
            made = msgspec.structs.replace(made, event_time=now + 3 * MAX_AHEAD_US)
        elif kind > 0.93:
            made = msgspec.structs.replace(made, source="nobody")
        messages.append(Message(symbol, made, made.event_time, source))
        if has_quotes and rng.random() < 0.6:
            time = now - may_be_late * rng.choice([0, 0, 0, 3]) * SECOND
            bid, ask = prices[symbol] * rng.uniform(0.998, 1.0), prices[symbol] * rng.uniform(0.999, 1.002)
            best = quote(symbol, time, bid, ask, sequence, source=source, session=f"{session}")
            messages.append(Message(symbol, best, time, source, QUOTES))  # crossed now and then: bad input
    messages += [
        Message(None, None, now + 9 * SECOND, source, topic) for topic in topics
    ]  # closes every window
    return tuple(messages)


def _commands(rng: random.Random, is_open: bool) -> list[Command]:
    """What a person tells the portfolios: placed among the snapshots, or in an open script where it happens to lie."""
    commands = []
    for number in range(rng.randint(0, 4)):
        place = Place(start=DAY0 + rng.randint(0, 7) * SECOND, ordinal=rng.randint(0, 2))
        commands.append(
            Command(
                portfolio=rng.choice(["alpha", "zeta"]),
                id=f"c{number}",
                state=rng.choice([TradingState.HALTED, TradingState.REDUCING, TradingState.ACTIVE]),
                issued_at=DAY0,
                after=None if is_open else place,
            )
        )
    return commands
