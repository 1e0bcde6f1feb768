"""The quotes agent: what it admits, what it forwards, and that cutting its input into runs is not seen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from schemas.codec import Unreadable, decode_body, encode_body
from schemas.records import (
    Clock,
    ClockKind,
    DeadLetter,
    Quote,
    QuoteBar,
    Reason,
    Record,
    Settings,
    SourceSpec,
    UniverseSpec,
)
from schemas.states import QuotesPartition, QuoteState
from streams.admission import MAX_PRICE, MAX_SIZE, MAX_TIME_US, SESSIONS
from streams.agent import Input, Output, SourcePartition
from streams.errors import SettingsMissing
from streams.quotes import Quotes
from tests.examples import DAY0, MINUTE, SECOND, quote, settings

WHERE = SourcePartition("market.quotes", 2)
CHANGELOG = "quotes.changelog"
QUOTED = settings(
    quote_sources=(SourceSpec(name="test"),),
    quote_partitions=4,
    universes=(
        UniverseSpec(name="u1", symbols=("A", "B"), kind="time:1m"),
        UniverseSpec(name="u2", symbols=("B",), kind="time:1s"),
    ),
)


class Feed:
    """A partition of market.quotes with its agent: give it records, read what came out."""

    def __init__(self, first: Settings | None = QUOTED) -> None:
        self.partition = QuotesPartition()
        self.keys: dict[str, QuoteState] = {}
        self.offset = 0
        if first is not None:
            self.send(self.item(first))

    def item(
        self, value: Any, key: bytes | None = None, time_us: int = 0, source: bytes | None = None
    ) -> Input:
        if isinstance(value, Quote):
            time_us, key = value.event_time, value.symbol.encode() if key is None else key
        headers = () if source is None else (("source", source),)
        self.offset += 1
        return Input(self.offset, time_us // 1000, key, value, b"raw", headers)

    def clock(self, time_us: int, source: bytes = b"test") -> Input:
        return self.item(None, time_us=time_us, source=source)

    def send(self, *items: Input | Quote) -> list[Output]:
        """One run; the states are stored and read back before it."""
        self.partition = stored(self.partition)
        self.keys = {symbol: stored(state) for symbol, state in self.keys.items()}
        before = {symbol: encode_body(CHANGELOG, state) for symbol, state in self.keys.items()}
        run = [self.item(each) if isinstance(each, Quote) else each for each in items]
        outputs, touched = Quotes().step(WHERE, self.partition, self.keys, run)
        after = {symbol: encode_body(CHANGELOG, state) for symbol, state in self.keys.items()}
        assert {symbol for symbol in after if before.get(symbol) != after[symbol]} <= touched <= set(after)
        return outputs


def stored(state: Any) -> Any:
    return decode_body(CHANGELOG, encode_body(CHANGELOG, state))


def values(outputs: Sequence[Output], kind: type[Record]) -> list[Any]:
    return [each.value for each in outputs if type(each.value) is kind]


def test_a_record_before_the_settings_is_our_own_failure() -> None:
    feed = Feed(None)
    for item in (feed.item(quote()), feed.clock(DAY0), feed.item(Unreadable(Reason.UNREADABLE, "x"))):
        with pytest.raises(SettingsMissing, match="headrace topics create"):
            feed.send(item)


def test_bars_go_to_every_universe_of_the_symbol_then_its_clock() -> None:
    feed = Feed()
    outputs = feed.send(quote("B", DAY0), quote("A", DAY0 + SECOND), feed.clock(DAY0 + MINUTE))
    told = [(o.topic, o.key, type(o.value).__name__, o.event_time - DAY0) for o in outputs]
    assert told == [
        ("universe.bars", "u2", "QuoteBar", SECOND),
        ("universe.bars", "u1", "QuoteBar", MINUTE),
        ("universe.bars", "u1", "QuoteBar", MINUTE),
        ("universe.bars", "u1", "Clock", MINUTE),
        ("universe.bars", "u2", "Clock", MINUTE),
    ]
    assert outputs[-1].value == Clock(
        universe="u2", topic="market.quotes", partition=2, through=DAY0 + MINUTE
    )
    assert [bar.first_quote for bar in values(outputs, QuoteBar)] == ["test/s/0"] * 3


def test_a_clock_closes_windows_in_silence_and_never_goes_back() -> None:
    feed = Feed()
    assert not values(feed.send(quote("A", DAY0 + 5)), QuoteBar)
    assert len(values(feed.send(feed.clock(DAY0 + 2 * MINUTE)), QuoteBar)) == 1
    assert feed.send(feed.clock(DAY0 + MINUTE)) == []


def test_the_partition_waits_for_the_slowest_source() -> None:
    two = settings(quote_sources=(SourceSpec(name="test"), SourceSpec(name="other")), quote_partitions=4)
    feed = Feed(two)
    assert not feed.send(feed.clock(DAY0 + MINUTE))
    (forwarded,) = feed.send(feed.clock(DAY0 + SECOND, b"other"))
    assert isinstance(forwarded.value, Clock)
    assert forwarded.value.through == DAY0 + SECOND


def test_a_source_may_be_its_own_clock() -> None:
    own = settings(
        quote_sources=(SourceSpec(name="test", clock=ClockKind.TICKS),),
        quote_partitions=4,
        lateness_us=SECOND,
    )
    feed = Feed(own)
    outputs = feed.send(quote("A", DAY0), quote("Z", DAY0 + MINUTE + SECOND, sequence=1))
    assert [clock.through for clock in values(outputs, Clock)] == [DAY0 + MINUTE - SECOND]
    outputs = feed.send(quote("Z", DAY0 + MINUTE + 2 * SECOND, sequence=2))
    assert [bar.symbol for bar in values(outputs, QuoteBar)] == ["A"]


GOOD = quote("A", DAY0, sequence=9)
BAD: list[tuple[dict[str, Any], Reason, str | None]] = [
    ({"bid": 0.0}, Reason.BAD_PRICE, "test/s/9"),
    ({"bid": math.nan}, Reason.BAD_PRICE, "test/s/9"),
    ({"ask": math.inf}, Reason.BAD_PRICE, "test/s/9"),
    ({"bid": MAX_PRICE, "ask": MAX_PRICE * 2}, Reason.BAD_PRICE, "test/s/9"),
    ({"bid": 101.1}, Reason.BAD_PRICE, "test/s/9"),
    ({"bid_size": -1.0}, Reason.BAD_SIZE, "test/s/9"),
    ({"ask_size": math.nan}, Reason.BAD_SIZE, "test/s/9"),
    ({"ask_size": MAX_SIZE * 2}, Reason.BAD_SIZE, "test/s/9"),
    ({"event_time": 0}, Reason.BAD_TIME, "test/s/9"),
    ({"event_time": MAX_TIME_US + 1}, Reason.BAD_TIME, "test/s/9"),
    ({"event_time": DAY0 + MINUTE + 1}, Reason.AHEAD_OF_CLOCK, "test/s/9"),
    ({"source": "unknown"}, Reason.UNDECLARED_SOURCE, "unknown/s/9"),
    ({"source": "unknown", "sequence": None}, Reason.UNDECLARED_SOURCE, "unknown/@2/4"),
    ({"session": "s" * 201}, Reason.TOO_LARGE, None),
]


@pytest.mark.parametrize(("over", "reason", "name"), BAD)
def test_bad_quotes_are_kept_as_evidence_and_cost_their_neighbours_nothing(
    over: dict[str, Any], reason: Reason, name: str | None
) -> None:
    feed, clean = Feed(), Feed()
    bad = quote(
        "A",
        **{"time": DAY0, "sequence": 9} | {("time" if k == "event_time" else k): v for k, v in over.items()},
    )
    outputs = feed.send(feed.clock(DAY0), quote("B", DAY0), bad, quote("A", DAY0 + 1, sequence=10))
    (letter,) = values(outputs, DeadLetter)
    assert (letter.stage, letter.reason, letter.symbol) == ("quotes", reason, "A")
    assert letter.input == (f"A/{name}" if name else "market.quotes/2/4")
    assert (letter.value, letter.offset, letter.topic) == (b"raw", 4, "market.quotes")
    expected = clean.send(clean.clock(DAY0), quote("B", DAY0), quote("A", DAY0 + 1, sequence=10))
    assert [o for o in outputs if o.topic == "universe.bars"] == expected
    bars = feed.send(feed.clock(DAY0 + MINUTE))
    assert bars == clean.send(clean.clock(DAY0 + MINUTE))


def test_as_far_ahead_of_its_clock_as_allowed_is_in_time() -> None:
    feed = Feed()
    assert feed.send(feed.clock(DAY0), quote("Z", DAY0 + QUOTED.max_ahead_us))[2:] == []
    assert feed.keys["Z"].watermark == DAY0 + QUOTED.max_ahead_us


def test_a_locked_market_is_a_quote() -> None:
    feed = Feed()
    outputs = feed.send(quote("A", DAY0, bid=100.0, ask=100.0), feed.clock(DAY0 + MINUTE))
    assert [(bar.spread, bar.spread_bps, bar.microprice) for bar in values(outputs, QuoteBar)] == [
        (0.0, 0.0, 100.0)
    ]


def test_records_that_are_no_quotes_clocks_or_settings() -> None:
    feed = Feed()
    items = [
        feed.item(Unreadable(Reason.UNKNOWN_SCHEMA, "id 7"), b"A"),
        feed.item(None, b"A"),
        feed.item(QUOTED, b"A"),
        feed.item(settings(version=2)),
        feed.item(None),
        feed.clock(DAY0, b"unknown"),
        feed.clock(-MINUTE),
        feed.item(quote("A"), b"\xff"),
        feed.item(quote("A"), b"B"),
    ]
    letters = values(feed.send(*items, feed.item(QUOTED)), DeadLetter)
    assert [letter.reason for letter in letters] == [
        Reason.UNKNOWN_SCHEMA,
        Reason.WRONG_SCHEMA,
        Reason.WRONG_SCHEMA,
        Reason.SETTINGS_CHANGED,
        Reason.BAD_CLOCK,
        Reason.UNDECLARED_SOURCE,
        Reason.BAD_CLOCK,
        Reason.BAD_KEY,
        Reason.BAD_KEY,
    ]
    assert all(letter.input == f"market.quotes/2/{letter.offset}" for letter in letters)
    assert feed.partition.settings == QUOTED
    assert feed.keys == {}


def test_a_late_quote_is_evidence_named_by_itself() -> None:
    feed = Feed()
    outputs = feed.send(
        quote("B", DAY0), feed.clock(DAY0 + 2 * SECOND), quote("B", DAY0 + SECOND, sequence=1)
    )
    (letter,) = values(outputs, DeadLetter)
    assert (letter.reason, letter.input, letter.offset) == (Reason.LATE, "B/test/s/1", 4)
    assert "time:1s" in letter.error
    outputs = feed.send(feed.clock(DAY0 + MINUTE))
    assert [(bar.kind, bar.count) for bar in values(outputs, QuoteBar)] == [("time:1m", 2)]


def test_repeats_are_dropped_by_name_within_the_last_sessions() -> None:
    feed = Feed()
    sessions = [quote("A", DAY0, session=f"s{n}", sequence=5) for n in range(SESSIONS)]
    feed.send(*sessions)
    assert feed.send(*sessions, quote("A", DAY0, session="s0", sequence=4, bid=math.nan)) == []
    (bar,) = values(feed.send(feed.clock(DAY0 + MINUTE)), QuoteBar)
    assert bar.count == SESSIONS
    feed.send(quote("A", DAY0 + MINUTE, session="s new"))
    assert [name.session for name in feed.keys["A"].names][-1] == "s new"
    assert len(feed.keys["A"].names) == SESSIONS


def test_without_quotes_declared_every_quote_is_refused_and_nothing_is_forwarded() -> None:
    feed = Feed(settings())
    outputs = feed.send(quote("A", DAY0), feed.clock(DAY0 + MINUTE))
    assert [letter.reason for letter in values(outputs, DeadLetter)] == [Reason.UNDECLARED_SOURCE] * 2
    assert len(outputs) == 2


def test_a_symbol_of_no_universe_makes_no_bars() -> None:
    feed = Feed()
    outputs = feed.send(
        quote("Z", DAY0), quote("Z", DAY0 + 1, sequence=1, ask=-1.0), feed.clock(DAY0 + MINUTE)
    )
    assert not values(outputs, QuoteBar)
    assert [letter.symbol for letter in values(outputs, DeadLetter)] == ["Z"]


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[Quote | int], list[int]]:
    """Quotes and clocks (negative: seconds) in a plausible disorder; and where the runs are cut."""
    drawn: list[Quote | int] = []
    time, sequence = DAY0, 0
    for _ in range(draw(st.integers(1, 40))):
        time += draw(st.sampled_from((0, 1, SECOND // 3, SECOND, 20 * SECOND)))
        if draw(st.integers(0, 4)) == 0:
            drawn.append(time)
            continue
        sequence += draw(st.sampled_from((1, 1, 1, 0)))
        back = draw(st.sampled_from((0, 0, SECOND // 2, 2 * SECOND, MINUTE)))
        bid = draw(st.floats(1.0, 100.0))
        spread = draw(st.floats(-0.1, 3.0))
        drawn.append(quote(draw(st.sampled_from("ABZ")), time - back, bid, bid + spread, sequence))
    cuts = draw(st.lists(st.integers(0, len(drawn)), max_size=5))
    return drawn, sorted(cuts)


@hypothesis_settings(max_examples=150, deadline=None)
@given(runs(), st.sampled_from((0, SECOND)))
def test_the_cut_into_runs_is_not_seen(drawn: tuple[list[Quote | int], list[int]], lateness_us: int) -> None:
    records, cuts = drawn
    under = settings(
        quote_sources=QUOTED.quote_sources,
        quote_partitions=4,
        universes=QUOTED.universes,
        lateness_us=lateness_us,
    )
    whole, split = Feed(under), Feed(under)
    made = []
    for feed, bounds in ((whole, [0, len(records)]), (split, [0, *cuts, len(records)])):
        items = [feed.clock(each) if isinstance(each, int) else feed.item(each) for each in records]
        outputs = [o for a, b in itertools.pairwise(bounds) for o in feed.send(*items[a:b])]
        bars: dict[tuple[str, str], list[bytes]] = {}
        letters = set()
        for output in outputs:
            body = encode_body(output.topic, output.value)
            if isinstance(output.value, QuoteBar):
                bars.setdefault((output.key, output.value.symbol), []).append(body)
            elif isinstance(output.value, DeadLetter):
                letters.add(body)
        made.append((bars, letters, max((c.through for c in values(outputs, Clock)), default=None)))
    assert made[0] == made[1]
    assert encode_body(CHANGELOG, whole.partition) == encode_body(CHANGELOG, split.partition)
    assert {s: encode_body(CHANGELOG, state) for s, state in whole.keys.items()} == {
        s: encode_body(CHANGELOG, state) for s, state in split.keys.items()
    }
