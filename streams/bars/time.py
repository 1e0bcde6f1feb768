"""Time bars: windows of fixed length, of UTC time or of an exchange's sessions.

UTC windows are aligned to the epoch (so a day is a UTC day): [k·size, (k+1)·size). Session windows begin with each
part of a session (a session with lunch has two): [open + k·size, open + (k+1)·size), and the last one ends with the
part. ``time:1d@...`` is one window from the session's open to its close; lunch is in no window all the same. Half
days and changes to summer time are the calendar's. A tick outside of the sessions is in no window.

A window is closed once the highest time of a tick of its symbol, or the partition's clock, is at or past
``end + lateness``, whether or not it had a tick. A later tick for it goes to the late topic.

A window belongs to the settings in force at its start; where they do not name its kind, it is none.
"""

from __future__ import annotations

from typing import Any, Final

from schemas.compiled import kernel
from streams.bars.kinds import DAY_US, Family

Row = Any
Rows = Any

NO_WINDOW: Final = -(2**63)
_UTC: Final = int(Family.TIME)


@kernel
def window(kind: Row, parts: Rows, time: int) -> tuple[int, int]:
    """Start and end of the window that ``time`` is in, µs; both NO_WINDOW where it is in none."""
    size = kind.size_us
    if kind.family == _UTC:
        start = time // size * size
        return start, start + size
    first, last = kind.first_part, kind.last_part
    while first < last:
        middle = (first + last) // 2
        if parts[middle].open <= time:
            first = middle + 1
        else:
            last = middle
    if first == kind.first_part or time >= parts[first - 1].close:
        return NO_WINDOW, NO_WINDOW
    part = parts[first - 1]
    if size == DAY_US:
        return part.session_open, part.session_close
    start = part.open + (time - part.open) // size * size
    return start, min(start + size, part.close)


@kernel
def in_force(froms: Rows, time: int) -> int:
    """Which settings are in force at ``time``, of those that hold from ``froms`` (µs, ascending) on."""
    number = len(froms) - 1
    while number > 0 and time < froms[number]:
        number -= 1
    return number
