"""The barrier: what closes a snapshot, and that its content does not depend on how partitions interleave."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import Clock, Settings, UniverseBar, UniverseSpec
from schemas.states import EwmaState, UniverseState
from streams import barrier
from streams.barrier import Closed
from tests import examples
from tests.examples import DAY0, MINUTE

AB = UniverseSpec(name="u1", symbols=("A", "B"), kind="time:1m")
TWO_PARTITIONS = examples.settings(tick_partitions=2)
Event = UniverseBar | Clock


def bar(symbol: str, minute: int) -> UniverseBar:
    return UniverseBar(universe="u1", bar=examples.bar(symbol, DAY0 + minute * MINUTE, close=100.0 + minute))


def clock(partition: int, minute: int) -> Clock:
    return Clock(universe="u1", topic="market.ticks", partition=partition, through=DAY0 + minute * MINUTE)


def closed_by(
    *events: Event, spec: UniverseSpec = AB, under: Settings = TWO_PARTITIONS
) -> list[list[tuple[int, str]]]:
    """For each event, the snapshots that it closes: minute and symbols, stale ones in lower case."""
    state = UniverseState(ewma=EwmaState())
    answers = []
    for event in events:
        state, snapshots = barrier.step(state, [event], [barrier.terms(spec, under)])
        answers.append([(minute_of(snapshot), symbols_of(snapshot)) for snapshot in snapshots])
    return answers


def minute_of(snapshot: Closed) -> int:
    return (snapshot.start - DAY0) // MINUTE


def symbols_of(snapshot: Closed) -> str:
    return "".join(row.symbol.lower() if row.stale else row.symbol for row in snapshot.rows)


def test_closes_when_every_member_is_there() -> None:
    assert closed_by(bar("B", 0), bar("A", 0)) == [[], [(0, "AB")]]


def test_closes_when_every_partition_has_passed() -> None:
    assert closed_by(bar("A", 0), clock(0, 1), clock(1, 1)) == [[], [], [(0, "A")]]


def test_a_clock_at_the_end_has_passed_one_before_has_not() -> None:
    early = msgspec.structs.replace(clock(1, 1), through=DAY0 + MINUTE - 1)
    assert closed_by(bar("A", 0), clock(0, 1), early, clock(1, 1)) == [[], [], [], [(0, "A")]]


def test_clocks_do_not_go_back() -> None:
    assert closed_by(clock(0, 2), clock(1, 2), clock(0, 0), bar("A", 1)) == [[], [], [], [(1, "A")]]


def test_closes_in_order_of_start() -> None:
    events = bar("A", 0), bar("A", 1), bar("B", 1), clock(0, 1), clock(1, 1)
    assert closed_by(*events) == [[], [], [], [], [(0, "A"), (1, "AB")]]


def test_symbols_without_a_bar_are_carried_stale() -> None:
    state = UniverseState(ewma=EwmaState())
    events = bar("A", 0), bar("B", 0), bar("A", 3), clock(0, 4), clock(1, 4)
    _, (first, second) = barrier.step(state, events, [barrier.terms(AB, TWO_PARTITIONS)])
    assert (symbols_of(second), second.ordinal) == ("Ab", 2)
    assert (second.start, second.end) == (DAY0 + 3 * MINUTE, DAY0 + 4 * MINUTE)
    assert second.rows[1].bar == first.rows[1].bar


def test_a_start_without_bars_makes_no_snapshot() -> None:
    assert closed_by(clock(0, 9), clock(1, 9)) == [[], []]


def test_repeats_are_dropped() -> None:
    first = msgspec.structs.replace(bar("A", 0), bar=examples.bar("A", DAY0, close=1.0))
    state, _ = barrier.step(
        UniverseState(ewma=EwmaState()), [first, bar("A", 0)], [barrier.terms(AB, TWO_PARTITIONS)]
    )
    assert [item.bar.close for item in state.pending[0].bars] == [1.0]
    events = bar("B", 0), bar("A", 0), clock(0, 5), clock(1, 5)
    state, (snapshot,) = barrier.step(state, events, [barrier.terms(AB, TWO_PARTITIONS)])
    assert snapshot.rows[0].bar.close == 1.0
    assert state.pending == []


def test_a_bar_after_its_clock_is_too_late_within_a_run_as_well() -> None:
    events = bar("A", 0), clock(0, 1), clock(1, 1), bar("B", 0)
    _, (snapshot,) = barrier.step(
        UniverseState(ewma=EwmaState()), events, [barrier.terms(AB, TWO_PARTITIONS)]
    )
    assert symbols_of(snapshot) == "A"


def test_strangers_are_kept_out() -> None:
    events = bar("Z", 0), bar("Z", 1), bar("A", 1), bar("B", 1), clock(0, 2), clock(1, 2)
    assert closed_by(*events) == [[], [], [], [], [], [(1, "AB")]]
    assert closed_by(bar("Z", 0), bar("A", 0), bar("B", 0)) == [[], [], [(0, "AB")]]


def test_the_first_snapshot_under_settings_waits_for_every_clock() -> None:
    """A symbol that left at `from` may still owe a bar of before (a case that the model found)."""
    just_a = UniverseSpec(name="u1", symbols=("A",), kind="time:1m")
    from_2 = examples.settings(tick_partitions=2, effective_from=DAY0 + 2 * MINUTE)
    events = bar("A", 1), bar("A", 2), clock(0, 2), clock(1, 2), bar("A", 3)
    assert closed_by(*events, spec=just_a, under=from_2) == [[(1, "A")], [], [], [(2, "A")], [(3, "A")]]


def test_a_member_that_left_is_not_carried_on() -> None:
    just_a = UniverseSpec(name="u1", symbols=("A",), kind="time:1m")
    state, _ = barrier.step(
        UniverseState(ewma=EwmaState()), [bar("A", 0), bar("B", 0)], [barrier.terms(AB, TWO_PARTITIONS)]
    )
    _, (snapshot,) = barrier.step(state, [bar("A", 1)], [barrier.terms(just_a, TWO_PARTITIONS)])
    assert symbols_of(snapshot) == "A"


class World(NamedTuple):
    """What each partition of the ticks sends, in its own order, repeats included."""

    partitions: list[list[Event]]
    expected: list[tuple[int, str]]


MINUTES = 6


@st.composite
def worlds(draw: st.DrawFn) -> World:
    symbols = [draw(st.lists(st.sampled_from("ABCDZ"), unique=True, max_size=4))]
    symbols.append([s for s in "ABCDZ" if s not in symbols[0]])
    symbols.append([])
    traded = {s: draw(st.sets(st.integers(0, MINUTES - 1))) for s in "ABCDZ"}
    partitions: list[list[Event]] = []
    for partition, its_symbols in enumerate(symbols):
        sent: list[Event] = []
        for minute in range(MINUTES):
            sent += [bar(s, minute) for s in its_symbols if minute in traded[s]]
            if draw(st.booleans()) or minute == MINUTES - 1:
                sent.append(clock(partition, minute + 1))
        cut = draw(st.integers(0, len(sent)))
        again = draw(st.integers(0, cut))
        partitions.append(sent[:cut] + sent[again:])
    expected, seen = [], set[str]()
    for minute in range(MINUTES):
        own = {s for s in "ABCD" if minute in traded[s]}
        seen |= own
        if own:
            expected.append((minute, "".join(s if s in own else s.lower() for s in sorted(seen))))
    return World(partitions, expected)


@st.composite
def interleavings(draw: st.DrawFn, world: World) -> list[list[Event]]:
    """The partitions' events merged at random, cut into runs at random."""
    queues = [list(events) for events in world.partitions]
    merged: list[Event] = []
    while left := [queue for queue in queues if queue]:
        queue = draw(st.sampled_from(left))
        burst = draw(st.integers(1, len(queue)))
        merged += queue[:burst]
        del queue[:burst]
    cuts = sorted(draw(st.sets(st.integers(0, len(merged)))) | {0, len(merged)})
    return [merged[a:b] for a, b in pairwise(cuts)]


