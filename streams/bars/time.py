"""Time bars: windows of fixed length, aligned to the epoch (so a day is a UTC day).

A window [start, end) is closed once the highest time of a tick of its symbol, or the partition's clock, is at
or past ``end + lateness``, whether or not it had a tick. A later tick for it goes to the late topic. Kinds
close on their own: a tick that is late for 1-second bars may still be in time for 5-minute bars. Then it goes
to the late topic once, with the kinds that had closed, and counts in those that are open. A tick that is late
for every kind leaves no other trace: it moves neither the watermark nor the tick rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from schemas.records import Bar, LateTick, Side, Tick
from schemas.states import OpenBar, SymbolState
from streams.errors import UnknownKind

Event = tuple[int, Tick | None, str]
"""The partition's clock at this place (µs), the tick with its name, or None: a clock without a tick."""

FOREVER: Final = 2**62
_UNITS_US: Final = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}


def parse(kind: str) -> int:
    """Length in µs of the windows of ``kind``: ``time:<count><s|m|h|d>``.

    Raises:
        UnknownKind: anything else.
    """
    match = re.fullmatch(r"time:([1-9][0-9]{0,5})([smhd])", kind)
    if match is None:
        raise UnknownKind(kind)
    return int(match[1]) * _UNITS_US[match[2]]


class Windows(NamedTuple):
    """The kinds to build, in the order of the settings, and how long they wait."""

    kinds: tuple[str, ...]
    sizes_us: tuple[int, ...]
    lateness_us: int
    settings: int

    @classmethod
    def of(cls, kinds: Sequence[str], lateness_us: int, settings: int) -> Windows:
        """Parse ``kinds``; ``settings`` is the version that the bars will name."""
        return cls(tuple(kinds), tuple(parse(kind) for kind in kinds), lateness_us, settings)


def step(
    state: SymbolState, symbol: str, events: Iterable[Event], windows: Windows
) -> tuple[SymbolState, list[Bar | LateTick]]:
    """Fold one symbol's events into its open windows.

    Events are in order of arrival; a tick's own clock is already in force when the tick comes. Outputs are in
    order of the events; bars that close together are sorted by (end, order of the kinds).

    Open and close are by event time: the earliest tick and the latest, ties in order of arrival. A tick's
    side is its aggressor's where the source tells, else the direction of the last change of price in order of
    arrival (the tick rule: Lee & Ready 1991); before any change its size is split in half.
    """
    kinds, sizes, lateness, _ = windows
    out: list[Bar | LateTick] = []
    bars = state.open_bars
    current = _current(bars, kinds)
    next_end = min((bar.end for bar in bars), default=FOREVER)
    watermark, last_price, direction = state.watermark, state.last_price, state.direction

    for clock, tick, name in events:
        # Windows that end at or before `through` are closed.
        through = (clock if clock > watermark else watermark) - lateness
        if through >= next_end:
            next_end = _close(bars, through, symbol, windows, out)
            current = _current(bars, kinds)
        if tick is None:
            continue
        time = tick.event_time
        late: tuple[str, ...] = ()
        if time < through:
            ends = [time // size * size + size for size in sizes]
            late = tuple(kind for kind, end in zip(kinds, ends, strict=True) if end <= through)
            if late:
                out.append(_late(symbol, name, tick, late, clock, watermark))
                if len(late) == len(kinds):
                    continue
        if time > watermark:
            watermark = time
            if time - lateness >= next_end:
                next_end = _close(bars, time - lateness, symbol, windows, out)
                current = _current(bars, kinds)

        price, size = tick.price, tick.size
        notional = price * size
        if last_price is not None:
            if price > last_price:
                direction = 1
            elif price < last_price:
                direction = -1
        last_price = price
        aggressor = tick.aggressor
        side = direction if aggressor is None else 1 if aggressor is Side.BUY else -1

        for i, bar in enumerate(current):
            if bar is None or not bar.start <= time < bar.end:
                if late and kinds[i] in late:
                    continue
                start = time // sizes[i] * sizes[i]
                bar = _find(bars, kinds[i], start)
                if bar is None:
                    bar = _open(kinds[i], start, start + sizes[i], time, price, name)
                    bars.append(bar)
                    if bar.end < next_end:
                        next_end = bar.end
                current[i] = bar
            if price > bar.high:
                bar.high = price
            elif price < bar.low:
                bar.low = price
            if time >= bar.last_time:
                bar.last_time = time
                bar.close = price
                bar.last_tick = name
            elif time < bar.first_time:
                bar.first_time = time
                bar.open = price
                bar.first_tick = name
            bar.volume += size
            bar.notional += notional
            bar.price_sum += price
            bar.count += 1
            if side > 0:
                bar.buy_volume += size
            elif side < 0:
                bar.sell_volume += size
            else:
                bar.buy_volume += size / 2
                bar.sell_volume += size / 2

    state.watermark, state.last_price, state.direction = watermark, last_price, direction
    return state, out


def _current(bars: Sequence[OpenBar], kinds: Sequence[str]) -> list[OpenBar | None]:
    """The newest open window of each kind: where the next tick most likely goes."""
    newest = {bar.kind: bar for bar in bars}
    return [newest.get(kind) for kind in kinds]


def _find(bars: Sequence[OpenBar], kind: str, start: int) -> OpenBar | None:
    for bar in bars:
        if bar.start == start and bar.kind == kind:
            return bar
    return None


def _open(kind: str, start: int, end: int, time: int, price: float, name: str) -> OpenBar:
    """An empty window at its first tick; the tick is counted afterwards like any other."""
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


def _close(
    bars: list[OpenBar], through: int, symbol: str, windows: Windows, out: list[Bar | LateTick]
) -> int:
    """Move windows that end at or before ``through`` from ``bars`` to ``out``; the next end, or FOREVER."""
    due = [bar for bar in bars if bar.end <= through]
    bars[:] = [bar for bar in bars if bar.end > through]
    if len(due) > 1:
        order = windows.kinds.index
        due.sort(key=lambda bar: (bar.end, order(bar.kind)))
    for bar in due:
        out.append(
            Bar(
                symbol=symbol,
                kind=bar.kind,
                start=bar.start,
                end=bar.end,
                open=bar.open,
                high=bar.high,
                low=bar.low,
                close=bar.close,
                volume=bar.volume,
                vwap=bar.notional / bar.volume if bar.volume > 0.0 else bar.price_sum / bar.count,
                count=bar.count,
                buy_volume=bar.buy_volume,
                sell_volume=bar.sell_volume,
                first_tick=bar.first_tick,
                last_tick=bar.last_tick,
                settings=windows.settings,
            )
        )
    return min((bar.end for bar in bars), default=FOREVER)


def _late(symbol: str, name: str, tick: Tick, kinds: tuple[str, ...], clock: int, watermark: int) -> LateTick:
    by_clock = clock >= watermark
    return LateTick(
        symbol=symbol,
        name=name,
        tick=tick,
        kinds=kinds,
        mark=clock if by_clock else watermark,
        reason="closed by the partition's clock" if by_clock else "closed by a later tick of the symbol",
    )
