"""Bars of quotes: by hand, and against the definition computed with fractions."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.records import Quote, QuoteBar
from schemas.states import QuoteState
from streams.quoting.bars import Event, LateQuote, Window, Windows, microprice, spread_bps, step
from tests.examples import DAY0, MINUTE, SECOND, quote

SECONDS = Window("time:1s", SECOND, ("u1",))
MINUTES = Window("time:1m", MINUTE, ("u1", "u2"))


def at(seconds: float, bid: float, ask: float, **over: float) -> Quote:
    return quote(time=DAY0 + int(seconds * SECOND), bid=bid, ask=ask, **over)


def fold(
    *quotes: Quote | int, windows: tuple[Window, ...] = (MINUTES,), lateness_us: int = 0
) -> list[QuoteBar | LateQuote]:
    """Quotes named by their place, and clocks (seconds after DAY0) between them."""
    clock, events = 0, []
    for place, each in enumerate(quotes):
        if isinstance(each, int):
            clock = DAY0 + each * SECOND
            events.append(Event(clock))
        else:
            events.append(Event(clock, each, f"q{place}", place))
    return step(QuoteState(), "A", events, Windows(windows, lateness_us, 1))[1]


def first(results: list[QuoteBar | LateQuote]) -> QuoteBar:
    assert isinstance(results[0], QuoteBar)
    return results[0]


def test_a_window_by_hand() -> None:
    results = fold(
        at(15, 99.0, 101.0), at(30, 99.5, 100.5), at(45, 100.0, 103.0, bid_size=3.0, ask_size=1.0), 60
    )
    bar = first(results)
    assert (bar.start, bar.end, bar.count, bar.settings) == (DAY0, DAY0 + MINUTE, 3, 1)
    assert (bar.open, bar.high, bar.low, bar.close) == (100.0, 101.5, 100.0, 101.5)
    # in force from 15 s on: 15 s of 2, 15 s of 1, 15 s of 3
    assert bar.spread == pytest.approx((15 * 2 + 15 * 1 + 15 * 3) / 45)
    assert bar.spread_bps == pytest.approx((15 * 2 / 100 + 15 * 1 / 100 + 15 * 3 / 101.5) / 45 * 1e4)
    assert (bar.spread_close, bar.bid, bar.ask, bar.bid_size, bar.ask_size) == (3.0, 100.0, 103.0, 3.0, 1.0)
    # three times as much wants to buy: nearer to the ask
    assert bar.microprice == 100.0 + 3 / 4 * 3
    assert (bar.first_quote, bar.last_quote) == ("q0", "q2")
    assert [(result.universe, result.symbol) for result in results if isinstance(result, QuoteBar)] == [
        ("u1", "A"),
        ("u2", "A"),
    ]


def test_the_quote_of_before_holds_until_the_first_of_the_window() -> None:
    second = fold(at(30, 99.0, 101.0), at(60 + 15, 99.5, 100.5), 120)[2]
    assert isinstance(second, QuoteBar)
    assert second.spread == pytest.approx((15 * 2 + 45 * 1) / 60)
    assert (second.open, second.count) == (100.0, 1)


def test_a_window_without_a_quote_makes_no_bar() -> None:
    starts = [bar.start for bar in fold(at(30, 99.0, 101.0), at(190, 99.0, 101.0), 600, windows=(SECONDS,))]  # type: ignore[union-attr]
    assert starts == [DAY0 + 30 * SECOND, DAY0 + 190 * SECOND]


def test_a_quote_behind_a_later_one_counts_but_was_never_in_force() -> None:
    bar = first(fold(at(20, 99.0, 101.0), at(10, 90.0, 100.0), 60))
    assert (bar.count, bar.open, bar.low, bar.close, bar.spread) == (2, 95.0, 95.0, 100.0, 2.0)
    assert (bar.first_quote, bar.last_quote, bar.bid) == ("q1", "q0", 99.0)


def test_of_two_at_the_same_time_the_later_to_come_is_in_force() -> None:
    bar = first(fold(at(20, 99.0, 101.0), at(20, 99.5, 100.5), 60))
    assert (bar.spread, bar.last_quote, bar.first_quote) == (1.0, "q1", "q0")


def test_a_later_quote_closes_a_window_and_so_does_the_clock() -> None:
    assert first(fold(at(20, 99.0, 101.0), at(60, 99.0, 101.0))).count == 1
    assert fold(at(20, 99.0, 101.0), 61, lateness_us=2 * SECOND) == []
    assert first(fold(at(20, 99.0, 101.0), 62, lateness_us=2 * SECOND)).count == 1


def test_a_late_quote_is_told_with_the_windows_that_were_closed() -> None:
    kinds = (SECONDS, MINUTES)
    results = fold(at(20, 99.0, 101.0), 30, at(20.5, 90.0, 92.0), 60, at(20.7, 1.0, 2.0), windows=kinds)
    assert [(r.place, r.kinds) for r in results if isinstance(r, LateQuote)] == [
        (2, ("time:1s",)),
        (4, ("time:1s", "time:1m")),
    ]
    minute = [r for r in results if isinstance(r, QuoteBar) and r.kind == "time:1m"]
    assert [bar.count for bar in minute] == [2, 2]


def test_bars_that_close_together_leave_by_end_then_in_the_order_of_the_kinds() -> None:
    results = fold(at(58.5, 99.0, 101.0), at(59.5, 99.0, 101.0), 60, windows=(MINUTES, SECONDS))
    assert [(r.kind, r.universe) for r in results if isinstance(r, QuoteBar)] == [
        ("time:1s", "u1"),
        ("time:1m", "u1"),
        ("time:1m", "u2"),
        ("time:1s", "u1"),
    ]


def test_figures_of_a_quote() -> None:
    assert microprice(10.0, 0.0, 11.0, 0.0) == 10.5
    assert microprice(10.0, 1.0, 11.0, 0.0) == 11.0
    assert spread_bps(99.0, 101.0) == 200.0
    assert spread_bps(10.0, 10.0) == 0.0


prices = st.integers(1, 10**6).map(lambda cents: cents / 100)
sizes = st.floats(0.0, 1e15)


@given(prices, prices, sizes, sizes)
def test_figures_stay_between_bid_and_ask(one: float, other: float, bid_size: float, ask_size: float) -> None:
    bid, ask = min(one, other), max(one, other)
    assert bid <= microprice(bid, bid_size, ask, ask_size) <= ask * (1 + 1e-15)
    assert 0.0 <= spread_bps(bid, ask) < 20_000.0


@given(st.lists(st.tuples(st.integers(0, 200), prices, prices), min_size=1, max_size=30))
def test_the_mean_spread_is_what_its_definition_says(drawn: list[tuple[int, float, float]]) -> None:
    quotes = [at(s, min(a, b), max(a, b)) for s, a, b in sorted(drawn, key=lambda entry: entry[0])]
    bars = [bar for bar in fold(*quotes, 10**6) if isinstance(bar, QuoteBar) and bar.universe == "u1"]
    held = [
        (earlier.event_time, later.event_time, Fraction(earlier.ask) - Fraction(earlier.bid))
        for earlier, later in pairwise([*quotes, at(10**6, 1.0, 1.0)])
    ]
    assert [bar.start for bar in bars] == sorted({q.event_time // MINUTE * MINUTE for q in quotes})
    for bar in bars:
        parts = [
            (max(begin, bar.start), min(end, bar.end), spread)
            for begin, end, spread in held
            if begin < bar.end and end > bar.start
        ]
        time_us = sum(end - begin for begin, end, _ in parts)
        mean = sum((end - begin) * spread for begin, end, spread in parts) / time_us
        assert bar.spread == pytest.approx(float(mean), rel=1e-12, abs=1e-12)
