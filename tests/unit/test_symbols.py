"""The symbols agent: what it admits, what it forwards, and that cutting its input into runs is not seen."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from schemas.codec import Unreadable, encode_body
from schemas.records import (
    Bar,
    Clock,
    ClockKind,
    DeadLetter,
    LateTick,
    Reason,
    Record,
    Regime,
    RegimeSpec,
    Settings,
    SourceSpec,
    Tick,
    UniverseBar,
    UniverseSpec,
)
from schemas.states import SymbolsPartition
from streams.admission import MAX_PRICE, MAX_SIZE, MAX_TIME_US, SESSIONS
from streams.agent import Input, Output, SourcePartition, frozen
from streams.errors import SettingsMissing, UnknownKind
from streams.symbols import Symbols
from tests.examples import DAY0, MINUTE, SECOND, settings, tick

WHERE = SourcePartition("market.ticks", 2)


class Feed:
    """A partition of market.ticks with its agent: give it records, read what came out."""

    def __init__(self, first: Settings | None = None) -> None:
        self.partition = SymbolsPartition()
        self.keys: dict[str, Any] = {}
        self.offset = 0
        self.touched: set[str] = set()
        if first is not None:
            self.send(self.item(first))

    def item(
        self, value: Any, key: bytes | None = None, time_us: int = 0, source: bytes | None = None
    ) -> Input:
        if isinstance(value, Tick):
            time_us, key = value.event_time, value.symbol.encode() if key is None else key
        headers = () if source is None else (("source", source),)
        self.offset += 1
        return Input(self.offset, time_us // 1000, key, value, b"raw", headers)

    def clock(self, time_us: int, source: bytes = b"test") -> Input:
        return self.item(None, time_us=time_us, source=source)

    def state(self, symbol: str) -> Any:
        """A symbol's state as the changelog would hold it."""
        return frozen(self.keys[symbol])

    def send(self, *items: Input | Tick) -> list[Output]:
        run = [self.item(each) if isinstance(each, Tick) else each for each in items]
        outputs, self.touched = Symbols().step(WHERE, self.partition, self.keys, run)
        return outputs


def values(outputs: Iterable[Output], kind: type[Record]) -> list[Any]:
    return [each.value for each in outputs if type(each.value) is kind]


def test_a_record_before_the_settings_is_our_own_failure() -> None:
    feed = Feed()
    for item in (feed.item(tick()), feed.clock(DAY0), feed.item(Unreadable(Reason.UNREADABLE, "x"))):
        with pytest.raises(SettingsMissing, match="headrace topics create"):
            feed.send(item)


def test_settings_are_taken_once() -> None:
    feed = Feed(settings())
    assert feed.send(feed.item(settings(lateness_us=5))) == []
    (letter,) = values(feed.send(feed.item(settings(version=2))), DeadLetter)
    assert (letter.reason, letter.input) == (Reason.SETTINGS_CHANGED, "market.ticks/2/3")
    assert feed.partition.settings == settings()


def test_an_unknown_kind_in_the_settings_is_our_own_failure() -> None:
    with pytest.raises(UnknownKind, match="time:7w"):
        Feed(settings(kinds=("time:7w",)))


GOOD = tick(sequence=7)
BAD: list[tuple[Tick, bytes | None, Reason, str]] = [
    (tick(symbol="", sequence=7), b"", Reason.BAD_KEY, "market.ticks/2/2"),
    (GOOD, b"\xff", Reason.BAD_KEY, "market.ticks/2/2"),
    (GOOD, b"B", Reason.BAD_KEY, "market.ticks/2/2"),
    (tick(source="other", sequence=7), None, Reason.UNDECLARED_SOURCE, "A/other/s/7"),
    (tick(price=math.nan, sequence=7), None, Reason.BAD_PRICE, "A/test/s/7"),
    (tick(price=math.inf, sequence=7), None, Reason.BAD_PRICE, "A/test/s/7"),
    (tick(price=0.0, sequence=7), None, Reason.BAD_PRICE, "A/test/s/7"),
    (tick(price=MAX_PRICE * 2, sequence=7), None, Reason.BAD_PRICE, "A/test/s/7"),
    (tick(size=-1.0, sequence=7), None, Reason.BAD_SIZE, "A/test/s/7"),
    (tick(size=math.nan, sequence=7), None, Reason.BAD_SIZE, "A/test/s/7"),
    (tick(size=MAX_SIZE * 2, sequence=7), None, Reason.BAD_SIZE, "A/test/s/7"),
    (tick(time=0, sequence=7), None, Reason.BAD_TIME, "A/test/s/7"),
    (tick(time=MAX_TIME_US + 1, sequence=7), None, Reason.BAD_TIME, "A/test/s/7"),
    (tick(price=-1.0, sequence=None), None, Reason.BAD_PRICE, "A/test/@2/2"),
]


