"""Trading sessions of exchanges, as arrays of µs; from the library exchange_calendars.

The library costs most of a second to import: only settings with a session kind pay for it. Calendars reach
from 1990 through 2050, or as far within that as the library knows the exchange; the range is fixed, because the
library's own default moves with the date of today. A tick outside of it is as one outside of the sessions.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streams.errors import UnknownKind

FIRST_DAY: Final = "1990-01-01"
LAST_DAY: Final = "2050-12-31"

PART: Final = np.dtype(
    [
        ("open", np.int64),  # µs, inclusive: of this part of a session
        ("close", np.int64),  # µs, exclusive
        ("session_open", np.int64),  # µs, inclusive: of the whole session
        ("session_close", np.int64),  # µs, exclusive
    ],
    align=True,
)
"""A stretch without a break; a session is one of them, or two with lunch between."""


@functools.cache
def parts(exchange: str, kind: str) -> NDArray[np.void]:
    """The parts of all sessions of an exchange, `PART` of shape (n,), in order of time, never overlapping.

    Raises:
        UnknownKind: the library does not know the exchange; names ``kind``, which asked for it.
    """
    import exchange_calendars
    import pandas

    if exchange not in exchange_calendars.get_calendar_names(include_aliases=False):
        raise UnknownKind(kind, "after @ the ISO 10383 code of an exchange, for example time:5m@XNYS")
    first, last = pandas.Timestamp(FIRST_DAY), pandas.Timestamp(LAST_DAY)
    probe = exchange_calendars.get_calendar(exchange, start="2020-01-01", end="2020-12-31")
    lowest, highest = probe.bound_min(), probe.bound_max()
    schedule = exchange_calendars.get_calendar(
        exchange,
        start=first if lowest is None else max(first, lowest),
        end=last if highest is None else min(last, highest),
    ).schedule

    opens, closes, breaks, resumes = (
        _us(schedule[field]) for field in ("open", "close", "break_start", "break_end")
    )
    broken = schedule["break_start"].notna().to_numpy()
    whole = np.empty(len(opens), PART)
    whole["open"] = whole["session_open"] = opens
    whole["close"] = whole["session_close"] = closes
    mornings, afternoons = whole.copy(), whole[broken]
    mornings["close"][broken] = breaks[broken]
    afternoons["open"] = resumes[broken]
    found = np.concatenate([mornings, afternoons])
    found = found[np.argsort(found["open"], kind="stable")]
    found.flags.writeable = False
    return found


def _us(times: Any) -> NDArray[np.int64]:
    """A pandas column of UTC times as µs; what is missing comes out as some number."""
    result: NDArray[np.int64] = times.dt.tz_localize(None).to_numpy("datetime64[us]").astype(np.int64)
    return result
