"""Time bars: windows, lateness, ties, the tick rule; and the fold against a reference without shortcuts."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import NEVER, Bar, LateTick, Side, Tick
from schemas.states import SymbolState
from streams.bars.kinds import parse
from streams.bars.plain import Event
from tests.examples import DAY0, MINUTE, SECOND, tick
from tests.kernel_bars import both

KINDS = ("time:1s", "time:1m", "time:5m")


def fold(
    events: Sequence[Event],
    lateness_us: int = 0,
    kinds: Sequence[str] = KINDS,
    state: SymbolState | None = None,
) -> list[Bar | LateTick]:
    return both(events, kinds, lateness_us, state)


def at(time: int, price: float = 100.0, clock: int = NEVER, **over: object) -> Event:
    item = tick(time=time, price=price, **over)
    return clock, item, f"test/s/{item.sequence}"


def strike(clock: int) -> Event:
    return clock, None, ""


def bars(out: Sequence[Bar | LateTick], kind: str) -> list[Bar]:
    return [bar for bar in out if isinstance(bar, Bar) and bar.kind == kind]


def test_a_bar_has_what_its_ticks_had() -> None:
    (bar,) = fold(
        [
            at(DAY0, 100.0, sequence=1, size=10.0),
            at(DAY0 + 1, 103.0, sequence=2, size=30.0),
            at(DAY0 + 2, 99.0, sequence=3, size=20.0),
            at(DAY0 + 3, 101.0, sequence=4, size=40.0),
            strike(DAY0 + MINUTE),
        ],
        kinds=("time:1m",),
    )
    assert bar == Bar(
        symbol="A",
        kind="time:1m",
        start=DAY0,
        end=DAY0 + MINUTE,
        open=100.0,
        high=103.0,
        low=99.0,
        close=101.0,
        volume=100.0,
        vwap=(1000.0 + 3090.0 + 1980.0 + 4040.0) / 100.0,
        count=4,
        buy_volume=5.0 + 30.0 + 40.0,
        sell_volume=5.0 + 20.0,
        first_tick="test/s/1",
        last_tick="test/s/4",
        settings=1,
    )


def test_open_and_close_are_by_event_time_and_ties_by_arrival() -> None:
    (bar,) = fold(
        [
            at(DAY0 + 5, 1.0, sequence=1),
            at(DAY0 + 5, 2.0, sequence=2),
            at(DAY0 + 3, 3.0, sequence=3),
            at(DAY0 + 3, 4.0, sequence=4),
            strike(DAY0 + SECOND),
        ],
        kinds=("time:1s",),
    )
    assert isinstance(bar, Bar)
    assert (bar.open, bar.first_tick, bar.close, bar.last_tick) == (3.0, "test/s/3", 2.0, "test/s/2")


def test_a_bar_without_volume_has_the_mean_price_as_its_vwap() -> None:
    (bar,) = fold(
        [at(DAY0, 1.0, size=0.0), at(DAY0 + 1, 4.0, size=0.0), strike(DAY0 + SECOND)], kinds=("time:1s",)
    )
    assert isinstance(bar, Bar)
    assert (bar.vwap, bar.volume, bar.count) == (2.5, 0.0, 2)


def test_the_tick_rule_carries_the_last_direction_and_yields_to_the_aggressor() -> None:
    (bar,) = fold(
        [
            at(DAY0, 10.0, size=1.0),  # no change yet: half and half
            at(DAY0, 10.0, size=2.0),  # still none
            at(DAY0, 11.0, size=4.0),  # up
            at(DAY0, 11.0, size=8.0),  # carried: up
            at(DAY0, 12.0, size=16.0, aggressor=Side.SELL),  # up, but the source tells
            at(DAY0, 12.0, size=32.0),  # the change was up
            at(DAY0, 9.0, size=64.0),  # down
            strike(DAY0 + SECOND),
        ],
        kinds=("time:1s",),
    )
    assert isinstance(bar, Bar)
    assert bar.buy_volume == 0.5 + 1.0 + 4.0 + 8.0 + 32.0
    assert bar.sell_volume == 0.5 + 1.0 + 16.0 + 64.0


def test_a_window_is_closed_at_its_end_plus_lateness_and_not_before() -> None:
    events = [at(DAY0)]
    assert fold([*events, strike(DAY0 + 3 * SECOND - 1)], 2 * SECOND, ("time:1s",)) == []
    assert len(fold([*events, strike(DAY0 + 3 * SECOND)], 2 * SECOND, ("time:1s",))) == 1
    assert fold([*events, at(DAY0 + 3 * SECOND - 1)], 2 * SECOND, ("time:1s",)) == []
    assert len(fold([*events, at(DAY0 + 3 * SECOND)], 2 * SECOND, ("time:1s",))) == 1


def test_bars_that_close_together_are_sorted_by_end_then_by_the_order_of_the_kinds() -> None:
    kinds = ("time:1m", "time:1s", "time:2s")
    last = DAY0 + MINUTE - SECOND
    out = fold([at(last), strike(DAY0 + 2 * MINUTE)], kinds=kinds)
    assert [bar.kind for bar in out if isinstance(bar, Bar)] == ["time:1m", "time:1s", "time:2s"]
    out = fold([at(DAY0), strike(DAY0 + 2 * MINUTE)], kinds=kinds)
    assert [bar.kind for bar in out if isinstance(bar, Bar)] == ["time:1s", "time:2s", "time:1m"]


def test_a_tick_late_for_one_kind_still_counts_in_the_others() -> None:
    out = fold(
        [
            at(DAY0 + 1, 1.0, sequence=1),
            at(DAY0 + SECOND, 2.0, sequence=2),
            at(DAY0, 3.0, sequence=3),
            strike(DAY0 + MINUTE),
        ]
    )
    (late,) = (record for record in out if isinstance(record, LateTick))
    assert (late.name, late.kinds, late.mark) == ("test/s/3", ("time:1s",), DAY0 + SECOND)
    assert late.tick.price == 3.0
    assert "later tick" in late.reason
    assert [bar.count for bar in bars(out, "time:1s")] == [1, 1]
    (minute,) = bars(out, "time:1m")
    assert (minute.count, minute.open, minute.high) == (3, 3.0, 3.0)


def test_a_window_that_the_clock_closed_is_late_even_without_a_bar() -> None:
    (late,) = fold([at(DAY0, clock=DAY0 + 5 * MINUTE)])
    assert isinstance(late, LateTick)
    assert (late.kinds, late.mark) == (KINDS, DAY0 + 5 * MINUTE)
    assert "clock" in late.reason


def test_a_tick_late_for_every_kind_leaves_no_trace() -> None:
    state = SymbolState()
    fold([at(DAY0, 5.0), at(DAY0 + 10 * MINUTE, 6.0)], state=state)
    before = msgspec.to_builtins(state)
    (late,) = fold([at(DAY0, 1.0)], state=state)
    assert isinstance(late, LateTick)
    assert msgspec.to_builtins(state) == before


class Reference:
    """The rules word by word: every tick of a window is kept, every window is looked at on every event."""

    def __init__(self, kinds: Sequence[str], lateness_us: int) -> None:
        self.kinds, self.lateness = kinds, lateness_us
        self.watermark = NEVER
        self.windows: dict[tuple[int, int], list[tuple[Tick, str]]] = {}
        self.out: list[tuple[object, ...]] = []

    def close(self, mark: int) -> None:
        due = sorted(key for key in self.windows if mark >= key[0] + self.lateness)
        for end, order in due:
            ticks = self.windows.pop((end, order))
            first = min(ticks, key=lambda item: item[0].event_time)
            last = max(reversed(ticks), key=lambda item: item[0].event_time)
            volume = notional = price_sum = 0.0
            for item, _ in ticks:
                volume += item.size
                notional += item.price * item.size
                price_sum += item.price
            vwap = notional / volume if volume else price_sum / len(ticks)
            high, low = max(item.price for item, _ in ticks), min(item.price for item, _ in ticks)
            self.out.append((self.kinds[order], end, first[1], last[1], high, low, len(ticks), volume, vwap))

    def take(self, event: Event) -> None:
        clock, item, name = event
        self.close(max(clock, self.watermark))
        if item is None:
            return
        ends = {}
        late = []
        for order, kind in enumerate(self.kinds):
            size = parse(kind).size_us
            ends[order] = item.event_time // size * size + size
            if max(clock, self.watermark) >= ends[order] + self.lateness:
                late.append(order)
        if late:
            self.out.append(
                ("late", name, tuple(self.kinds[order] for order in late), max(clock, self.watermark))
            )
        if len(late) == len(self.kinds):
            return
        self.watermark = max(self.watermark, item.event_time)
        self.close(self.watermark)
        for order, end in ends.items():
            if order not in late:
                self.windows.setdefault((end, order), []).append((item, name))


@st.composite
def streams_of_events(draw: st.DrawFn) -> list[Event]:
    clock, time, events = NEVER, DAY0, []
    for number in range(draw(st.integers(1, 40))):
        if draw(st.booleans()):
            clock = max(clock, time + draw(st.integers(-8, 4)) * SECOND)
        if draw(st.integers(0, 4)):
            time += draw(st.integers(0, 6)) * SECOND // 2
            back = draw(st.sampled_from([0, 0, 0, 1, 3, 9])) * SECOND
            price, size = draw(st.integers(1, 9)) / 7, draw(st.integers(0, 9)) / 3
            events.append(at(time - back, price, clock, sequence=number, size=size))
        else:
            events.append(strike(clock))
    return events


@settings(deadline=None)
@given(events=streams_of_events(), lateness_us=st.sampled_from([0, SECOND, 3 * SECOND + 1]))
def test_the_fold_equals_the_rules_word_by_word(events: list[Event], lateness_us: int) -> None:
    kinds = ("time:1s", "time:5s", "time:2s")
    reference = Reference(kinds, lateness_us)
    for event in events:
        reference.take(event)
    told = [
        ("late", record.name, record.kinds, record.mark)
        if isinstance(record, LateTick)
        else (
            record.kind,
            record.end,
            record.first_tick,
            record.last_tick,
            record.high,
            record.low,
            record.count,
            record.volume,
            record.vwap,
        )
        for record in fold(events, lateness_us, kinds)
    ]
    assert told == reference.out
