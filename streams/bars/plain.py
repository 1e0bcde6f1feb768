"""All kinds of bars once more, in plain Python: one object per kind, one tick at a time, nothing clever.

The kernel must give the same bytes (tests/unit/test_bars_twins.py), and what is expected of whole runs is computed with
`fold`. The definitions are in the modules of the kinds.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Iterable, Sequence

import numpy as np

from schemas.records import NEVER, Bar, LateTick, Side, Tick
from schemas.states import BuilderState, OpenBar, SymbolState
from streams.bars import sessions
from streams.bars.kinds import Family, Kind, Measure, parse
from streams.bars.plan import Plan

Event = tuple[int, Tick | None, str]
"""The partition's clock at this place (µs), the tick with its name, or None: a clock without a tick."""


def fold(ticks: Iterable[Tick], kinds: Sequence[str], lateness_us: int = 0, clock: int = NEVER) -> list[Bar]:
    """The bars of ticks of any number of symbols, and what ``clock`` closes at the end; by symbol, then as they close.

    Ticks without a sequence are named by their place among all, in partition 0. Bars name settings 1.
    """
    events: dict[str, list[Event]] = {}
    for place, tick in enumerate(ticks):
        number = f"{tick.session}/{tick.sequence}" if tick.sequence is not None else f"@0/{place}"
        events.setdefault(tick.symbol, []).append((NEVER, tick, f"{tick.source}/{number}"))
    plan = Plan.of(kinds, lateness_us, 1)
    bars: list[Bar] = []
    for symbol, run in events.items():
        _, results = step(SymbolState(), symbol, [*run, (clock, None, "")], plan)
        bars.extend(result for result in results if isinstance(result, Bar))
    return bars


def step(
    state: SymbolState, symbol: str, events: Iterable[Event], plan: Plan
) -> tuple[SymbolState, list[Bar | LateTick]]:
    """Fold one symbol's events into its bars, as `streams.bars.fold.step` does; ``state`` is changed."""
    out: list[Bar | LateTick] = []
    builders = [_builder(parse(kind), state) for kind in plan.kinds]
    windows = [builder for builder in builders if isinstance(builder, Windows)]

    def leave(bar: OpenBar, ordinal: int = 0) -> None:
        version = int(plan.version_of(np.array([bar.start]))[0])
        out.append(_closed(bar, symbol, ordinal, int(plan.settings[version])))

    def close(through: int) -> None:
        due = [bar for kind in windows for bar in kind.due(through)]
        for bar in sorted(due, key=lambda bar: (bar.end, plan.numbers[bar.kind])):
            leave(bar)

    for clock, tick, name in events:
        mark = max(clock, state.watermark)
        close(mark - plan.lateness_us)
        if tick is None:
            continue

        places = [
            (builder, builder.misses(tick.event_time, mark - plan.lateness_us, plan)) for builder in builders
        ]
        late = [builder for builder, missed in places if missed]
        takers = [builder for builder, missed in places if missed is False]
        if late:
            out.append(_late(symbol, name, tick, late, clock, state.watermark))
            if not takers:
                continue

        if tick.event_time > state.watermark:
            state.watermark = tick.event_time
            close(tick.event_time - plan.lateness_us)
        if state.last_price is not None and tick.price != state.last_price:
            state.direction = 1 if tick.price > state.last_price else -1
        state.last_price = tick.price
        side = state.direction if tick.aggressor is None else 1 if tick.aggressor is Side.BUY else -1

        for builder in takers:
            for ordinal, bar in builder.take(tick, name, side):
                leave(bar, ordinal)

    state.open_bars = [
        bar for builder in builders if not isinstance(builder, Windows) for bar in builder.open_bars()
    ]
    state.open_bars += sorted(
        (bar for kind in windows for bar in kind.open_bars()),
        key=lambda bar: (bar.end, plan.numbers[bar.kind]),
    )
    state.builders = [
        builder.state for builder in builders if isinstance(builder, Builder) and builder.started()
    ]
    return state, out


def _is_active(plan: Plan, kind: str, start: int) -> bool:
    """Whether the settings in force at ``start`` name a kind."""
    return bool(plan.active[plan.version_of(np.array([start]))[0], plan.numbers[kind]])


