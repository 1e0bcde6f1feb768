"""What the settings say about bars, as the kernel reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.records import NEVER
from streams.bars import sessions
from streams.bars.kinds import DAY_US, MOST_KINDS, Family, parse
from streams.bars.renko import MOST_BRICKS
from streams.errors import UnknownKind

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


class Version(NamedTuple):
    """What one version of the settings says about bars; it holds for windows that start at or after ``begins`` (µs)."""

    settings: int
    kinds: Sequence[str]
    begins: int = NEVER


class Plan:
    """What the settings say, as the kernel reads it. Immutable; compared by identity, so keep it.

    Of several versions: the kinds of all of them, those of the oldest first.
    """

    __slots__ = (
        "active",
        "begins",
        "kinds",
        "lateness_us",
        "most_bars",
        "numbers",
        "parts",
        "settings",
        "table",
    )

    kinds: tuple[str, ...]
    numbers: dict[str, int]
    """Index of each kind."""
    lateness_us: int
    settings: NDArray[np.int64]
    """Versions of the settings, which bars name; int64, shape (versions,)."""
    begins: NDArray[np.int64]
    """From when each holds, µs, ascending; int64, shape (versions,)."""
    active: NDArray[np.bool_]
    """Whether a version names a kind; shape (versions, kinds)."""
    table: Rows
    """`KIND`, shape (kinds,)."""
    parts: Rows
    """`streams.bars.sessions.PART` of all exchanges, one after another."""
    most_bars: int
    """That one tick can close beside the time windows."""

    @classmethod
    def of(cls, kinds: Sequence[str], lateness_us: int, settings: int) -> Plan:
        """The plan of a single version, whose number is ``settings``; see `of_versions`."""
        return cls.of_versions([Version(settings, kinds)], lateness_us)

    @classmethod
    def of_versions(cls, versions: Sequence[Version], lateness_us: int) -> Plan:
        """Parse the kinds of versions, at most 64 in all; ``versions`` are in order of their beginnings.

        Raises:
            UnknownKind: one of them is no kind, is there twice in a version, or is one too many.
        """
        plan = cls()
        kinds = [
            *versions[0].kinds,
            *dict.fromkeys(kind for v in versions[1:] for kind in v.kinds if kind not in versions[0].kinds),
        ]
        plan.kinds, plan.lateness_us = tuple(kinds), lateness_us
        plan.settings = np.array([version.settings for version in versions], np.int64)
        plan.begins = np.array([version.begins for version in versions], np.int64)
        plan.active = np.array([[kind in v.kinds for kind in kinds] for v in versions], np.bool_)
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
                row["has_gaps"] = kind.size_us == DAY_US
            elif kind.family is Family.RENKO:
                plan.most_bars += MOST_BRICKS
            elif kind.family is not Family.TIME:
                plan.most_bars += 1
        plan.parts = np.concatenate(calendars)
        return plan

    def version_of(self, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which version bars belong to that start at ``starts`` (µs): its place among all."""
        return np.maximum(np.searchsorted(self.begins, starts, "right") - 1, 0)
