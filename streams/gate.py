"""The gate: which ticks of a run reach the bars, and what the partition's clock was when each of them came.

A tick is refused where the settings in force at its time do not declare its source, its price, size or time is out of
bounds, or its time is more than ``max_ahead_us`` past its source's clock (a source whose clock is its own ticks is not
held to that: nothing else tells how far its time has come). A repeat, by name, is dropped before its content is looked
at. Ticks that the settings leave out (odd lots, for example) go no further either.

Everything happens in the partition's order, in one kernel over the run's rows; `Passed` then holds the ticks of one
key next to each other, each key's in order of arrival.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.columns import NO_SEQUENCE, NO_TICK, TICK, Rows
from schemas.compiled import kernel
from schemas.records import NEVER, Condition, Settings, TickFilter
from streams.admission import MAX_PRICE, MAX_SIZE, MAX_TIME_US, SESSIONS
from streams.bars.state import EVENT
from streams.bars.time import in_force

Array = Any
"""A structured array of the dtype that is named with it."""


class Verdict(IntEnum):
    """What became of a row. Those from `UNDECLARED` on are bad input."""

    NOTHING = 0
    """No tick: a control record, or one that could not be read."""
    PASSED = 1
    REPEAT = 2
    LEFT_OUT = 3
    UNDECLARED = 4
    LONG_SESSION = 5
    FAULT = 6
    """Its price, size or time is out of bounds."""


_PASSED, _REPEAT, _LEFT_OUT = int(Verdict.PASSED), int(Verdict.REPEAT), int(Verdict.LEFT_OUT)
_UNDECLARED, _LONG_SESSION, _FAULT = int(Verdict.UNDECLARED), int(Verdict.LONG_SESSION), int(Verdict.FAULT)

LANE: Final = np.dtype(
    [
        ("key", np.int32),
        ("source", np.int32),  # its place among the declared sources, or -1
        ("stream", np.int32),  # number of the names' common beginning, for ticks with a sequence
        ("placed", np.int32),  # the same for ticks that are named by partition and offset
        ("highest", np.int64),  # sequence; NO_SEQUENCE before the first
        ("held", np.bool_),  # whether its session is among the last eight of its key
        ("long", np.bool_),  # whether its session's name is too long to be held
    ],
    align=True,
)
SOURCE: Final = np.dtype([("clock", np.int64), ("own", np.bool_), ("counts", np.bool_)], align=True)
"""A source's clock (µs, NEVER before the first); whether its ticks are its clock; whether the partition waits for it.
"""
CLOCK: Final = np.dtype([("place", np.int64), ("source", np.int64), ("time", np.int64)], align=True)
"""A clock record: its place in the run, its source, its time (µs)."""
RULES: Final = np.dtype(
    [
        ("max_ahead", np.int64),
        ("lateness", np.int64),
        ("left_out", np.int64),
        ("round_lot", np.float64),
        ("no_suspicious", np.bool_),
    ],
    align=True,
)

_FILTERED: Final = {
    TickFilter.ODD_LOTS: Condition.ODD_LOT,
    TickFilter.OUT_OF_SEQUENCE: Condition.SOLD_LATE | Condition.OUT_OF_SEQUENCE,
    TickFilter.EXTENDED_HOURS: Condition.FORM_T | Condition.EXTENDED_HOURS,
    TickFilter.SUSPICIOUS: Condition(0),
}


def rules(settings: Settings) -> Array:
    """What the settings say to the gate: one row of `RULES`."""
    mask = 0
    for each in settings.leave_out:
        mask |= int(_FILTERED[each])
    found = np.zeros(1, RULES)
    found["max_ahead"], found["lateness"] = settings.max_ahead_us, settings.lateness_us
    found["left_out"] = mask
    found["round_lot"] = settings.round_lot if TickFilter.ODD_LOTS in settings.leave_out else 0.0
    found["no_suspicious"] = TickFilter.SUSPICIOUS in settings.leave_out
    return found


class Passed(NamedTuple):
    """A run behind the gate, for k keys and n rows."""

    verdicts: NDArray[np.uint8]
    """Shape (n,)."""
    marks: NDArray[np.int64]
    """Shape (n,): the partition's clock where a row passed; the latest time allowed where it is a `Verdict.FAULT`."""
    events: Array
    """The ticks that passed, of `streams.bars.state.EVENT`, key by key."""
    places: NDArray[np.int32]
    """Which row each event was."""
    begins: NDArray[np.int64]
    """Shape (k + 1,): the events of key i are those from begins[i] up to begins[i + 1]."""
    changed: NDArray[np.bool_]
    """Shape (k,): whether a name of the key was taken note of."""
    clock: int
    """The partition's, after the run."""


def admit(
    rows: Rows,
    offsets: NDArray[np.int64],
    lanes: Array,
    slots: NDArray[np.int32],
    sources: Array,
    clocks: Array,
    clock: int,
    ruled: Array,
    begun: NDArray[np.int64],
    declared: NDArray[np.bool_],
) -> Passed:
    """Take a run through the gate.

    ``begun``, shape (versions,), are the times (µs) from which the settings' versions hold; ``declared``, shape
    (versions, sources), is which source each declares.

    ``slots``, shape (k, SESSIONS), holds for each key the lanes of its last sessions, oldest first, -1 where free. It
    is updated in place, and so are ``lanes`` (`LANE`) and ``sources`` (`SOURCE`).
    """
    keys = len(slots)
    verdicts, marks = np.zeros(len(rows), np.uint8), np.zeros(len(rows), np.int64)
    begins, changed = np.zeros(keys + 1, np.int64), np.zeros(keys, np.bool_)
    clock = _judge(
        rows, lanes, slots, sources, clocks, clock, ruled, begun, declared, verdicts, marks, begins, changed
    )
    events, places = np.empty(begins[-1], EVENT), np.empty(begins[-1], np.int32)
    _gather(rows, offsets, lanes, verdicts, marks, begins, events, places)
    return Passed(verdicts, marks, events, places, begins, changed, int(clock))


