"""The gate's kernel against a twin of plain Python that goes through the same rows with dicts and lists."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from schemas.columns import NO_SEQUENCE, NO_TICK, TICK
from schemas.records import NEVER, ClockKind, Condition, Settings, SourceSpec, TickFilter
from streams import gate
from streams.gate import MAX_PRICE, MAX_SIZE, MAX_TIME_US, SESSIONS, Verdict
from tests.examples import DAY0, SECOND, settings

SOURCES = (SourceSpec(name="a"), SourceSpec(name="b", clock=ClockKind.TICKS))


class PlainLane(NamedTuple):
    key: int
    source: int
    long: bool


class Plain:
    """The twin. ``names`` are a key's held sessions, oldest first, with their highest sequence."""

    def __init__(self, spec: Settings, lanes: list[PlainLane], keys: int) -> None:
        self.spec, self.lanes = spec, lanes
        self.names: list[dict[int, int]] = [{} for _ in range(keys)]
        self.clocks = [NEVER] * len(spec.sources)
        self.clock = NEVER

    def strike(self, source: int, time: int) -> None:
        self.clocks[source] = max(self.clocks[source], time)
        self.clock = max(self.clock, min(self.clocks))

    def judge(self, row: Any) -> tuple[Verdict, int]:
        """Verdict and mark of one row."""
        if row["lane"] == NO_TICK:
            return Verdict.NOTHING, 0
        number = int(row["lane"])
        key, source, long = self.lanes[number]
        if source < 0:
            return Verdict.UNDECLARED, 0
        names, sequence = self.names[key], int(row["sequence"])
        if sequence != NO_SEQUENCE:
            if number in names and sequence <= names[number]:
                return Verdict.REPEAT, 0
            if number not in names:
                if long:
                    return Verdict.LONG_SESSION, 0
                if len(names) == SESSIONS:
                    del names[next(iter(names))]
            names[number] = sequence
        by_ticks = self.spec.sources[source].clock is ClockKind.TICKS
        clock, time = self.clocks[source], int(row["event_time"])
        ahead = clock + self.spec.max_ahead_us if clock != NEVER and not by_ticks else MAX_TIME_US
        limit = min(MAX_TIME_US, ahead)
        fine = 0 < row["price"] <= MAX_PRICE and 0 <= row["size"] <= MAX_SIZE and 0 < time <= limit
        if not fine:
            return Verdict.FAULT, limit
        found = (Verdict.LEFT_OUT, 0) if self._is_left_out(row) else (Verdict.PASSED, self.clock)
        if by_ticks:
            self.strike(source, time - self.spec.lateness_us)
        return found

    def _is_left_out(self, row: Any) -> bool:
        bits, filters = Condition(int(row["conditions"])), self.spec.leave_out
        odd = bool(Condition.ODD_LOT & bits) or row["size"] < self.spec.round_lot
        late = bool((Condition.OUT_OF_SEQUENCE | Condition.SOLD_LATE) & bits)
        extended = bool((Condition.EXTENDED_HOURS | Condition.FORM_T) & bits)
        return (
            (TickFilter.ODD_LOTS in filters and odd)
            or (TickFilter.OUT_OF_SEQUENCE in filters and late)
            or (TickFilter.EXTENDED_HOURS in filters and extended)
            or (TickFilter.SUSPICIOUS in filters and bool(row["suspicious"]))
        )


CONDITIONS = [0, 1, *Condition]
TIMES = [0, DAY0, DAY0 + 1, DAY0 + SECOND, DAY0 + 4 * SECOND, DAY0 + 9 * SECOND, MAX_TIME_US, MAX_TIME_US + 1]
Clock = tuple[int, int, int]


@st.composite
def runs(draw: st.DrawFn) -> tuple[Settings, list[PlainLane], int, np.ndarray[Any, Any], list[Clock]]:
    """Settings, lanes, keys, rows, clocks by (index, source, time)."""
    spec = msgspec.structs.replace(
        settings(lateness_us=draw(st.sampled_from([0, SECOND])), max_ahead_us=5 * SECOND, sources=SOURCES),
        leave_out=tuple(draw(st.sets(st.sampled_from(list(TickFilter))))),
    )
    keys = draw(st.integers(1, 3))
    lane = st.builds(PlainLane, st.integers(0, keys - 1), st.sampled_from([0, 0, 0, 1, -1]), st.just(False))
    lanes = draw(st.lists(lane, min_size=1, max_size=14))
    lanes.append(PlainLane(0, 0, True))
    rows, clocks = np.zeros(draw(st.integers(0, 60)), TICK), []
    for index in range(len(rows)):
        rows[index] = (
            draw(st.sampled_from(TIMES)),
            draw(st.sampled_from([1.0, 2.5, 2.5, 0.0, -1.0, MAX_PRICE, MAX_PRICE * 2, math.nan, math.inf])),
            draw(st.sampled_from([0.0, 99.0, 100.0, 100.0, MAX_SIZE, MAX_SIZE * 2, -1.0, math.nan])),
            draw(st.sampled_from([*range(-3, 30), NO_SEQUENCE])),
            draw(st.sampled_from(CONDITIONS)),
            draw(st.integers(-1, len(lanes) - 1)),
            draw(st.sampled_from([1, -1, 0])),
            draw(st.booleans()),
        )
        if rows[index]["lane"] == NO_TICK and draw(st.booleans()):
            clocks.append((index, draw(st.integers(0, 1)), draw(st.sampled_from(TIMES[1:-1]))))
    return spec, lanes, keys, rows, clocks