class Windows:
    """Windows of UTC time."""

    def __init__(self, kind: Kind, bars: Iterable[OpenBar]) -> None:
        self.kind = kind
        self.bars = {bar.start: bar for bar in bars}

    def window(self, time: int) -> tuple[int, int] | None:
        """Start and end of the window that a time is in."""
        start = time - time % self.kind.size_us
        return start, start + self.kind.size_us

    def misses(self, time: int, through: int, plan: Plan) -> bool | None:
        """Whether the window of a time is closed, which ends at or before ``through``; None where it is in none."""
        window = self.window(time)
        if window is None or not _is_active(plan, self.kind.name, window[0]):
            return None
        return window[1] <= through

    def take(self, tick: Tick, name: str, side: int) -> list[tuple[int, OpenBar]]:
        """Add a tick; no window is closed by a tick that it takes."""
        window = self.window(tick.event_time)
        if window is not None:
            start, end = window
            if start not in self.bars:
                self.bars[start] = _open(self.kind.name, start, end, tick, name)
            _add(self.bars[start], tick, name, side)
        return []

    def due(self, through: int) -> list[OpenBar]:
        """Take out the windows that end at or before ``through``."""
        return [self.bars.pop(start) for start, bar in list(self.bars.items()) if bar.end <= through]

    def open_bars(self) -> list[OpenBar]:
        """What is not closed."""
        return list(self.bars.values())


class SessionWindows(Windows):
    """Windows of the sessions of an exchange."""

    def window(self, time: int) -> tuple[int, int] | None:
        for part_open, part_close, session_open, session_close in _parts_around(self.kind, time):
            if part_open <= time < part_close:
                if self.kind.name.startswith("time:1d@"):
                    return session_open, session_close
                start = time - (time - part_open) % self.kind.size_us
                return start, min(start + self.kind.size_us, part_close)
        return None


class Builder:
    """A kind whose bars are closed by ticks, not by time."""

    def __init__(self, kind: Kind, state: BuilderState | None, bar: OpenBar | None) -> None:
        self.kind = kind
        self.state = BuilderState(kind=kind.name) if state is None else state
        self.bar = bar

    def misses(self, time: int, through: int, plan: Plan) -> bool | None:
        """Whether a time is too far before the latest end of a closed bar; None where it counts in none."""
        is_within = self.bar is not None and time >= self.bar.start
        if not is_within and not _is_active(plan, self.kind.name, time):
            return None
        return time < self.state.mark - plan.lateness_us

    def take(self, tick: Tick, name: str, side: int) -> list[tuple[int, OpenBar]]:
        """Add a tick; returns the bars that it closes, with their ordinals."""
        if self.bar is None:
            self.bar = _open(self.kind.name, tick.event_time, tick.event_time, tick, name)
        _add(self.bar, tick, name, side)
        self.bar.start, self.bar.end = self.bar.first_time, self.bar.last_time
        return [self._leave(bar) for bar in self.complete(self.bar, tick, name, side)]

    def complete(self, bar: OpenBar, tick: Tick, name: str, side: int) -> list[OpenBar]:
        """The bars that leave now that ``tick`` was added to ``bar``."""
        raise NotImplementedError

    def _leave(self, bar: OpenBar) -> tuple[int, OpenBar]:
        ordinal = self.state.bars
        self.state.bars += 1
        self.state.mark = max(self.state.mark, bar.end)
        self.bar = None
        return ordinal, bar

    def started(self) -> bool:
        """Whether it ever took a tick."""
        return self.bar is not None or self.state.bars > 0

    def open_bars(self) -> list[OpenBar]:
        """The open bar, where there is one."""
        return [] if self.bar is None else [self.bar]


class Threshold(Builder):
    """Tick, volume and dollar bars."""

    def complete(self, bar: OpenBar, tick: Tick, name: str, side: int) -> list[OpenBar]:
        totals = {Measure.TICKS: bar.count, Measure.VOLUME: bar.volume, Measure.DOLLARS: bar.notional}
        total = totals[self.kind.measure]
        return [bar] if total >= self.kind.size else []


