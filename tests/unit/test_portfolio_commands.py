"""Commands to portfolios: each at its place, and at the same one in a replay."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import (
    NEVER,
    Place,
    Record,
    RiskAlert,
    TradingState,
)
from tests.examples import DAY0, MINUTE
from tests.scripted import Book, plan
from tests.snapshots import command, of, snapshot


def places(book: Book) -> list[tuple[str, int, int]]:
    return [
        (alert.id, alert.start if alert.start == NEVER else (alert.start - DAY0) // MINUTE, alert.ordinal)
        for alert in of(book.outputs, RiskAlert)
    ]


HALT, GO = TradingState.HALTED, TradingState.ACTIVE


def test_commands_hold_where_they_lie_or_wait_for_their_place() -> None:
    book = Book(plan("s", {}))
    book.take(command("early", GO), command("waits", HALT, (4, 2)), command("twice", GO, (4, 0)))
    book.take(command("twice", HALT, (0, 0)), snapshot(1), command("here", GO), command("past", HALT, (0, 7)))
    book.take(snapshot(5), command("then", HALT), command("now", GO, (5, 9)))
    assert places(book) == [
        ("early", NEVER, 0),
        ("here", 1, 0),
        ("past", 1, 1),
        ("twice", 5, 0),
        ("waits", 5, 1),
        ("then", 5, 2),
        ("now", 5, 3),
    ]
    assert book.state.kept == []


def test_an_ordinal_asked_for_is_given_unless_it_is_taken() -> None:
    book = Book(plan("s", {}))
    book.take(command("c1", HALT, (4, 2)), command("c3", HALT, (4, 2)), snapshot(4), command("c2", GO))
    assert places(book) == [("c1", 4, 2), ("c3", 4, 3), ("c2", 4, 4)]


COMMANDS = st.lists(
    st.tuples(
        st.sampled_from(list(TradingState)), st.none() | st.tuples(st.integers(0, 7), st.integers(0, 3))
    ),
    max_size=6,
)


@settings(deadline=None)
@given(COMMANDS, st.lists(st.integers(0, 6), min_size=6, max_size=6))
def test_a_replay_by_recorded_places_applies_the_same_commands_in_the_same_order(
    given_: list[tuple[TradingState, tuple[int, int] | None]], cuts: list[int]
) -> None:
    values: list[tuple[int, Record]] = [(minute * 2 + 1, snapshot(minute)) for minute in range(8)]
    values += [
        (cut * 2, command(f"c{i}", state, after))
        for i, ((state, after), cut) in enumerate(zip(given_, cuts, strict=False))
    ]
    live = Book(plan("s", {}))
    live.take(*(value for _, value in sorted(values, key=lambda pair: pair[0])))
    recorded = of(live.outputs, RiskAlert)
    replay = Book(plan("s", {}))
    replay.take(
        *(
            command(alert.id, alert.state, after=None, issued_at=DAY0)
            if alert.start == NEVER
            else msgspec.structs.replace(
                command(alert.id, alert.state), after=Place(start=alert.start, ordinal=alert.ordinal)
            )
            for alert in recorded
        )
    )
    replay.take(*map(snapshot, range(8)))
    assert of(replay.outputs, RiskAlert) == recorded


def test_before_any_snapshot_an_alert_has_the_time_of_its_command() -> None:
    (output,) = Book(plan("s", {})).take(command("c", HALT, issued_at=DAY0 + 5))
    assert isinstance(output.value, RiskAlert)
    assert (output.event_time, output.value.event_time, output.value.start) == (DAY0 + 5, DAY0 + 5, NEVER)
