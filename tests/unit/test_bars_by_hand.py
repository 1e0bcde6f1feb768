"""Every kind that is no window of time on a handful of ticks, with the arithmetic; through kernel and twin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from schemas.records import NEVER, Bar, LateTick, Side
from schemas.states import BuilderState, SymbolState
from streams.bars import plain
from streams.bars.plain import Event
from tests.examples import DAY0, MINUTE, SECOND, tick
from tests.kernel_bars import both


def at(seconds: float, price: float, size: float, aggressor: Side | None = None) -> Event:
    """A tick named s/<its time in ms>."""
    time_us = int(seconds * SECOND)
    item = tick(time=DAY0 + time_us, price=price, size=size, aggressor=aggressor)
    return NEVER, item, f"s/{time_us // 1000}"


def in_order(*prices_and_sizes: tuple[float, float]) -> list[Event]:
    """Ticks a second apart."""
    return [at(place, price, size) for place, (price, size) in enumerate(prices_and_sizes)]


def bars(events: Sequence[Event], kind: str, state: SymbolState | None = None) -> list[Bar]:
    return [result for result in both(events, [kind], state=state) if isinstance(result, Bar)]


def shape(bar: Bar, *fields: str) -> tuple[Any, ...]:
    return tuple(getattr(bar, field) for field in fields)


def test_a_tick_bar_has_all_fields() -> None:
    first, second = bars(
        [
            at(2, 10.0, 1.0),  # no change yet: half and half
            at(1, 12.0, 2.0),  # up, but the earliest: the open
            at(4, 11.0, 4.0),  # down, the latest: the close, and the bar is complete
            at(5, 10.0, 0.0),
            at(5, 14.0, 0.0),
            at(5, 12.0, 0.0),
            at(6, 13.0, 1.0),
        ],
        "tick:3",
    )
    assert first == Bar(
        symbol="A",
        kind="tick:3",
        start=DAY0 + 1 * SECOND,
        end=DAY0 + 4 * SECOND,
        ordinal=0,
        open=12.0,
        high=12.0,
        low=10.0,
        close=11.0,
        volume=7.0,
        vwap=(10.0 + 24.0 + 44.0) / 7.0,
        count=3,
        buy_volume=0.5 + 2.0,
        sell_volume=0.5 + 4.0,
        first_tick="s/1000",
        last_tick="s/4000",
        settings=1,
    )
    assert shape(second, "ordinal", "vwap", "open", "close", "count") == (1, 36.0 / 3, 10.0, 12.0, 3)


def test_volume_and_dollar_bars_end_with_the_tick_that_reaches_the_threshold_whole() -> None:
    events = in_order((10.0, 3.0), (10.0, 6.9), (20.0, 5.0), (10.0, 10.0), (10.0, 9.0))
    # Volumes: 3, 9.9, 14.9 ≥ 10; 10 ≥ 10; 9 stays open.
    assert [shape(bar, "count", "volume") for bar in bars(events, "volume:10")] == [
        (3, 3.0 + 6.9 + 5.0),
        (1, 10.0),
    ]
    # Dollars: 30, 99 < 100, 199; 100 ≥ 100; 90 stays open.
    assert [shape(bar, "count", "end") for bar in bars(events, "dollar:100")] == [
        (3, DAY0 + 2 * SECOND),
        (1, DAY0 + 3 * SECOND),
    ]


def test_range_bars_close_on_decimals_that_doubles_miss() -> None:
    assert 100.3 - 100.0 < 0.3
    events = in_order((100.0, 1.0), (100.29, 1.0), (100.3, 1.0), (100.3, 1.0), (90.0, 1.0), (90.0, 1.0))
    closed = bars(events, "range:0.3")
    # 0.29 is not enough; a fall of 10.3 is one bar, not thirty-four.
    assert [shape(bar, "low", "high", "count") for bar in closed] == [(100.0, 100.3, 3), (90.0, 100.3, 2)]


def test_renko_bricks_go_on_after_one_size_and_turn_after_two() -> None:
    closed = bars(
        in_order(
            (10.0, 1.0),  # the base
            (10.9, 1.0),
            (11.0, 1.0),  # 10 → 11
            (10.0, 1.0),  # 9 would turn: nothing
            (9.1, 1.0),
            (9.0, 1.0),  # 10 → 9, past 11 → 10
            (10.0, 1.0),
            (11.0, 1.0),  # two above 9: 10 → 11
        ),
        "renko:1",
    )
    assert [shape(bar, "open", "close", "low", "high", "count", "ordinal") for bar in closed] == [
        (10.0, 11.0, 10.0, 11.0, 3, 0),
        (10.0, 9.0, 9.0, 10.0, 3, 1),
        (10.0, 11.0, 10.0, 11.0, 2, 2),
    ]


def test_several_bricks_of_one_tick_and_what_the_further_ones_hold() -> None:
    closed = bars(
        [at(0, 10.0, 1.0), at(2, 12.6, 3.0), at(2.5, 10.1, 4.0), at(3, 10.2, 1.0), at(4, 9.9, 1.0)], "renko:1"
    )
    fields = ("open", "close", "count", "volume", "vwap", "start", "end", "first_tick", "last_tick")
    assert [shape(bar, *fields) for bar in closed] == [
        (10.0, 11.0, 2, 4.0, (10.0 + 12.6 * 3.0) / 4.0, DAY0, DAY0 + 2 * SECOND, "s/0", "s/2000"),
        (11.0, 12.0, 0, 0.0, 12.0, DAY0 + 2 * SECOND, DAY0 + 2 * SECOND, "s/2000", "s/2000"),
        # Down from 12: 10 turns. 10.1 and 10.2 are short of it, 9.9 is not.
        (
            11.0,
            10.0,
            3,
            6.0,
            (10.1 * 4.0 + 10.2 + 9.9) / 6.0,
            DAY0 + 5 * SECOND // 2,
            DAY0 + 4 * SECOND,
            "s/2500",
            "s/4000",
        ),
    ]
    assert [bar.buy_volume + bar.sell_volume for bar in closed] == [4.0, 0.0, 6.0]


def test_bricks_on_decimals_do_not_drift() -> None:
    prices = [100 + cents / 100 for cents in range(0, 1000)]
    closed = bars(in_order(*((price, 1.0) for price in prices)), "renko:0.01")
    assert [bar.close for bar in closed] == [pytest.approx(price, abs=1e-12) for price in prices[1:]]
    assert [bar.count for bar in closed] == [2] + [1] * 998


def test_a_price_from_nowhere_makes_a_thousand_bricks_and_a_new_grid() -> None:
    state = SymbolState()
    at_most = bars(in_order((10.0, 1.0), (1010.0, 1.0)), "renko:1", state)
    assert [bar.close for bar in at_most] == [11.0 + n for n in range(1000)]
    assert (state.builders[0].base, state.builders[0].bricks) == (10.0, 1000)

    state = SymbolState()
    beyond = bars([*in_order((10.0, 1.0), (1e15, 1.0)), at(2, 1e15, 1.0), at(3, 10.0, 1.0)], "renko:1", state)
    assert [bar.close for bar in beyond[:1000]] == [11.0 + n for n in range(1000)]
    assert len(beyond) == 2000  # the next price from nowhere: down from the new base, again a thousand
    assert beyond[1000].open == 1e15
    assert beyond[1000].count == 2
    assert (state.builders[0].base, state.builders[0].bricks, state.builders[0].direction) == (10.0, 0, 0)
    assert state.builders[0].bars == 2000


@pytest.mark.parametrize("kind", ["renko:0.01", "range:0.01"])
def test_where_a_double_cannot_tell_the_size_apart_an_unmoved_price_makes_nothing(kind: str) -> None:
    assert 1e15 + 0.01 == 1e15
    assert bars(in_order((1e15, 1.0), (1e15, 1.0), (1e15, 1.0)), kind) == []
    assert len(bars(in_order((1e15, 1.0), (1e15 + 0.125, 1.0)), kind)) == (12 if kind == "renko:0.01" else 1)


def test_tick_imbalance_bars() -> None:
    state = SymbolState()
    up, down, flat = 1.0, -1.0, 0.0

    def path(*moves: float) -> list[Event]:
        prices, events = 100.0, []
        for second, move in enumerate(moves):
            prices += move
            events.append(at(second, prices, 1.0))
        return events

    # α = 2 / (3 + 1) = 0.5, T₀ = 4.
    # Bar 0, warm-up: sides 0 (no change yet), 1, 1, -1: θ = 1 after 4 ticks. E[T] = 4, E[b] = 1/4.
    # Bar 1: expected 4 · 1/4 = 1: the first tick, side -1, |θ| = 1 ≥ 1. E[T] = 4 + 0.5 (1 - 4) = 2.5,
    #        E[b] = 0.25 + 0.5 (-1 - 0.25) = -0.375.
    # Bar 2: expected 2.5 · 0.375 = 0.9375: sides 1 → θ = 1: closed. E[T] = 1.75, E[b] = -0.375 + 0.5 · 1.375 = 0.3125.
    # Bar 3: expected 1.75 · 0.3125 = 0.546875: side 1 (flat: carried): closed. E[T] = 1.375, E[b] = 0.65625.
    # Bar 4: expected 1.375 · 0.65625 = 0.902…: side -1: closed. E[T] = 1.1875, E[b] = -0.171875.
    closed = bars(path(flat, up, up, down, down, up, flat, down), "tick-imbalance:4:3", state)
    assert [bar.count for bar in closed] == [4, 1, 1, 1, 1]
    (builder,) = state.builders
    assert (builder.expected_ticks, builder.expected_imbalance) == (1.1875, -0.171875)


def test_volume_imbalance_waits_for_what_is_expected_and_knows_the_aggressor() -> None:
    state = SymbolState()
    events = [
        at(0, 10.0, 6.0, Side.BUY),
        at(1, 10.0, 2.0, Side.SELL),  # T₀ = 2: θ = 4, E[T] = 2, E[bv] = 2
        at(2, 10.0, 1.0, Side.SELL),  # expected 2 · 2 = 4: θ = -1
        at(3, 10.0, 3.0, Side.BUY),  # 2
        at(4, 10.0, 1.5, Side.BUY),  # 3.5
        at(5, 10.0, 0.5, Side.BUY),  # 4.0 ≥ 4: closed with T = 4
        at(6, 10.0, 1.0, Side.SELL),  # α = 1: E[T] = 4, E[bv] = 4/4 = 1, expected 4
    ]
    assert [bar.count for bar in bars(events, "volume-imbalance:2:1", state)] == [2, 4]
    (builder,) = state.builders
    assert (builder.expected_ticks, builder.expected_imbalance) == (4.0, 1.0)
    assert (builder.buys, builder.sells, builder.bought, builder.sold) == (0, 1, 0.0, 1.0)


def test_dollar_imbalance_weighs_by_price_times_size() -> None:
    events = [
        at(0, 10.0, 1.0, Side.BUY),  # T₀ = 1: θ = 10, E[T] = 1, E = 10
        at(1, 4.0, 2.0, Side.SELL),  # 8 < 10
        at(2, 1.0, 1.0, Side.SELL),  # 9
        at(3, 2.0, 0.5, Side.SELL),  # 10
    ]
    assert [bar.count for bar in bars(events, "dollar-imbalance:1")] == [1, 3]


def test_an_information_bar_ends_after_ten_times_the_ticks_of_the_first_at_the_latest() -> None:
    block = [at(0, 10.0, 1e9, Side.BUY)]  # T₀ = 1: from here on a billion is expected
    after = [at(1 + n, 10.0, 1.0, Side.BUY) for n in range(25)]
    for kind in ("volume-imbalance:1", "volume-run:1"):
        state = SymbolState()
        assert [bar.count for bar in bars(block + after, kind, state)] == [1, 10, 10]
        assert state.builders[0].expected_ticks == pytest.approx(1 + 2 / 21 * 9 + 2 / 21 * (9 - 2 / 21 * 9))


def test_expected_ticks_stay_above_a_tenth_of_the_first() -> None:
    kind = "tick-imbalance:100:1"
    state = SymbolState(
        builders=[BuilderState(kind=kind, bars=1, expected_ticks=100.0, expected_imbalance=0.005)]
    )
    # Expected 100 · 0.005 = 0.5: the first tick closes. With α = 1, E[T] would be 1; a tenth of 100 is 10.
    (bar,) = bars([at(0, 10.0, 1.0, Side.BUY)], kind, state)
    assert (bar.count, bar.ordinal) == (1, 1)
    assert (state.builders[0].expected_ticks, state.builders[0].expected_imbalance) == (10.0, 1.0)
    # Expected 10 · 1: nine buys are not enough.
    more = [at(1 + n, 10.0, 1.0, Side.BUY) for n in range(10)]
    assert [bar.count for bar in bars(more, kind, state)] == [10]


def test_nothing_on_balance_closes_no_bar_even_where_nothing_is_expected() -> None:
    kind = "volume-imbalance:3"
    state = SymbolState(builders=[BuilderState(kind=kind, bars=1, expected_ticks=3.0)])
    events = [at(0, 10.0, 0.0, Side.BUY), at(1, 10.0, 0.0, Side.SELL), at(2, 10.0, 0.5, Side.SELL)]
    assert [bar.count for bar in bars(events, kind, state)] == [3]


def test_tick_run_bars_count_a_side_across_ticks_of_the_other() -> None:
    state = SymbolState()
    buy, sell = Side.BUY, Side.SELL
    sides = [None, buy, buy, sell, sell, buy, sell, buy, sell, sell, sell]
    # α = 2 / (3 + 1) = 0.5, T₀ = 4. Bar 0: two buys, one sell of four: E[T] = 4, P = 2/3, E[1|±1] = 1.
    # Bar 1: expected 4 · 2/3 = 2.67; sell, buy, sell, buy, sell: the third sell closes, T = 5.
    #        E[T] = 4 + 0.5 · 1 = 4.5, P = 2/3 + 0.5 (2/5 - 2/3) = 8/15; expected 4.5 · 8/15 = 2.4: two sells are open.
    events = [at(n, 10.0, 7.0, side) for n, side in enumerate(sides)]
    assert [bar.count for bar in bars(events, "tick-run:4:3", state)] == [4, 5]
    (builder,) = state.builders
    assert builder.expected_ticks == 4.5
    assert builder.buy_share == pytest.approx(8 / 15)
    assert (builder.expected_buy, builder.expected_sell, builder.buys, builder.sells) == (1.0, 1.0, 0, 2)


def test_volume_run_bars_expect_of_each_side_what_its_ticks_weigh() -> None:
    state = SymbolState()
    events = [
        at(0, 10.0, 4.0, Side.BUY),
        at(1, 10.0, 2.0, Side.BUY),
        at(2, 10.0, 1.0, Side.SELL),  # T₀ = 3: P = 2/3, E[v|1] = 3, E[v|-1] = 1: expected 3 · max(2, 1/3) = 6
        at(3, 10.0, 5.0, Side.SELL),
        at(4, 10.0, 4.0, Side.BUY),
        at(5, 10.0, 1.0, Side.SELL),  # sold 6 ≥ 6: closed
        at(
            6, 10.0, 9.0, Side.BUY
        ),  # α = 1: P = 1/3, E[v|1] = 4, E[v|-1] = 3: expected 3 · max(4/3, 2) = 6: closed
    ]
    assert [bar.count for bar in bars(events, "volume-run:3:1", state)] == [3, 3, 1]
    (builder,) = state.builders
    assert (builder.buy_share, builder.expected_buy, builder.expected_sell) == (1.0, 9.0, 3.0)


def test_dollar_run_without_a_side_keeps_an_even_share() -> None:
    state = SymbolState()
    assert [bar.count for bar in bars([at(0, 10.0, 1.0), at(1, 10.0, 1.0)], "dollar-run:2", state)] == [2]
    (builder,) = state.builders
    assert (builder.buy_share, builder.expected_buy, builder.expected_sell) == (0.5, 0.0, 0.0)


def test_a_tick_before_the_last_closed_bar_is_late_by_more_than_the_lateness() -> None:
    closing = [at(10, 10.0, 1.0), at(20, 11.0, 1.0)]
    results = both(
        [*closing, at(18, 12.0, 1.0), at(17.999, 13.0, 1.0), at(19, 9.0, 1.0)], ["tick:2"], 2 * SECOND
    )
    late = [result for result in results if isinstance(result, LateTick)]
    assert [(each.name, each.kinds, each.mark) for each in late] == [
        ("s/17999", ("tick:2",), DAY0 + 20 * SECOND)
    ]
    assert "later tick" in late[0].reason
    second = results[-1]
    assert isinstance(second, Bar)
    assert shape(second, "start", "end", "high", "count") == (DAY0 + 18 * SECOND, DAY0 + 19 * SECOND, 12.0, 2)
    # Its end is before that of the first; what is late is still measured from the first's.
    again = both([*closing, at(18, 1.0, 1.0), at(19, 1.0, 1.0), at(17.5, 1.0, 1.0)], ["tick:2"], 2 * SECOND)
    assert isinstance(again[-1], LateTick)
    assert again[-1].mark == DAY0 + 20 * SECOND


def test_one_late_row_names_all_kinds_and_the_others_take_the_tick() -> None:
    kinds = ["tick:1", "time:1s", "range:5", "time:1m"]
    results = both([at(10, 10.0, 1.0), at(8, 11.0, 1.0), (DAY0 + MINUTE, None, "")], kinds)
    (late,) = (result for result in results if isinstance(result, LateTick))
    assert (late.kinds, late.mark) == (("tick:1", "time:1s"), DAY0 + 10 * SECOND)
    assert [(bar.kind, bar.count) for bar in results if isinstance(bar, Bar)] == [
        ("tick:1", 1),
        ("time:1s", 1),
        ("time:1m", 2),
    ]


def test_windows_leave_before_the_other_bars_that_a_tick_closes() -> None:
    kinds = ["tick:2", "time:1m", "volume:5", "time:1s"]
    results = both([at(0, 10.0, 4.0), at(70, 10.0, 4.0)], kinds)
    assert [bar.kind for bar in results if isinstance(bar, Bar)] == [
        "time:1s",
        "time:1m",
        "tick:2",
        "volume:5",
    ]


def test_the_bars_of_many_symbols_in_one_call() -> None:
    ticks = [tick(symbol, time=DAY0 + n * SECOND, sequence=n) for n in range(3) for symbol in ("B", "A")]
    closed = plain.fold(ticks, ["tick:2", "time:1s"], clock=DAY0 + MINUTE)
    assert [(bar.symbol, bar.kind) for bar in closed] == [
        (symbol, kind) for symbol in ("B", "A") for kind in ("time:1s", "tick:2", "time:1s", "time:1s")
    ]
    assert closed[1].first_tick == "test/s/0"
    nameless = [tick(time=DAY0, sequence=None), tick(time=DAY0, sequence=None)]
    assert [bar.last_tick for bar in plain.fold(nameless, ["tick:1"])] == ["test/@0/0", "test/@0/1"]