@hypothesis_settings(max_examples=300, deadline=None)
@given(run=runs(), cut=st.integers(0, 60))
def test_the_kernel_is_its_twin_however_the_run_is_cut(run: Any, cut: int) -> None:
    spec, plain_lanes, keys, rows, clocks = run
    plain = Plain(spec, plain_lanes, keys)
    expected = []
    for index, row in enumerate(rows):
        for _, source, time in (clock for clock in clocks if clock[0] == index):
            plain.strike(source, time)
        expected.append(plain.judge(row))

    lanes = np.zeros(len(plain_lanes), gate.LANE)
    for number, (key, source, long) in enumerate(plain_lanes):
        lanes[number] = key, source, 100 + number, 200 + number, NO_SEQUENCE, False, long
    slots = np.full((keys, SESSIONS), -1, np.int32)
    sources = np.array([(NEVER, False, True), (NEVER, True, True)], gate.SOURCE)
    clock, found, events = NEVER, [], []
    for begin, end in ((0, min(cut, len(rows))), (min(cut, len(rows)), len(rows))):
        struck = [(index - begin, *rest) for index, *rest in clocks if begin <= index < end]
        offsets = np.arange(begin, end) * 10
        passed = gate.admit(
            rows[begin:end],
            offsets,
            lanes,
            slots,
            sources,
            np.array(struck, gate.CLOCK),
            clock,
            gate.rules(spec),
            np.array([NEVER]),
            np.ones((1, 2), np.bool_),
        )
        clock = passed.clock
        found += list(zip(map(Verdict, passed.verdicts), passed.marks.tolist(), strict=True))
        for key in range(keys):
            for at in range(passed.begins[key], passed.begins[key + 1]):
                events.append((key, begin + int(passed.places[at]), passed.events[at]))
    assert found == expected
    assert clock == plain.clock
    assert sources["clock"].tolist() == plain.clocks
    held = [
        {lane: int(lanes[lane]["highest"]) for lane in slots[key].tolist() if lane >= 0}
        for key in range(keys)
    ]
    assert [list(each.items()) for each in held] == [list(each.items()) for each in plain.names]

    assert sorted(place for _, place, _ in events) == [
        i for i, (v, _) in enumerate(found) if v is Verdict.PASSED
    ]
    assert all(places == sorted(places) for places in by_key(events).values())
    for key, place, event in events:
        row = rows[place]
        lane = int(row["lane"])
        named = (
            (100 + lane, int(row["sequence"])) if row["sequence"] != NO_SEQUENCE else (200 + lane, place * 10)
        )
        assert plain_lanes[lane].key == key
        assert event.item() == (
            row["event_time"], row["price"], row["size"], found[place][1], named[1], named[0], row["side"]
        )  # fmt: skip


def by_key(events: list[tuple[int, int, Any]]) -> dict[int, list[int]]:
    """The places of each key's events, one run after the other."""
    places: dict[int, list[int]] = {}
    for key, place, _ in events:
        places.setdefault(key, []).append(place)
    return places


@pytest.mark.parametrize(
    ("leave_out", "left"),
    [
        ((), []),
        ((TickFilter.ODD_LOTS,), [0, 1]),
        ((TickFilter.OUT_OF_SEQUENCE,), [2, 3]),
        ((TickFilter.EXTENDED_HOURS,), [4, 5]),
        ((TickFilter.SUSPICIOUS,), [6]),
    ],
)
def test_what_each_filter_leaves_out(leave_out: tuple[TickFilter, ...], left: list[int]) -> None:
    rows = np.zeros(8, TICK)
    rows["price"], rows["size"], rows["sequence"], rows["event_time"] = 1.0, 100.0, range(8), DAY0
    rows["size"][0] = 99.0
    bits = [0, *(Condition.ODD_LOT, Condition.SOLD_LATE, Condition.OUT_OF_SEQUENCE), Condition.FORM_T]
    rows["conditions"][:6] = [int(each) for each in [*bits, Condition.EXTENDED_HOURS]]
    rows["suspicious"][6] = True
    lanes = np.zeros(1, gate.LANE)
    lanes["highest"] = NO_SEQUENCE
    spec = msgspec.structs.replace(settings(sources=(SourceSpec(name="a"),)), leave_out=leave_out)
    passed = gate.admit(
        rows,
        np.arange(8),
        lanes,
        np.full((1, SESSIONS), -1, np.int32),
        np.array([(NEVER, False, True)], gate.SOURCE),
        np.empty(0, gate.CLOCK),
        NEVER,
        gate.rules(spec),
        np.array([NEVER]),
        np.ones((1, 1), np.bool_),
    )
    assert np.flatnonzero(passed.verdicts == Verdict.LEFT_OUT).tolist() == left
    assert passed.places.tolist() == [index for index in range(8) if index not in left]