class Range(Builder):
    """Range bars."""

    def complete(self, bar: OpenBar, tick: Tick, name: str, side: int) -> list[OpenBar]:
        slack = min(2**-51 * bar.high, self.kind.size / 4)
        return [bar] if bar.high - bar.low >= self.kind.size - slack else []


class Renko(Builder):
    """Renko bars."""

    def complete(self, bar: OpenBar, tick: Tick, name: str, side: int) -> list[OpenBar]:
        state = self.state
        if state.base == 0.0:
            state.base = tick.price
        bricks: list[OpenBar] = []
        while (levels := self._next(tick.price)) is not None:
            if len(bricks) == 1000:
                state.base, state.bricks, state.direction = tick.price, 0, 0
                break
            begin, end = levels
            brick = bar if not bricks else _open(self.kind.name, tick.event_time, tick.event_time, tick, name)
            brick.open, brick.close = self._level(begin), self._level(end)
            brick.high, brick.low = max(brick.open, brick.close), min(brick.open, brick.close)
            bricks.append(brick)
            state.bricks, state.direction = end, end - begin
        return bricks

    def _level(self, bricks: int) -> float:
        return self.state.base + bricks * self.kind.size

    def _next(self, price: float) -> tuple[int, int] | None:
        """Where the next brick that the price makes begins and ends, in bricks from the base."""
        last = self.state.bricks
        distance, size = price - self.state.base, self.kind.size
        slack = min(2**-51 * max(price, self.state.base), size / 4)
        up = last + 1 if self.state.direction == -1 else last
        if distance >= (up + 1) * size - slack:
            return up, up + 1
        down = last - 1 if self.state.direction == 1 else last
        if distance <= (down - 1) * size + slack:
            return down, down - 1
        return None


class Information(Builder):
    """What imbalance and run bars have in common."""

    def complete(self, bar: OpenBar, tick: Tick, name: str, side: int) -> list[OpenBar]:
        state, first = self.state, self.kind.ticks
        weights = {Measure.TICKS: 1.0, Measure.VOLUME: tick.size, Measure.DOLLARS: tick.price * tick.size}
        weight = weights[self.kind.measure]
        if side == 1:
            state.buys += 1
            state.bought += weight
        elif side == -1:
            state.sells += 1
            state.sold += weight

        theta, expected = self.theta()
        if state.bars == 0:
            done = bar.count >= first
        else:
            done = (theta > 0.0 and theta >= state.expected_ticks * expected) or bar.count >= 10 * first
        if not done:
            return []

        if state.bars == 0:
            state.expected_ticks = float(first)
        else:
            moved = self.moved(state.expected_ticks, bar.count)
            state.expected_ticks = min(max(moved, first / 10), 10.0 * first)
        self.learn(bar.count)
        state.buys = state.sells = 0
        state.bought = state.sold = 0.0
        return [bar]

    def moved(self, average: float, newest: float) -> float:
        """An exponential average after one more bar."""
        return average + 2.0 / (self.kind.span + 1.0) * (newest - average)

    def theta(self) -> tuple[float, float]:
        """What the bar has come to, and what is expected per tick."""
        raise NotImplementedError

    def learn(self, ticks: int) -> None:
        """Take the bar, which is closed, into the expectations."""
        raise NotImplementedError


class Imbalance(Information):
    """Imbalance bars."""

    def theta(self) -> tuple[float, float]:
        return abs(self.state.bought - self.state.sold), abs(self.state.expected_imbalance)

    def learn(self, ticks: int) -> None:
        mean = (self.state.bought - self.state.sold) / ticks
        first = self.state.bars == 0
        self.state.expected_imbalance = mean if first else self.moved(self.state.expected_imbalance, mean)


class Run(Information):
    """Run bars."""

    def theta(self) -> tuple[float, float]:
        state = self.state
        expected = max(state.buy_share * state.expected_buy, (1.0 - state.buy_share) * state.expected_sell)
        return max(state.bought, state.sold), expected

    def learn(self, ticks: int) -> None:
        state = self.state
        if state.buys + state.sells:
            share = state.buys / (state.buys + state.sells)
            state.buy_share = share if state.bars == 0 else self.moved(state.buy_share, share)
        if state.buys:
            mean = state.bought / state.buys
            state.expected_buy = self.moved(state.expected_buy, mean) if state.expected_buy else mean
        if state.sells:
            mean = state.sold / state.sells
            state.expected_sell = self.moved(state.expected_sell, mean) if state.expected_sell else mean


