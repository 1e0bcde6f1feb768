"""Clocks between ticks, and the position that a connector resumes from."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors.clocks import ClockSettings, interleave
from connectors.messages import BEGINNING, BadRow, Message, Position
from connectors.progress import ProgressFile
from schemas.records import DeadLetter, Reason, Tick
from tests.examples import DAY0, MINUTE, SECOND, tick

BAD = BadRow("trades.csv", "beef", 3, b"a,b", "price: not a number")


def ticks(*times: int) -> list[Tick]:
    return [tick(time=DAY0 + time, sequence=i) for i, time in enumerate(times)]


def clocks(messages: list[Message]) -> list[int]:
    return [message.time_us - DAY0 for message in messages if message.is_clock]


def shape(messages: list[Message]) -> list[str]:
    """Ticks by number, clocks by their second after DAY0."""
    return [
        f"clock {(m.time_us - DAY0) / SECOND:g}" if m.is_clock else f"tick {m.record.sequence}"  # type: ignore[union-attr]
        for m in messages
    ]


def test_a_clock_stands_before_the_first_tick_at_or_after_it() -> None:
    rows = ticks(100, SECOND - 1, SECOND, SECOND + 5)
    messages = list(interleave(rows, "s", ClockSettings(open_end=True)))
    assert shape(messages) == ["clock 0", "tick 0", "tick 1", "clock 1", "tick 2", "tick 3"]


def test_a_gap_is_skipped_unless_every_step_is_wanted() -> None:
    rows = ticks(0, 4 * SECOND + 1)
    assert clocks(list(interleave(rows, "s", ClockSettings(open_end=True)))) == [0, 4 * SECOND]
    paced = list(interleave(rows, "s", ClockSettings(open_end=True, every_step=True)))
    assert shape(paced) == ["clock 0", "tick 0", "clock 1", "clock 2", "clock 3", "clock 4", "tick 1"]


@pytest.mark.parametrize("lateness_us", [0, 2 * SECOND])
def test_the_last_clock_closes_the_largest_window(lateness_us: int) -> None:
    settings = ClockSettings(lateness_us=lateness_us, close_after_us=5 * MINUTE)
    last = list(interleave(ticks(0, 10 * SECOND - 1), "s", settings))[-1]
    assert last.is_clock
    assert last.time_us == DAY0 + 10 * SECOND + 5 * MINUTE


def test_no_rows_no_clocks() -> None:
    assert list(interleave([], "s", ClockSettings())) == []


def test_lateness_holds_the_clock_back() -> None:
    rows = ticks(0, 3 * SECOND, SECOND, 4 * SECOND)
    messages = list(interleave(rows, "s", ClockSettings(lateness_us=2 * SECOND, open_end=True)))
    assert shape(messages) == ["clock -2", "tick 0", "clock 1", "tick 1", "tick 2", "clock 2", "tick 3"]


def test_a_bad_row_is_a_dead_letter_in_its_place() -> None:
    first, second = ticks(0, SECOND)
    messages = list(interleave([first, BAD, second], "s", ClockSettings(open_end=True)))
    letter = messages[2].record
    assert isinstance(letter, DeadLetter)
    assert (messages[2].key, messages[2].time_us) == ("trades.csv", DAY0)
    assert (letter.stage, letter.reason, letter.input) == ("files", Reason.BAD_ROW, "beef:3")
    assert (letter.topic, letter.partition, letter.offset) == ("trades.csv", -1, 3)
    assert (letter.value, letter.value_size, letter.timestamp_ms) == (b"a,b", 3, DAY0 // 1000)


@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_single_time_far_ahead_does_not_move_the_clock(place: int) -> None:
    times = [i * SECOND for i in range(12)]
    times.insert(place, 10**15)
    messages = list(interleave(ticks(*times), "s", ClockSettings(open_end=True)))
    assert clocks(messages) == [i * SECOND for i in range(12)]
    assert [m.record.sequence for m in messages if not m.is_clock] == list(range(13))  # type: ignore[union-attr]


def test_a_night_between_two_sessions_is_believed() -> None:
    night = 12 * 60 * MINUTE
    messages = list(interleave(ticks(0, night, night + SECOND), "s", ClockSettings(open_end=True)))
    assert clocks(messages) == [0, night, night + SECOND]


def test_sparse_rows_may_each_follow_a_gap() -> None:
    times = [i * 2 * MINUTE for i in range(5000)]
    assert clocks(list(interleave(ticks(*times), "s", ClockSettings(open_end=True)))) == times


def test_settings_that_would_refuse_good_ticks_are_refused() -> None:
    with pytest.raises(ValidationError, match="more than max_ahead_us"):
        ClockSettings(lateness_us=MINUTE)


STEPS = st.integers(-3 * SECOND, 5 * SECOND) | st.integers(0, 300 * SECOND)
SETTINGS = st.builds(
    ClockSettings,
    step_us=st.sampled_from([100_000, SECOND]),
    lateness_us=st.sampled_from([0, SECOND // 2, 3 * SECOND]),
    open_end=st.booleans(),
    every_step=st.booleans(),
)


@st.composite
def row_lists(draw: st.DrawFn) -> list[Tick | BadRow]:
    time, rows = DAY0, list[Tick | BadRow]()
    for sequence, move in enumerate(draw(st.lists(STEPS, max_size=30))):
        time += move
        bad = draw(st.integers(0, 9)) == 0
        rows.append(BAD._replace(line=sequence) if bad else tick(time=time, sequence=sequence))
    return rows


@given(row_lists(), SETTINGS)
def test_clocks_keep_their_promise(rows: list[Tick | BadRow], settings: ClockSettings) -> None:
    """They grow, stand on boundaries, and leave room for rows no later than the lateness."""
    messages = list(interleave(rows, "s", settings))
    told = clocks(messages)
    assert all(earlier < later for earlier, later in pairwise(told))
    assert all((time + DAY0) % settings.step_us == 0 for time in told)
    sent = [
        m.record.sequence if isinstance(m.record, Tick) else m.record.offset for m in messages if m.record
    ]
    assert sent == [row.sequence if isinstance(row, Tick) else row.line for row in rows]
    highest, clock = None, None
    for message in messages:
        if message.is_clock:
            clock = message.time_us
        elif isinstance(message.record, Tick):
            time = message.time_us
            assert clock is not None
            if highest is None or time >= highest - settings.lateness_us:
                assert time >= clock
            highest = time if highest is None else max(highest, time)


@given(row_lists(), SETTINGS, st.data())
def test_a_resumed_run_says_what_was_left(
    rows: list[Tick | BadRow], settings: ClockSettings, data: st.DataObject
) -> None:
    messages = list(interleave(rows, "s", settings))
    cut = data.draw(st.integers(0, len(messages)))
    before = messages[:cut]
    done = sum(not message.is_clock for message in before)
    clock = max((message.time_us for message in before if message.is_clock), default=None)
    if done == len(rows) and cut == len(messages):
        return  # such a run is finished: its position says so
    resumed = list(interleave(rows[done:], "s", settings, after=clock))
    assert resumed == messages[cut:]


def test_progress_survives_and_belongs_to_one_topic(tmp_path: Path) -> None:
    def file(topic_id: str, session: str = "beef") -> ProgressFile:
        return ProgressFile(
            tmp_path / "ingest", topic="n.market.ticks", topic_id=topic_id, source="files", session=session
        )

    position = Position(17, DAY0, finished=True)
    file("one").save(position)
    assert file("one").load() == position
    assert file("two").load() == BEGINNING
    assert file("one", "feed").load() == BEGINNING
    file("one").path.write_bytes(b'{"sequence": ')
    assert file("one").load() == BEGINNING
    file("one").forget()
    assert not list((tmp_path / "ingest").iterdir())
