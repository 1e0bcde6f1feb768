"""What the settings say about bars, as the kernel reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streams.bars import sessions, time
from streams.bars.kinds import Family, parse
from streams.bars.renko import MOST_BRICKS
from streams.errors import UnknownKind

MOST_KINDS: Final = 64
"""Bits in a row of late ticks."""

Rows = NDArray[np.void]

KIND: Final = np.dtype(
    [
        ("family", np.int64),
        ("measure", np.int64),
        ("size_us", np.int64),
        ("size", np.float64),
        ("ticks", np.float64),
        ("alpha", np.float64),  # weight of the newest bar in the averages
        ("first_part", np.int64),  # the exchange's slice of the parts of sessions
        ("last_part", np.int64),
        ("has_gaps", np.bool_),  # a window may hold times that belong to none: a session with lunch
    ],
    align=True,
)


class Plan:
    """What the settings say, as the kernel reads it. Immutable; compared by identity, so keep it."""

    __slots__ = ("kinds", "lateness_us", "most_bars", "numbers", "parts", "settings", "table")

    kinds: tuple[str, ...]
    numbers: dict[str, int]
    """Index of each kind."""
    lateness_us: int
    settings: int
    """Version of the settings, which bars name."""
    table: Rows
    """`KIND`, shape (kinds,)."""
    parts: Rows
    """`streams.bars.sessions.PART` of all exchanges, one after another."""
    most_bars: int
    """That one tick can close beside the time windows."""

    @classmethod
    def of(cls, kinds: Sequence[str], lateness_us: int, settings: int) -> Plan:
        """Parse ``kinds``, at most 64.

        Raises:
            UnknownKind: one of them is no kind, is there twice, or is one too many.
        """
        plan = cls()
        plan.kinds, plan.lateness_us, plan.settings = tuple(kinds), lateness_us, settings
        plan.numbers = {kind: number for number, kind in enumerate(kinds)}
        if len(kinds) > MOST_KINDS:
            raise UnknownKind(kinds[MOST_KINDS], f"at most {MOST_KINDS} kinds")
        plan.table = np.zeros(len(kinds), KIND)
        calendars = [np.empty(0, sessions.PART)]
        places: dict[str, tuple[int, int]] = {}
        plan.most_bars = 0
        for number, name in enumerate(kinds):
            if plan.numbers[name] != number:
                raise UnknownKind(name, "each kind once")
            kind = parse(name)
            row = plan.table[number]
            row["family"], row["measure"], row["size_us"] = kind.family, kind.measure, kind.size_us
            row["size"], row["ticks"], row["alpha"] = kind.size, kind.ticks, 2.0 / (kind.span + 1.0)
            if kind.family is Family.SESSION:
                if kind.exchange not in places:
                    first = sum(map(len, calendars))
                    calendars.append(sessions.parts(kind.exchange, name))
                    places[kind.exchange] = first, first + len(calendars[-1])
                row["first_part"], row["last_part"] = places[kind.exchange]
                row["has_gaps"] = kind.size_us == time.DAY_US
            elif kind.family is Family.RENKO:
                plan.most_bars += MOST_BRICKS
            elif kind.family is not Family.TIME:
                plan.most_bars += 1
        plan.parts = np.concatenate(calendars)
        return plan
