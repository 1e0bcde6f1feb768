"""The barrier with quotes: what closes a snapshot, what its rows hold, and that no interleaving changes it."""

from __future__ import annotations

from itertools import pairwise

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import Clock, QuoteBar, UniverseBar, UniverseSpec
from schemas.states import EwmaState, UniverseState
from streams import barrier
from streams.barrier import Closed, Event
from tests import examples
from tests.examples import DAY0, MINUTE

AB = UniverseSpec(name="u1", symbols=("A", "B"), kind="time:1m")
UNDER = examples.settings(tick_partitions=2, quote_partitions=1)
"""One partition of quotes beside two of ticks."""
TICKS, QUOTES = "market.ticks", "market.quotes"
MINUTES = 5


def bar(symbol: str, minute: int) -> UniverseBar:
    return UniverseBar(universe="u1", bar=examples.bar(symbol, DAY0 + minute * MINUTE))


def quotes(symbol: str, minute: int) -> QuoteBar:
    return examples.quote_bar(symbol, DAY0 + minute * MINUTE, first_quote=f"{symbol}{minute}")


def clock(topic: str, partition: int, minute: int) -> Clock:
    return Clock(universe="u1", topic=topic, partition=partition, through=DAY0 + minute * MINUTE)


def clocks(minute: int) -> list[Event]:
    return [clock(TICKS, 0, minute), clock(TICKS, 1, minute), clock(QUOTES, 0, minute)]


def shown(snapshot: Closed) -> tuple[int, str]:
    """The minute, and its symbols: stale ones in lower case, a ' behind those that have quotes."""
    rows = [
        (row.symbol.lower() if row.stale else row.symbol) + ("'" if row.quote else "")
        for row in snapshot.rows
    ]
    return (snapshot.start - DAY0) // MINUTE, "".join(rows)


def fold(*runs: list[Event]) -> tuple[UniverseState, list[Closed]]:
    state, snapshots = UniverseState(ewma=EwmaState()), []
    for events in runs:
        # Only what the changelog holds may matter.
        stored = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=UniverseState)
        state, closed = barrier.step(stored, events, [barrier.terms(AB, UNDER)])
        snapshots += closed
    return state, snapshots


def closed_by(*events: Event) -> list[list[tuple[int, str]]]:
    """For each event, the snapshots that it closes."""
    runs = [list(events[:i]) for i in range(len(events) + 1)]
    counts = [len(fold(run)[1]) for run in runs]
    told = [shown(snapshot) for snapshot in fold(list(events))[1]]
    return [told[a:b] for a, b in pairwise(counts)]


def test_closes_when_every_members_bar_and_quotes_are_there() -> None:
    events = bar("A", 0), quotes("A", 0), quotes("B", 0), bar("B", 0)
    assert closed_by(*events) == [[], [], [], [(0, "A'B'")]]
    assert closed_by(bar("A", 0), bar("B", 0), quotes("A", 0), quotes("B", 0))[3] == [(0, "A'B'")]


def test_all_bars_alone_do_not_close_it_for_quotes_may_come() -> None:
    events = bar("A", 0), bar("B", 0), quotes("B", 0), *clocks(1)
    assert closed_by(*events) == [[], [], [], [], [], [(0, "AB'")]]


def test_the_clocks_of_the_ticks_alone_do_not_close_it() -> None:
    assert closed_by(bar("A", 0), clock(TICKS, 0, 9), clock(TICKS, 1, 9)) == [[], [], []]


def test_quotes_alone_make_no_snapshot_and_are_not_carried() -> None:
    first = [bar("A", 0), bar("B", 0), quotes("A", 0), quotes("B", 0)]
    _, snapshots = fold([*first, quotes("A", 1), bar("B", 2), *clocks(3)])
    assert [shown(snapshot) for snapshot in snapshots] == [(0, "A'B'"), (2, "aB")]


def test_a_carried_bar_has_the_quotes_of_the_window() -> None:
    first = [bar("A", 0), bar("B", 0), quotes("A", 0), quotes("B", 0)]
    _, snapshots = fold([*first, bar("A", 1), quotes("A", 1), quotes("B", 1)], clocks(2))
    assert shown(snapshots[1]) == (1, "A'b'")
    assert snapshots[1].rows[1].quote == quotes("B", 1)


def test_repeats_and_strangers_are_kept_out() -> None:
    other = msgspec.structs.replace(quotes("A", 0), count=99)
    events = [quotes("A", 0), other, quotes("Z", 0), bar("A", 0), bar("B", 0), quotes("B", 0), quotes("A", 0)]
    state, (snapshot,) = fold(events)
    assert [row.quote and row.quote.count for row in snapshot.rows] == [3, 3]
    assert state.pending == []


def test_undeclared_quotes_change_nothing() -> None:
    """Without partitions of quotes in the settings the bars decide alone."""
    state = UniverseState(ewma=EwmaState())
    events = [bar("A", 0), bar("B", 0)]
    _, snapshots = barrier.step(state, events, [barrier.terms(AB, examples.settings(tick_partitions=2))])
    assert [shown(snapshot) for snapshot in snapshots] == [(0, "AB")]


World = tuple[list[list[Event]], list[tuple[int, str]]]
"""What each partition sends, in its own order, repeats included; and the snapshots that must come of it."""


@st.composite
def worlds(draw: st.DrawFn) -> World:
    minutes = st.sets(st.integers(0, MINUTES - 1))
    traded, quoted = ({s: draw(minutes) for s in "ABZ"} for _ in range(2))
    partitions: list[list[Event]] = []
    for topic, partition, symbols in ((TICKS, 0, "AZ"), (TICKS, 1, "B"), (QUOTES, 0, "ABZ")):
        sent: list[Event] = []
        for minute in range(MINUTES):
            if topic == TICKS:
                sent += [bar(s, minute) for s in symbols if minute in traded[s]]
            else:
                sent += [quotes(s, minute) for s in symbols if minute in quoted[s]]
            if draw(st.booleans()) or minute == MINUTES - 1:
                sent.append(clock(topic, partition, minute + 1))
        cut = draw(st.integers(0, len(sent)))
        partitions.append(sent[:cut] + sent[draw(st.integers(0, cut)) :])
    expected, seen = [], set[str]()
    for minute in range(MINUTES):
        own = {s for s in "AB" if minute in traded[s]}
        seen |= own
        if own:
            row = (
                (s if s in own else s.lower()) + ("'" if minute in quoted[s] else "") for s in sorted(seen)
            )
            expected.append((minute, "".join(row)))
    return partitions, expected


@st.composite
def interleavings(draw: st.DrawFn, partitions: list[list[Event]]) -> list[list[Event]]:
    """The partitions' events merged at random, cut into runs at random."""
    queues = [list(events) for events in partitions]
    merged: list[Event] = []
    while left := [queue for queue in queues if queue]:
        queue = draw(st.sampled_from(left))
        burst = draw(st.integers(1, len(queue)))
        merged += queue[:burst]
        del queue[:burst]
    cuts = sorted(draw(st.sets(st.integers(0, len(merged)))) | {0, len(merged)})
    return [merged[a:b] for a, b in pairwise(cuts)]


@settings(max_examples=300, deadline=None)
@given(data=st.data(), world=worlds())
def test_content_does_not_depend_on_interleaving_runs_or_repeats(data: st.DataObject, world: World) -> None:
    partitions, expected = world
    state, snapshots = fold(*data.draw(interleavings(partitions)))
    assert [shown(snapshot) for snapshot in snapshots] == expected
    assert fold(*data.draw(interleavings(partitions))) == (state, snapshots)
    assert state.pending == []