_BUILDERS: dict[Family, type[Builder]] = {
    Family.THRESHOLD: Threshold,
    Family.RANGE: Range,
    Family.RENKO: Renko,
    Family.IMBALANCE: Imbalance,
    Family.RUN: Run,
}


def _builder(kind: Kind, state: SymbolState) -> Windows | Builder:
    bars = [bar for bar in state.open_bars if bar.kind == kind.name]
    if kind.family is Family.TIME:
        return Windows(kind, bars)
    if kind.family is Family.SESSION:
        return SessionWindows(kind, bars)
    known = next((builder for builder in state.builders if builder.kind == kind.name), None)
    return _BUILDERS[kind.family](kind, known, bars[0] if bars else None)


def _parts_around(kind: Kind, time: int) -> list[tuple[int, int, int, int]]:
    """The parts of sessions that may hold a time."""
    parts = _parts(kind)
    place = bisect.bisect_right(parts, (time, FAR, FAR, FAR))
    return parts[max(0, place - 1) : place]


FAR = 2**63


@functools.cache
def _parts(kind: Kind) -> list[tuple[int, int, int, int]]:
    parts: list[tuple[int, int, int, int]] = sessions.parts(kind.exchange, kind.name).tolist()
    return parts


def _open(kind: str, start: int, end: int, tick: Tick, name: str) -> OpenBar:
    """An empty bar at its first tick; the tick is counted afterwards like any other."""
    price, time = tick.price, tick.event_time
    return OpenBar(
        kind=kind,
        start=start,
        end=end,
        open=price,
        high=price,
        low=price,
        close=price,
        volume=0.0,
        notional=0.0,
        price_sum=0.0,
        count=0,
        buy_volume=0.0,
        sell_volume=0.0,
        first_time=time,
        last_time=time,
        first_tick=name,
        last_tick=name,
    )


def _add(bar: OpenBar, tick: Tick, name: str, side: int) -> None:
    bar.high = max(bar.high, tick.price)
    bar.low = min(bar.low, tick.price)
    if tick.event_time >= bar.last_time:
        bar.last_time, bar.close, bar.last_tick = tick.event_time, tick.price, name
    elif tick.event_time < bar.first_time:
        bar.first_time, bar.open, bar.first_tick = tick.event_time, tick.price, name
    bar.volume += tick.size
    bar.notional += tick.price * tick.size
    bar.price_sum += tick.price
    bar.count += 1
    bar.buy_volume += tick.size * (1 + side) / 2
    bar.sell_volume += tick.size * (1 - side) / 2


def _closed(bar: OpenBar, symbol: str, ordinal: int, settings: int) -> Bar:
    if bar.volume > 0.0:
        vwap = bar.notional / bar.volume
    elif bar.count > 0:
        vwap = bar.price_sum / bar.count
    else:
        vwap = bar.close
    return Bar(
        symbol=symbol,
        kind=bar.kind,
        start=bar.start,
        end=bar.end,
        ordinal=ordinal,
        open=bar.open,
        high=bar.high,
        low=bar.low,
        close=bar.close,
        volume=bar.volume,
        vwap=vwap,
        count=bar.count,
        buy_volume=bar.buy_volume,
        sell_volume=bar.sell_volume,
        first_tick=bar.first_tick,
        last_tick=bar.last_tick,
        settings=settings,
    )


def _late(
    symbol: str, name: str, tick: Tick, builders: Sequence[Windows | Builder], clock: int, watermark: int
) -> LateTick:
    """One late tick with all the kinds that it was late for."""
    marks = [builder.state.mark for builder in builders if isinstance(builder, Builder)]
    by_window = len(marks) < len(builders)
    by_clock = by_window and clock >= watermark
    return LateTick(
        symbol=symbol,
        name=name,
        tick=tick,
        kinds=tuple(builder.kind.name for builder in builders),
        mark=max(clock, watermark) if by_window else max(marks),
        reason="closed by the partition's clock" if by_clock else "closed by a later tick of the symbol",
    )