@pytest.mark.parametrize(("bad", "key", "reason", "name"), BAD)
def test_a_bad_tick_is_evidence_and_its_neighbours_are_processed(
    bad: Tick, key: bytes | None, reason: Reason, name: str
) -> None:
    feed = Feed(settings())
    outputs = feed.send(feed.item(bad, key), tick(sequence=8), feed.clock(DAY0 + SECOND))
    (letter,) = values(outputs, DeadLetter)
    assert (letter.reason, letter.input, letter.stage, letter.value) == (reason, name, "symbols", b"raw")
    (bar,) = values(outputs, Bar)
    assert (bar.count, bar.first_tick) == (1, "test/s/8")
    assert feed.state("A").watermark == DAY0


def test_a_tick_without_key_and_values_that_are_no_tick_are_refused() -> None:
    feed = Feed(settings())
    letters = values(
        feed.send(
            Input(2, 0, None, tick(), b"raw"),
            feed.item(Unreadable(Reason.UNKNOWN_SCHEMA, "id 9"), b"A"),
            feed.item(None, b"A"),
            feed.item(settings(version=9), b"A"),
        ),
        DeadLetter,
    )
    assert [each.reason for each in letters] == [
        Reason.BAD_KEY,
        Reason.UNKNOWN_SCHEMA,
        Reason.WRONG_SCHEMA,
        Reason.WRONG_SCHEMA,
    ]
    assert letters[1].error == "id 9"
    assert not feed.keys


def test_a_bad_clock_is_refused_and_moves_nothing() -> None:
    feed = Feed(settings())
    letters = values(
        feed.send(
            feed.item(None, time_us=DAY0),
            feed.clock(DAY0, b"other"),
            feed.clock(-1000),
            feed.clock(MAX_TIME_US + 1000),
        ),
        DeadLetter,
    )
    bad, undeclared = Reason.BAD_CLOCK, Reason.UNDECLARED_SOURCE
    assert [each.reason for each in letters] == [bad, undeclared, bad, bad]
    assert feed.partition.source_clocks == {}


def test_a_tick_too_far_past_its_own_sources_clock_is_refused() -> None:
    feed = Feed(
        settings(sources=(SourceSpec(name="test"), SourceSpec(name="slow")), max_ahead_us=10 * SECOND)
    )
    assert (
        values(feed.send(tick(time=DAY0 + 900 * SECOND, sequence=1)), DeadLetter) == []
    )  # no clock to hold it to
    outputs = feed.send(
        feed.clock(DAY0),
        feed.clock(DAY0 - 800 * SECOND, b"slow"),
        tick(time=DAY0 + 10 * SECOND, sequence=2),
        tick(time=DAY0 + 10 * SECOND + 1, sequence=3),
    )
    (letter,) = values(outputs, DeadLetter)
    assert (letter.reason, letter.input, letter.symbol) == (Reason.AHEAD_OF_CLOCK, "A/test/s/3", "A")


def test_repeats_are_dropped_before_their_content_is_looked_at() -> None:
    feed = Feed(settings())
    outputs = feed.send(
        tick(sequence=5),
        tick(sequence=5, price=math.nan),
        tick(sequence=4),
        tick(sequence=6, size=-1.0),
        tick(sequence=6),
        tick(symbol="B", sequence=5),
        tick(sequence=1, session="other"),
    )
    assert [each.reason for each in values(outputs, DeadLetter)] == [Reason.BAD_SIZE]
    assert feed.state("A").open_bars[0].count == 2
    assert feed.state("B").open_bars[0].count == 1
    assert feed.send(tick(sequence=6)) == []
    assert feed.touched == set()


