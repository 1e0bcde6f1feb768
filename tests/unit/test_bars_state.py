"""One symbol's working state: what it keeps between runs, and what it forgets."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.records import NEVER
from schemas.states import OpenBar, SymbolState
from streams.bars.fold import step
from streams.bars.plan import Plan
from streams.bars.state import BAR, EVENT, FOREVER, LATE, Outbox, SymbolBars
from tests.examples import DAY0, MINUTE, SECOND
from tests.kernel_bars import frozen


def events(*rows: tuple[int, float, float, int, int, int, int]) -> np.ndarray:
    return np.array(list(rows), EVENT)


def test_the_next_end_is_that_of_the_earliest_open_window() -> None:
    plan = Plan.of(["time:1m", "tick:5", "time:1s"], SECOND, 1)
    bars, out = SymbolBars.thaw(SymbolState(), plan), Outbox()
    assert bars.next_end == FOREVER
    stream = bars.stream("s/")
    step(bars, events((DAY0, 1.0, 1.0, NEVER, 1, stream, 0)), NEVER, plan, out)
    assert bars.next_end == SymbolBars.thaw(frozen(bars, plan), plan).next_end == DAY0 + SECOND
    step(bars, events(), DAY0 + 2 * SECOND, plan, out)
    assert bars.next_end == DAY0 + MINUTE
    step(bars, events(), DAY0 + MINUTE + SECOND, plan, out)
    assert bars.next_end == FOREVER
    assert [(row["kind"], row["count"]) for row in out.bars] == [(2, 1), (0, 1)]


def test_results_of_many_calls_add_up_until_they_are_cleared() -> None:
    plan = Plan.of(["tick:1", "time:1s"], 0, 1)
    out = Outbox()
    for symbol in range(3):
        bars = SymbolBars.thaw(SymbolState(), plan)
        stream = bars.stream("s/")
        early, late = (DAY0, 1.0, 1.0, NEVER, 8, stream, 0), (DAY0 - 1, 1.0, 1.0, NEVER, 9, stream, 0)
        step(bars, events(early, late), NEVER, plan, out)
        assert (len(out.bars), len(out.late)) == (symbol + 1, symbol + 1)
    assert (out.bars.dtype, out.late.dtype) == (BAR, LATE)
    assert out.late["event"].tolist() == [1, 1, 1]
    assert out.late["kinds"].tolist() == [0b11] * 3
    assert out.bars["first_number"].tolist() == [8, 8, 8]
    out.clear()
    assert (len(out.bars), len(out.late)) == (0, 0)


def test_prefixes_stay_few_and_open_bars_keep_their_names() -> None:
    plan = Plan.of(["time:1d", "time:1s", "tick:10000"], 0, 1)
    bars, out = SymbolBars.thaw(SymbolState(), plan), Outbox()
    for session in range(1000):
        stream = bars.stream(f"feed/{session}/")
        assert bars.stream(f"feed/{session}/") == stream
        assert bars.prefixes[stream] == f"feed/{session}/"
        time = DAY0 + session * SECOND
        step(bars, events((time, 1.0, 1.0, NEVER, session, stream, 0)), NEVER, plan, out)
        assert len(bars.prefixes) <= 66
    named = {bar.kind: (bar.first_tick, bar.last_tick) for bar in frozen(bars, plan).open_bars}
    assert named == {
        "time:1d": ("feed/0/0", "feed/999/999"),
        "tick:10000": ("feed/0/0", "feed/999/999"),
        "time:1s": ("feed/999/999", "feed/999/999"),
    }
    seconds = [(bars_of["first_number"], bars_of["last_number"]) for bars_of in out.bars]
    assert seconds == [(n, n) for n in range(999)]


def test_many_sessions_in_one_run_all_have_a_number_of_their_own() -> None:
    plan = Plan.of(["tick:1"], 0, 1)
    bars, out = SymbolBars.thaw(SymbolState(), plan), Outbox()
    streams = [bars.stream(f"feed/{session}/") for session in range(500)]
    assert len(set(streams)) == 500
    rows = [(DAY0 + place, 1.0, 1.0, NEVER, place, stream, 0) for place, stream in enumerate(streams)]
    step(bars, events(*rows), NEVER, plan, out)
    assert [bars.prefixes[row["last_stream"]] for row in out.bars] == [f"feed/{n}/" for n in range(500)]


def test_a_state_with_bars_of_a_kind_that_is_not_wanted_is_refused() -> None:
    wanted, other = Plan.of(["tick:5"], 0, 1), Plan.of(["tick:6"], 0, 1)
    bars = SymbolBars.thaw(SymbolState(), wanted)
    step(bars, events((DAY0, 1.0, 1.0, NEVER, 1, bars.stream("s/"), 0)), NEVER, wanted, Outbox())
    state = frozen(bars, wanted)
    assert [type(bar) for bar in state.open_bars] == [OpenBar]
    with pytest.raises(KeyError, match="tick:5"):
        SymbolBars.thaw(state, other)
