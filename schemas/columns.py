"""Ticks as columns: a structured array with a row per record, and the lanes that the rows belong to.

A lane is what the ticks of one symbol, source and session have in common; rows name it by number instead of carrying
three strings each.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.void]
"""An array of `TICK`."""

NO_SEQUENCE: Final = -(2**63)
"""Stands in ``sequence`` for a tick without one: its name is then its partition and offset."""
NO_TICK: Final = -1
"""Stands in ``lane`` for a record that is no tick."""

TICK: Final = np.dtype(
    [
        ("event_time", np.int64),  # µs since the epoch
        ("price", np.float64),
        ("size", np.float64),
        ("sequence", np.int64),
        ("conditions", np.int64),
        ("lane", np.int32),
        ("side", np.int8),  # the aggressor's: 1 buy, -1 sell, 0 not told
        ("suspicious", np.bool_),
    ],
    align=True,
)


class Lane(NamedTuple):
    """Whose ticks a row's is one of. ``symbol`` is the record's key too."""

    symbol: str
    source: str
    session: str


class TickColumns(NamedTuple):
    """Rows of `TICK` in the order of their records, shape (n,), and the lanes they name, in order of first rows."""

    rows: Rows
    lanes: tuple[Lane, ...]