def test_the_last_eight_sessions_of_a_symbol_are_known() -> None:
    feed = Feed(settings())
    feed.send(*(tick(session=f"s{number}") for number in range(SESSIONS + 1)))
    assert [name.session for name in feed.state("A").names] == [
        f"s{number}" for number in range(1, SESSIONS + 1)
    ]
    feed.send(*(tick(session=f"s{number}") for number in range(1, SESSIONS + 1)))
    assert feed.state("A").open_bars[0].count == SESSIONS + 1
    feed.send(tick(session="s0"))  # forgotten: it counts again
    assert feed.state("A").open_bars[0].count == SESSIONS + 2


def test_the_partitions_clock_is_the_least_of_its_sources_and_never_goes_back() -> None:
    feed = Feed(settings(sources=(SourceSpec(name="test"), SourceSpec(name="two")), lateness_us=SECOND))
    through = []
    for time_us, source in (
        (DAY0 + 9 * SECOND, b"test"),
        (DAY0 + 2 * SECOND, b"two"),
        (DAY0 + 5 * SECOND, b"test"),
        (DAY0 + 4 * SECOND, b"two"),
        (DAY0 + 4 * SECOND, b"two"),
        (DAY0 + 99 * SECOND, b"two"),
    ):
        through.append([each.through for each in values(feed.send(feed.clock(time_us, source)), Clock)])
    assert through == [[], [DAY0 + SECOND], [], [DAY0 + 3 * SECOND], [], [DAY0 + 8 * SECOND]]


def test_a_source_without_clocks_is_as_far_as_its_latest_tick_less_the_lateness() -> None:
    feed = Feed(settings(sources=(SourceSpec(name="test", clock=ClockKind.TICKS),), lateness_us=2 * SECOND))
    feed.send(
        tick(sequence=1), tick(time=DAY0 + 900 * SECOND, sequence=2), tick(time=DAY0 + SECOND, sequence=3)
    )
    assert feed.partition.clock == DAY0 + 898 * SECOND
    feed.send(tick(time=DAY0 + 950 * SECOND, price=-1.0, sequence=4))
    assert feed.partition.clock == DAY0 + 898 * SECOND
    (late,) = values(feed.send(tick("B", DAY0 + 1000 * SECOND), tick("C", DAY0 + 990 * SECOND)), LateTick)
    assert (late.symbol, late.kinds, late.mark) == ("C", ("time:1s",), DAY0 + 998 * SECOND)


def test_clocks_go_to_every_universe_even_from_a_partition_without_keys() -> None:
    universes = tuple(UniverseSpec(name=name, symbols=("A",), kind="time:1m") for name in ("u1", "u2"))
    feed = Feed(settings(universes=universes))
    outputs = feed.send(feed.clock(DAY0))
    assert [(each.topic, each.key, each.event_time) for each in outputs] == [
        ("universe.bars", "u1", DAY0),
        ("universe.bars", "u2", DAY0),
    ]
    assert [(each.topic, each.partition) for each in values(outputs, Clock)] == [("market.ticks", 2)] * 2


def test_a_clock_closes_the_windows_of_silent_symbols_and_their_bars_leave_first() -> None:
    feed = Feed(settings())
    feed.send(tick(), tick(symbol="C"))
    outputs = feed.send(feed.clock(DAY0 + MINUTE))
    assert [(each.topic, each.key, type(each.value)) for each in outputs] == [
        ("market.bars", "A", Bar),
        ("market.bars", "A", Bar),
        ("market.regimes", "A", Regime),
        ("universe.bars", "u1", UniverseBar),
        ("market.bars", "C", Bar),
        ("market.bars", "C", Bar),
        ("market.regimes", "C", Regime),
        ("universe.bars", "u1", Clock),
    ]
    assert feed.touched == {"A", "C"}
    joined = outputs[3].value
    assert isinstance(joined, UniverseBar)
    assert (joined.bar, joined.regime) == (outputs[1].value, outputs[2].value)
    assert feed.send(feed.clock(DAY0 + MINUTE + SECOND))[0].topic == "universe.bars"
    assert feed.touched == set()


def test_a_tick_for_a_window_closed_before_its_symbol_was_seen_is_late() -> None:
    feed = Feed(settings())
    outputs = feed.send(feed.clock(DAY0 + 5 * MINUTE), tick(time=DAY0 + 1))
    (late,) = (each for each in outputs if type(each.value) is LateTick)
    assert (late.topic, late.key, late.event_time) == ("market.ticks.late", "A", DAY0 + 1)
    assert feed.touched == {"A"}


