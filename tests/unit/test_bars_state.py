"""One symbol's working state: what it keeps between runs, and what it forgets."""

from __future__ import annotations

import numpy as np

from schemas.records import NEVER
from schemas.states import SymbolState
from streams.bars.fold import step, step_all
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
    assert [(row["kind"], row["count"]) for row in out.bars] == [(2, 1)]
    step(bars, events(), DAY0 + MINUTE + SECOND, plan, out)
    assert bars.next_end == FOREVER
    assert [(row["kind"], row["count"]) for row in out.bars] == [(0, 1)]


def test_the_symbols_of_a_call_are_folded_one_after_another() -> None:
    plan = Plan.of(["tick:1", "time:1s"], 0, 1)
    out, symbols, rows = Outbox(), [], []
    for symbol in range(4):
        bars = SymbolBars.thaw(SymbolState(), plan)
        symbols.append(bars)
        if symbol != 2:  # one without events
            stream = bars.stream("s/")
            rows += [
                (DAY0, 1.0 + symbol, 1.0, NEVER, 8, stream, 0),
                (DAY0 - 1, 1.0, 1.0, NEVER, 9, stream, 0),
            ]
    begins = np.array([0, 2, 4, 4, 6])
    step_all(symbols, begins, events(*rows), NEVER, plan, out)
    assert (out.bars.dtype, out.late.dtype) == (BAR, LATE)
    assert out.late_symbols.tolist() == out.bar_symbols.tolist() == [0, 1, 3]
    assert out.late["event"].tolist() == [1, 1, 1]
    assert out.late["kinds"].tolist() == [0b11] * 3
    assert out.bars["open"].tolist() == [1.0, 2.0, 4.0]
    assert [bars.next_end for bars in symbols] == [DAY0 + SECOND, DAY0 + SECOND, FOREVER, DAY0 + SECOND]
    step_all(symbols, np.zeros(5, np.int64), events(), DAY0 + SECOND, plan, out)
    assert out.bar_symbols.tolist() == [0, 1, 3]
    assert (out.bars["kind"].tolist(), len(out.late)) == ([1, 1, 1], 0)


def test_prefixes_stay_few_and_open_bars_keep_their_names() -> None:
    plan = Plan.of(["time:1d", "time:1s", "tick:10000"], 0, 1)
    bars, out = SymbolBars.thaw(SymbolState(), plan), Outbox()
    seconds = []
    for session in range(1000):
        stream = bars.stream(f"feed/{session}/")
        assert bars.stream(f"feed/{session}/") == stream
        assert bars.prefixes[stream] == f"feed/{session}/"
        time = DAY0 + session * SECOND
        step(bars, events((time, 1.0, 1.0, NEVER, session, stream, 0)), NEVER, plan, out)
        seconds += [(row["first_number"], row["last_number"]) for row in out.bars]
        assert len(bars.prefixes) <= 66
    named = {bar.kind: (bar.first_tick, bar.last_tick) for bar in frozen(bars, plan).open_bars}
    assert named == {
        "time:1d": ("feed/0/0", "feed/999/999"),
        "tick:10000": ("feed/0/0", "feed/999/999"),
        "time:1s": ("feed/999/999", "feed/999/999"),
    }
    assert seconds == [(n, n) for n in range(999)]


def test_many_sessions_in_one_run_all_have_a_number_of_their_own() -> None:
    plan = Plan.of(["tick:1"], 0, 1)
    bars, out = SymbolBars.thaw(SymbolState(), plan), Outbox()
    streams = [bars.stream(f"feed/{session}/") for session in range(500)]
    assert len(set(streams)) == 500
    rows = [(DAY0 + place, 1.0, 1.0, NEVER, place, stream, 0) for place, stream in enumerate(streams)]
    step(bars, events(*rows), NEVER, plan, out)
    assert [bars.prefixes[row["last_stream"]] for row in out.bars] == [f"feed/{n}/" for n in range(500)]


def test_bars_of_a_kind_that_no_settings_name_any_more_are_left_out() -> None:
    wanted, other = Plan.of(["tick:5", "time:1s"], 0, 1), Plan.of(["time:1s", "tick:6"], 0, 1)
    bars = SymbolBars.thaw(SymbolState(), wanted)
    step(bars, events((DAY0, 1.0, 1.0, NEVER, 1, bars.stream("s/"), 0)), NEVER, wanted, Outbox())
    state = frozen(bars, wanted)
    assert [bar.kind for bar in state.open_bars] == ["tick:5", "time:1s"]
    again = frozen(SymbolBars.thaw(state, other), other)
    assert [bar.kind for bar in again.open_bars] == ["time:1s"]
    assert again.builders == []
