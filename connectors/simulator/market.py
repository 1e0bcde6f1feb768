"""The simulated market, minute by minute.

Log prices move second by second: x += drift + σ·z, in some regimes pulled back to an anchor; z are normal,
with the symbols' correlation. A minute's σ is the symbol's own × its regime × the time of day × √v, where v'
= (1 − α − β) + α·v·z² + β·v (GARCH(1,1) of unit mean; Bollerslev 1986) clusters the volatility. Trades fall
as a Poisson process whose rate has the same U shape over the day; each is half a spread from the fair price.

Each minute draws from a generator of its own, seeded by (seed, minute), so that no reader's pace changes a
byte. Sums run elementwise from left to right and never through BLAS, whose order may depend on its threads.

Where quotes are asked for, one stands before each trade: the fair price at that moment less and plus half a spread,
rounded outwards to the grid, with sizes drawn from a generator of their own, so that they change no trade.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from connectors.clocks import interleave
from connectors.errors import MatrixError
from connectors.messages import BEGINNING, QUOTES, TICKS, Message, Position
from connectors.simulator import regimes
from connectors.simulator.settings import SimulatorSettings
from schemas.records import Quote, Side, Tick

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MINUTE_US = 60_000_000
_MODEL = 1
"""Raised when the same settings come to give other ticks."""
_MINUTES_PER_YEAR = 252 * 390
_RATE_CURVE = 1.2
_VOLATILITY_CURVE = 0.8
_LEAN = 0.2
"""How much likelier a buy is in a rising second than in a falling one, around one half."""


class Minute(NamedTuple):
    """The truth of one minute, and its trades in time order.

    Per symbol, (symbols,): ``regime`` (index into `regimes.BEHAVIOURS`), ``volatility`` (σ of the log return
    of the minute, without the pull to the anchor), ``drift`` (its mean). Per trade, (trades,): ``time_us``,
    ``symbol`` (index), ``price``, ``size``, ``buy``, and the ``fair`` price at that moment.
    """

    start_us: int
    regime: Ints
    volatility: Floats
    drift: Floats
    time_us: Ints
    symbol: Ints
    price: Floats
    size: Floats
    buy: NDArray[np.bool_]
    fair: Floats


class Simulation:
    """One simulated session, as many times as asked, always the same.

    ``session`` is a hash of all that makes the ticks, ``correlation`` the true matrix of the shocks (symbols,
    symbols), ``volatility`` the symbols' calm σ of a one-minute log return, ``opening`` their first prices,
    ``rate`` their mean trades per minute. Raises `MatrixError` where the given correlation is none.
    """

    def __init__(self, settings: SimulatorSettings) -> None:
        self.settings = settings
        told = settings.model_dump_json(exclude={"clocks", "source", "quotes"})
        self.session = hashlib.sha256(f"{_MODEL}:{told}".encode()).hexdigest()[:16]
        count = len(settings.symbols)
        draw = _generator(settings.seed, 0)
        low, high = settings.annual_volatility
        self.volatility: Floats = draw.uniform(low, high, count) / np.sqrt(_MINUTES_PER_YEAR)
        self.opening: Floats = np.rint(draw.uniform(20.0, 400.0, count) * settings.grid) / settings.grid
        busy = np.exp(draw.normal(0.0, 0.5, count))
        self.rate: Floats = settings.ticks_per_minute * busy / busy.mean()
        self._first = draw.choice(len(regimes.OPENING), count, p=regimes.OPENING).astype(np.int64)
        self._first_sign: Floats = draw.choice((-1.0, 1.0), count)
        factors = _factor_correlation(draw, count, settings.factors)
        self.correlation: Floats = (
            factors if settings.correlation is None else _checked(settings.correlation, count)
        )
        self._mix = np.linalg.cholesky(self.correlation)

    @property
    def source(self) -> str:
        return self.settings.source

    @property
    def topics(self) -> tuple[str, ...]:
        """Where its trades, and its quotes, go."""
        return (TICKS, QUOTES) if self.settings.quotes else (TICKS,)

    def minutes(self) -> Iterator[Minute]:
        """All minutes of the session, in order."""
        settings, count = self.settings, len(self.settings.symbols)
        chain = regimes.transition(settings.dwell).cumsum(axis=1)
        remains = regimes.reversion_per_second()
        level, push = regimes.column("volatility"), regimes.column("drift")
        jump, activity = regimes.column("jump"), regimes.column("activity")
        regime, sign = self._first, self._first_sign
        log_price = np.log(self.opening)
        anchor = log_price.copy()
        variance = np.ones(count)
        for number in range(settings.minutes):
            draw = _generator(settings.seed, number + 1)
            dice, signs = draw.random(count), draw.choice((-1.0, 1.0), count)
            moved = (dice[:, None] >= chain[regime]).sum(axis=1)
            moved = np.where(number == 0, regime, np.minimum(moved, len(regimes.BEHAVIOURS) - 1))
            entered = (moved != regime) | (number == 0)
            regime, sign = moved, np.where(entered, signs, sign)
            log_price = log_price - np.where(entered, jump[regime] * self.volatility, 0.0)
            anchor = np.where(entered, log_price, anchor)

            volatility_curve, rate_curve = self._day(number)
            sigma = self.volatility * level[regime] * np.sqrt(variance) * volatility_curve
            direction = np.where(regime == regimes.CRISIS, 1.0, sign)
            drift = self.volatility * push[regime] * direction * volatility_curve
            shocks = self._shocks(draw, count)
            path = _path(log_price, anchor, remains[regime], drift / 60.0, sigma / np.sqrt(60.0), shocks)
            log_price = path[:, -1]
            squared = shocks.sum(axis=1) ** 2 / 60.0
            variance = (
                (1.0 - settings.clustering - settings.persistence)
                + settings.clustering * variance * squared
                + settings.persistence * variance
            )
            rate = self.rate * activity[regime] * rate_curve
            start_us = settings.start_us + number * MINUTE_US
            yield Minute(start_us, regime, sigma, drift, *self._trades(draw, start_us, rate, path))

    def ticks(self, after: int = 0) -> Iterator[Tick]:
        """The trades behind number ``after`` as ticks; their sequence counts from 1 over the session."""
        first = 1
        for minute in self.minutes():
            yield from self._ticks(minute, first, after)
            first += len(minute.time_us)

    def messages(self, position: Position = BEGINNING) -> Iterator[Message]:
        """The ticks behind ``position``, each behind its quote where there are quotes, with clocks at their places."""
        if position.finished:
            return iter(())
        after = position.sequence
        rows: Iterator[Tick | Quote] = self._quoted(after) if self.settings.quotes else self.ticks(after)
        return interleave(rows, self.source, self.settings.clocks, position.clock_us, self.topics)

    def _ticks(self, minute: Minute, first: int, after: int) -> Iterator[Tick]:
        """The trades of a minute, of which the first has the number ``first``."""
        names, source, session = self.settings.symbols, self.source, self.session
        buy, sell = Side.BUY, Side.SELL
        columns = zip(
            minute.symbol.tolist(),
            minute.time_us.tolist(),
            minute.price.tolist(),
            minute.size.tolist(),
            minute.buy.tolist(),
            range(first, first + len(minute.time_us)),
            strict=True,
        )
        for symbol, time_us, price, size, bought, sequence in islice(
            columns, max(after + 1 - first, 0), None
        ):
            yield Tick(
                symbol=names[symbol],
                source=source,
                session=session,
                sequence=sequence,
                event_time=time_us,
                price=price,
                size=size,
                exchange="SIM",
                aggressor=buy if bought else sell,
            )

    def _quoted(self, after: int) -> Iterator[Tick | Quote]:
        """Every trade behind its quote, which has its number and time."""
        settings, first = self.settings, 1
        half = settings.half_spread_bps * 1e-4
        for number, minute in enumerate(self.minutes(), 1):
            draw = _generator(settings.seed, number, 1)
            sizes = np.maximum(np.rint(np.exp(draw.normal(1.0, 0.8, (len(minute.time_us), 2)))), 1.0)
            bid = np.maximum(np.floor(minute.fair * (1.0 - half) * settings.grid), 1.0)
            ask = np.maximum(np.ceil(minute.fair * (1.0 + half) * settings.grid), bid + 1.0)
            quotes = zip(
                (bid / settings.grid).tolist(),
                (ask / settings.grid).tolist(),
                (sizes * settings.lot).tolist(),
                strict=True,
            )
            behind = islice(quotes, max(after + 1 - first, 0), None)
            for (bid_price, ask_price, (bid_size, ask_size)), tick in zip(
                behind, self._ticks(minute, first, after), strict=True
            ):
                yield Quote(
                    symbol=tick.symbol,
                    source=tick.source,
                    session=tick.session,
                    sequence=tick.sequence,
                    event_time=tick.event_time,
                    bid=bid_price,
                    bid_size=bid_size,
                    ask=ask_price,
                    ask_size=ask_size,
                    exchange=tick.exchange,
                )
                yield tick
            first += len(minute.time_us)

    def _day(self, number: int) -> tuple[float, float]:
        """Factors of volatility and rate at this time of the day: U-shaped, with a mean of one."""
        where = 2.0 * (number + 0.5) / self.settings.minutes - 1.0
        return (
            1.0 - _VOLATILITY_CURVE / 3.0 + _VOLATILITY_CURVE * where**2,
            1.0 - _RATE_CURVE / 3.0 + _RATE_CURVE * where**2,
        )

    def _shocks(self, draw: np.random.Generator, count: int) -> Floats:
        """Correlated standard normals, (symbols, 60)."""
        independent = draw.standard_normal((count, 60))
        shocks = np.zeros((count, 60))
        for column in range(count):
            shocks += self._mix[:, column, None] * independent[column]
        return shocks

    def _trades(
        self, draw: np.random.Generator, start_us: int, rate: Floats, path: Floats
    ) -> tuple[Ints, Ints, Floats, Floats, NDArray[np.bool_], Floats]:
        settings = self.settings
        counts = draw.poisson(rate)
        symbol = np.repeat(np.arange(len(counts)), counts)
        offset_us = draw.integers(0, MINUTE_US, len(symbol))
        order = np.lexsort((symbol, offset_us))
        symbol, offset_us = symbol[order], offset_us[order]
        second, part = offset_us // 1_000_000, offset_us % 1_000_000 / 1_000_000.0
        before, behind = path[symbol, second], path[symbol, second + 1]
        buy = draw.random(len(symbol)) < 0.5 + _LEAN / 2.0 * np.sign(behind - before)
        spread = np.where(buy, 1.0, -1.0) * (settings.half_spread_bps * 1e-4)
        fair = np.exp(before + part * (behind - before))
        price = np.maximum(np.rint(fair * (1.0 + spread) * settings.grid), 1.0) / settings.grid
        lots = np.maximum(np.rint(np.exp(draw.normal(0.3, 0.9, len(symbol)))), 1.0)
        return start_us + offset_us, symbol, price, lots * settings.lot, buy, fair


def _generator(seed: int, *number: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=number)))


def _path(
    start: Floats, anchor: Floats, remains: Floats, drift: Floats, sigma: Floats, shocks: Floats
) -> Floats:
    """Log prices at the 61 second marks of a minute, (symbols, 61).

    Solves x[k+1] = anchor + remains·(x[k] − anchor) + drift + sigma·z[k] in closed form:
    x[k] = anchor + remains^k·(x[0] − anchor + Σ_{j<k} remains^−(j+1)·(drift + sigma·z[j])).
    """
    powers = remains[:, None] ** np.arange(1, 61)
    moves = np.cumsum((drift[:, None] + sigma[:, None] * shocks) / powers, axis=1)
    path = np.empty((len(start), 61))
    path[:, 0] = start
    path[:, 1:] = anchor[:, None] + powers * ((start - anchor)[:, None] + moves)
    return path


def _factor_correlation(draw: np.random.Generator, count: int, factors: int) -> Floats:
    """Correlation of shocks that load on a market factor, and on a second with either sign."""
    market = draw.uniform(0.45, 0.75, count)
    style = draw.uniform(0.2, 0.5, count) * np.where(np.arange(count) % 2, 1.0, -1.0)
    matrix = np.multiply.outer(market, market)
    if factors == 2:
        matrix = matrix + np.multiply.outer(style, style)
    np.fill_diagonal(matrix, 1.0)
    return matrix


def _checked(rows: tuple[tuple[float, ...], ...], count: int) -> Floats:
    if any(len(row) != count for row in rows) or len(rows) != count:
        raise MatrixError(f"the correlation must be {count} rows of {count} figures, one for each symbol")
    matrix = np.array(rows, dtype=np.float64)
    if not (np.isfinite(matrix).all() and (matrix == matrix.T).all() and (np.diag(matrix) == 1.0).all()):
        raise MatrixError("the correlation must be symmetric and finite, with ones on its diagonal")
    if np.linalg.eigvalsh(matrix)[0] <= 1e-10:
        raise MatrixError("the correlation must be positive definite")
    return matrix
