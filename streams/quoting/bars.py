"""Bars of quotes: windows of fixed length, aligned to the epoch as those of trades, and closed by the same rule.

A window [start, end) is closed once the highest time of a quote of its symbol, or the partition's clock, is at or past
``end + lateness``. Only a window in which a quote came makes a bar.

A quote is *in force* from its time until the next one's. The spread of a bar is the mean over the time that a quote was
in force in its window, each weighted with how long it was (McInish & Wood, Journal of Finance 47, 1992): from
the window's start where a quote of before still held then, else from its first quote. A quote that comes behind a
later one was never in force here: it counts, and makes highs and lows, but has no weight in the mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from schemas.records import Quote, QuoteBar
from schemas.states import OpenQuoteBar, QuoteState

MAX_SPREAD_BPS: Final = 20_000.0
"""Of the mid: no quote whose bid is above 0 has a wider spread."""


class Window(NamedTuple):
    """A kind of windows, their length, and the universes that take their bars."""

    kind: str
    size_us: int
    universes: tuple[str, ...]


class Windows(NamedTuple):
    """The windows of one symbol, how long they wait, and the version of the settings that the bars will name.

    ``later`` are the windows under further versions, each with the time (µs) at or after which it holds for windows.
    """

    each: tuple[Window, ...]
    lateness_us: int
    settings: int
    later: tuple[tuple[int, Windows], ...] = ()

    def at(self, start: int) -> Windows:
        """What holds for a window that starts at ``start``."""
        for begins, windows in reversed(self.later):
            if begins <= start:
                return windows
        return self

    def of(self, time: int) -> list[tuple[Window, int]]:
        """The windows that ``time`` is in, with their starts."""
        if not self.later:
            return [(window, _start(time, window)) for window in self.each]
        return [
            (window, start) for window in self.all() if window in self.at(start := _start(time, window)).each
        ]

    def all(self) -> list[Window]:
        """The windows of all versions, each once."""
        return list(dict.fromkeys([*self.each, *(w for _, windows in self.later for w in windows.each)]))


class Event(NamedTuple):
    """The partition's clock at this place (µs); a quote with its name, or None: a clock without a quote.

    ``place`` is the caller's, to know a late quote by.
    """

    clock: int
    quote: Quote | None = None
    name: str = ""
    place: int = -1


class LateQuote(NamedTuple):
    """A quote that came after windows of ``kinds`` had closed, those that end by ``through``."""

    place: int
    name: str
    kinds: tuple[str, ...]
    through: int


def step(
    state: QuoteState, symbol: str, events: Iterable[Event], windows: Windows
) -> tuple[QuoteState, list[QuoteBar | LateQuote]]:
    """Fold one symbol's events into its open windows.

    Events are in order of arrival; a quote's own clock is already in force when it comes. Bars that close together are
    in order of (end, windows), each once for every universe of its kind. Open and close are by event time, ties in
    order of arrival. A quote that is late for every kind leaves no trace.
    """
    out: list[QuoteBar | LateQuote] = []
    lateness = windows.lateness_us
    for clock, quote, name, place in events:
        through = max(clock, state.watermark) - lateness
        _close(state, symbol, through, windows, out)
        if quote is None:
            continue
        time = quote.event_time
        its_windows = windows.of(time)
        late = tuple(w.kind for w, start in its_windows if start + w.size_us <= through)
        if late:
            out.append(LateQuote(place, name, late, through))
            if len(late) == len(its_windows):
                continue
        _close(state, symbol, time - lateness, windows, out)
        for window, _ in its_windows:
            if window.kind not in late:
                _add(state, window, quote, name)
        if time >= state.watermark:
            state.watermark, state.bid, state.ask = time, quote.bid, quote.ask
    return state, out


def mid(bid: float, ask: float) -> float:
    """Half way between bid and ask."""
    return (bid + ask) / 2.0


def microprice(bid: float, bid_size: float, ask: float, ask_size: float) -> float:
    """The mid weighted by the sizes of the other sides, quote currency per unit; the mid where both sizes are 0.

        (ask * bid_size + bid * ask_size) / (bid_size + ask_size)

    The weighted mid-price, from which Stoikov's microprice sets out (The micro-price: a high-frequency estimator of
    future prices, Quantitative Finance 18, 2018); computed as bid + imbalance * spread, which stays between the two.
    """
    size = bid_size + ask_size
    return bid + bid_size / size * (ask - bid) if size > 0.0 else mid(bid, ask)


def spread_bps(bid: float, ask: float) -> float:
    """The spread in basis points of the mid, 0 to `MAX_SPREAD_BPS`."""
    return (ask - bid) / mid(bid, ask) * 10_000.0


def _start(time: int, window: Window) -> int:
    return time // window.size_us * window.size_us


def _add(state: QuoteState, window: Window, quote: Quote, name: str) -> None:
    time, bid, ask = quote.event_time, quote.bid, quote.ask
    price, start = mid(bid, ask), _start(time, window)
    bar = next((b for b in state.open_bars if b.start == start and b.kind == window.kind), None)
    if bar is None:
        bar = _open(state, window, quote, name)
        state.open_bars.append(bar)
    bar.count += 1
    bar.high = max(bar.high, price)
    bar.low = min(bar.low, price)
    if time >= bar.last_time:
        bar.spread_time, bar.bps_time = _weighed(bar, time)
        bar.last_time, bar.last_quote = time, name
        bar.bid, bar.bid_size, bar.ask, bar.ask_size = bid, quote.bid_size, ask, quote.ask_size
    elif time < bar.first_time:
        bar.first_time, bar.first_quote, bar.open = time, name, price


def _open(state: QuoteState, window: Window, quote: Quote, name: str) -> OpenQuoteBar:
    """An empty window at its first quote; the quote is counted afterwards like any other."""
    time, start = quote.event_time, _start(quote.event_time, window)
    price = mid(quote.bid, quote.ask)
    bar = OpenQuoteBar(
        kind=window.kind,
        start=start,
        end=start + window.size_us,
        count=0,
        open=price,
        high=price,
        low=price,
        first_time=time,
        last_time=time,
        first_quote=name,
        last_quote=name,
        bid=quote.bid,
        bid_size=quote.bid_size,
        ask=quote.ask,
        ask_size=quote.ask_size,
        weighed_from=time,
        spread_time=0.0,
        bps_time=0.0,
    )
    if state.ask > 0.0 and state.watermark < start:
        bar.weighed_from = start
        bar.spread_time = (state.ask - state.bid) * (time - start)
        bar.bps_time = spread_bps(state.bid, state.ask) * (time - start)
    return bar


def _weighed(bar: OpenQuoteBar, until: int) -> tuple[float, float]:
    """The sums with the last quote in force up to ``until``."""
    in_force_us = until - bar.last_time
    return (
        bar.spread_time + (bar.ask - bar.bid) * in_force_us,
        bar.bps_time + spread_bps(bar.bid, bar.ask) * in_force_us,
    )


def _close(
    state: QuoteState, symbol: str, through: int, windows: Windows, out: list[QuoteBar | LateQuote]
) -> None:
    """Move windows that end at or before ``through`` from the state to ``out``."""
    due = [bar for bar in state.open_bars if bar.end <= through]
    if not due:
        return
    state.open_bars = [bar for bar in state.open_bars if bar.end > through]
    order = {window.kind: number for number, window in reversed(list(enumerate(windows.all())))}
    for bar in sorted(due, key=lambda bar: (bar.end, order.get(bar.kind, len(order)))):
        under = windows.at(bar.start)
        for window in under.each:
            if window.kind == bar.kind:
                out += (_closed(bar, symbol, universe, under) for universe in window.universes)


def _closed(bar: OpenQuoteBar, symbol: str, universe: str, windows: Windows) -> QuoteBar:
    spread_time, bps_time = _weighed(bar, bar.end)
    weighed_us = bar.end - bar.weighed_from
    return QuoteBar(
        universe=universe,
        symbol=symbol,
        kind=bar.kind,
        start=bar.start,
        end=bar.end,
        count=bar.count,
        open=bar.open,
        high=bar.high,
        low=bar.low,
        close=mid(bar.bid, bar.ask),
        spread=spread_time / weighed_us,
        spread_bps=bps_time / weighed_us,
        spread_close=bar.ask - bar.bid,
        microprice=microprice(bar.bid, bar.bid_size, bar.ask, bar.ask_size),
        bid=bar.bid,
        bid_size=bar.bid_size,
        ask=bar.ask,
        ask_size=bar.ask_size,
        first_quote=bar.first_quote,
        last_quote=bar.last_quote,
        settings=windows.settings,
    )