def prepare() -> None:
    """Compile the kernels."""
    slots, clocks = np.empty((0, SESSIONS), np.int32), np.empty(0, CLOCK)
    rows, sources, ruled = np.empty(0, TICK), np.zeros(1, SOURCE), np.zeros(1, RULES)
    begun, declared = np.array([NEVER]), np.ones((1, 1), np.bool_)
    admit(
        rows, np.empty(0, np.int64), np.empty(0, LANE), slots, sources, clocks, NEVER, ruled, begun, declared
    )


@kernel
def _judge(
    rows: Rows,
    lanes: Array,
    slots: NDArray[np.int32],
    sources: Array,
    clocks: Array,
    clock: int,
    ruled: Array,
    begun: NDArray[np.int64],
    declared: NDArray[np.bool_],
    verdicts: NDArray[np.uint8],
    marks: NDArray[np.int64],
    begins: NDArray[np.int64],
    changed: NDArray[np.bool_],
) -> int:
    """Verdict and mark of every row; how many passed of each key, summed up, to ``begins``; the clock at the end."""
    rule = ruled[0]
    upcoming = 0
    for i in range(rows.shape[0]):
        while upcoming < clocks.shape[0] and clocks[upcoming].place <= i:
            clock = _strike(sources, clock, clocks[upcoming].source, clocks[upcoming].time)
            upcoming += 1
        row = rows[i]
        number = row.lane
        if number == NO_TICK:
            continue
        source = lanes[number].source
        if source < 0 or (len(begun) > 1 and not declared[in_force(begun, row.event_time), source]):
            verdicts[i] = _UNDECLARED
            continue
        key = lanes[number].key
        if row.sequence != NO_SEQUENCE:
            if lanes[number].held:
                if row.sequence <= lanes[number].highest:
                    verdicts[i] = _REPEAT
                    continue
            elif lanes[number].long:
                verdicts[i] = _LONG_SESSION
                continue
            else:
                _hold(lanes, slots, key, number)
            lanes[number].highest = row.sequence
            changed[key] = True

        limit = MAX_TIME_US
        if not sources[source].own and sources[source].clock > 0:
            limit = min(limit, sources[source].clock + rule.max_ahead)
        # A comparison with NaN is false, so this refuses it too.
        good = 0.0 < row.price <= MAX_PRICE and 0.0 <= row.size <= MAX_SIZE
        if not (good and 0 < row.event_time <= limit):
            verdicts[i] = _FAULT
            marks[i] = limit
            continue
        left_out = row.conditions & rule.left_out != 0 or row.size < rule.round_lot
        if left_out or (rule.no_suspicious and row.suspicious):
            verdicts[i] = _LEFT_OUT
        else:
            verdicts[i] = _PASSED
            marks[i] = clock
            begins[key + 1] += 1
        if sources[source].own:
            clock = _strike(sources, clock, source, row.event_time - rule.lateness)
    for key in range(1, begins.shape[0]):
        begins[key] += begins[key - 1]
    return clock


@kernel
def _strike(sources: Array, clock: int, source: int, time: int) -> int:
    """Move a source's clock on, and answer the partition's: the least of all that count; neither ever goes back."""
    if time > sources[source].clock:
        sources[source].clock = time
        least = MAX_TIME_US
        for i in range(sources.shape[0]):
            if sources[i].counts:
                least = min(least, sources[i].clock)
        clock = max(clock, least)
    return clock


@kernel
def _hold(lanes: Array, slots: NDArray[np.int32], key: int, number: int) -> None:
    """Keep a session that is not among the last eight of its key; the oldest makes room."""
    last = slots.shape[1] - 1
    if slots[key, last] >= 0:
        lanes[slots[key, 0]].held = False
        for i in range(last):
            slots[key, i] = slots[key, i + 1]
        slots[key, last] = -1
    for i in range(last + 1):
        if slots[key, i] < 0:
            slots[key, i] = number
            break
    lanes[number].held = True


@kernel
def _gather(
    rows: Rows,
    offsets: NDArray[np.int64],
    lanes: Array,
    verdicts: NDArray[np.uint8],
    marks: NDArray[np.int64],
    begins: NDArray[np.int64],
    events: Array,
    places: NDArray[np.int32],
) -> None:
    """The rows that passed, key by key."""
    upcoming = begins[:-1].copy()
    for i in range(rows.shape[0]):
        if verdicts[i] != _PASSED:
            continue
        row = rows[i]
        lane = lanes[row.lane]
        at = upcoming[lane.key]
        upcoming[lane.key] += 1
        event = events[at]
        event.time = row.event_time
        event.price = row.price
        event.size = row.size
        event.side = row.side
        event.clock = marks[i]
        if row.sequence == NO_SEQUENCE:
            event.stream = lane.placed
            event.number = offsets[i]
        else:
            event.stream = lane.stream
            event.number = row.sequence
        places[at] = i