ABCD = UniverseSpec(name="u1", symbols=("A", "B", "C", "D"), kind="time:1m")
THREE_PARTITIONS = examples.settings(tick_partitions=3)


def fold(runs: list[list[Event]]) -> tuple[UniverseState, list[Closed]]:
    state, snapshots = UniverseState(ewma=EwmaState()), []
    for events in runs:
        # Only what the changelog holds may matter.
        stored = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=UniverseState)
        state, closed = barrier.step(stored, events, [barrier.terms(ABCD, THREE_PARTITIONS)])
        snapshots += closed
    return state, snapshots


@settings(max_examples=300, deadline=None)
@given(data=st.data(), world=worlds())
def test_content_does_not_depend_on_interleaving_runs_or_repeats(data: st.DataObject, world: World) -> None:
    runs = data.draw(interleavings(world))
    state, snapshots = fold(runs)
    assert [(minute_of(s), symbols_of(s)) for s in snapshots] == world.expected
    other_state, other = fold(data.draw(interleavings(world)))
    assert other == snapshots
    assert other_state == state
    whole_state, whole = fold([[event for run in runs for event in run]])
    assert whole == snapshots
    assert whole_state == state


any_event = st.one_of(
    st.builds(bar, st.sampled_from("ABCDZ"), st.integers(0, 4)),
    st.builds(clock, st.integers(0, 2), st.integers(0, 5)),
)


@settings(deadline=None)
@given(events=st.lists(any_event, max_size=60), cuts=st.sets(st.integers(0, 60)))
def test_runs_do_not_matter_even_where_the_promise_is_broken(events: list[Event], cuts: set[int]) -> None:
    bounds = [0, *sorted(cuts), 60]
    assert fold([events[a:b] for a, b in pairwise(bounds)]) == fold([events])