SPECS = [
    settings(
        kinds=("time:1s", "time:3s", "time:2s"),
        lateness_us=lateness_us,
        max_ahead_us=6 * SECOND,
        sources=(SourceSpec(name="test", clock=first), SourceSpec(name="two", clock=second)),
        regimes=RegimeSpec(
            kinds=("time:2s", "time:1s"),
            period=2,
            band_period=2,
            slow_period=3,
            choppy_adx=60.0,
            trend_adx=70.0,
        ),
        universes=(
            UniverseSpec(name="u1", symbols=("A", "B"), kind="time:2s"),
            UniverseSpec(name="u2", symbols=("B", "C"), kind="time:1s"),
        ),
    )
    for lateness_us in (0, SECOND + 1)
    for first, second in itertools.product(ClockKind, ClockKind)
]


@st.composite
def partitions(draw: st.DrawFn) -> list[Input]:
    """Records of a partition: ticks out of order, repeated, ahead, bad, nameless; clocks that fall back."""
    feed, now, sequence = Feed(), DAY0, 0
    items = [feed.item(draw(st.sampled_from(SPECS)))]
    for _ in range(draw(st.integers(1, 60))):
        now += draw(st.sampled_from([0, 0, 1, SECOND // 3, SECOND, 3 * SECOND]))
        source = draw(st.sampled_from(["test", "test", "test", "two", "none"]))
        what = draw(st.integers(0, 9))
        if what == 0:
            items.append(feed.item(Unreadable(Reason.UNREADABLE, "torn"), b"A"))
        elif what <= 2:
            items.append(feed.clock(now - draw(st.integers(-1, 3)) * SECOND, source.encode()))
        else:
            sequence += draw(st.sampled_from([1, 1, 1, 1, 0, -3]))
            items.append(
                feed.item(
                    tick(
                        draw(st.sampled_from(["A", "B", "C"])),
                        now + draw(st.sampled_from([0, 0, 0, -1, -SECOND, -4 * SECOND, 7 * SECOND])),
                        draw(st.sampled_from([1 / 3, 2 / 7, 0.1, 10 / 3, math.nan])),
                        draw(st.sampled_from([sequence, sequence, sequence, None])),
                        source=source,
                        session=draw(st.sampled_from(["s", "t"])),
                        size=draw(st.sampled_from([0.0, 0.7, 1.1, 3.3])),
                    )
                )
            )
    return items


def run_all(runs: Iterable[Sequence[Input]]) -> tuple[dict[tuple[str, str], list[bytes]], bytes]:
    """What came out per topic and key, in bytes, clocks apart, and the final states; each run is checked."""
    agent, partition = Symbols(), SymbolsPartition()
    keys: dict[str, Any] = {}
    told: dict[tuple[str, str], list[bytes]] = defaultdict(list)
    through: dict[str, int] = {}
    for run in runs:
        before = bodies(keys)
        outputs, touched = agent.step(WHERE, partition, keys, run)
        changed = {name for name, body in bodies(keys).items() if before.get(name) != body}
        assert changed <= touched <= set(keys)
        for each in outputs:
            assert each.topic in Symbols.writes
            if isinstance(each.value, Clock):
                assert each.value.through > through.get(each.key, 0)
                through[each.key] = each.value.through
                continue
            key = each.key
            if isinstance(each.value, UniverseBar):
                assert each.value.bar.end > through.get(each.key, 0), "a bar after the clock that promised it"
                key += "/" + each.value.bar.symbol
            told[each.topic, key].append(msgspec.msgpack.encode((each.value, repr(each.event_time))))
    told["universe.bars", "through"] = [repr(through).encode()]
    return told, msgspec.msgpack.encode((partition, sorted(bodies(keys).items())))


def bodies(keys: dict[str, Any]) -> dict[str, bytes]:
    return {name: encode_body("symbols.changelog", frozen(state)) for name, state in keys.items()}


@hypothesis_settings(max_examples=100, deadline=None)
@given(items=partitions(), data=st.data())
def test_cutting_the_input_into_runs_changes_nothing(items: list[Input], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(items)), max_size=6)))
    bounds = [0, *cuts, len(items)]
    whole = run_all([items])
    assert run_all(items[start:end] for start, end in itertools.pairwise(bounds)) == whole
    assert run_all([item] for item in items) == whole
