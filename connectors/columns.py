"""Ticks of a feed as columns, with clocks at their places: as in `connectors.clocks`, but no object per tick."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from connectors.clocks import LOOK_AHEAD, ClockSettings
from connectors.messages import BadRow, Message
from schemas.columns import TICK, Lane, Rows, row_of
from schemas.compiled import kernel
from schemas.records import Tick

CLOCK: Final = np.dtype([("index", np.int64), ("time", np.int64)], align=True)
"""A clock: the row that it stands before (the number of rows: behind the last), its time (µs)."""
_NONE: Final = np.zeros(0, CLOCK)
_FURTHEST: Final = 2**61
"""Times are held within ± this (73,000 years) where they are compared, so that no difference overflows."""


class Lanes:
    """Numbers the symbols of one source and session, in order of first sight."""

    def __init__(self, source: str, session: str) -> None:
        self.source = source
        self.session = session
        self.known: list[Lane] = []
        self._numbers: dict[str, int] = {}

    def number(self, symbol: str) -> int:
        """The number of a symbol's lane, a new one where it is new."""
        found = self._numbers.get(symbol)
        if found is None:
            found = self._numbers[symbol] = len(self.known)
            self.known.append(Lane(symbol, self.source, self.session))
        return found

    def put(self, rows: Rows, place: int, tick: Tick) -> None:
        """``tick`` as the row at ``place``."""
        rows[place] = row_of(tick, self.number(tick.symbol))


class Batch(NamedTuple):
    """A stretch of a feed."""

    rows: Rows
    """Its ticks in order; lanes are those of the feed's `Lanes`."""
    bad: tuple[tuple[int, BadRow], ...]
    """Each with the row that it stands before."""
    tick: Callable[[int], Tick]
    """The whole record of a row."""


class Stretch(NamedTuple):
    """A stretch of a feed with its clocks.

    ``lanes`` are all that the feed has named so far, ``clocks`` of `CLOCK`. ``letters`` are messages of bad rows, each
    with the row that it stands before. ``tick`` gives the whole record of a row.
    """

    rows: Rows
    lanes: tuple[Lane, ...]
    clocks: NDArray[np.void]
    letters: tuple[tuple[int, Message], ...]
    source: str
    tick: Callable[[int], Tick]

    @property
    def time_us(self) -> int:
        """Event time at its end."""
        if len(self.clocks) and self.clocks["index"][-1] == len(self.rows):
            return int(self.clocks["time"][-1])
        return int(self.rows["event_time"][-1]) if len(self.rows) else 0


def of_rows(rows: Iterable[Tick | BadRow], lanes: Lanes, size: int) -> Iterator[Batch]:
    """``rows`` in batches of at most ``size``."""
    ticks: list[Tick] = []
    bad: list[tuple[int, BadRow]] = []

    def batch() -> Batch:
        taken = np.zeros(len(ticks), TICK)
        for place, tick in enumerate(ticks):
            lanes.put(taken, place, tick)
        return Batch(taken, tuple(bad), ticks.__getitem__)

    for row in rows:
        if isinstance(row, BadRow):
            bad.append((len(ticks), row))
        else:
            ticks.append(row)
        if len(ticks) + len(bad) == size:
            yield batch()
            ticks, bad = [], []
    if ticks or bad:
        yield batch()


def interleave(batches: Iterable[Batch], lanes: Lanes, settings: ClockSettings) -> Iterator[Stretch]:
    """``batches`` with the clocks and letters that `connectors.clocks.interleave` would put among their rows."""
    follower = _Follower(lanes, settings)
    waiting: list[Batch] = []
    for batch in batches:
        waiting.append(batch)
        while sum(len(each.rows) + len(each.bad) for each in waiting[1:]) >= LOOK_AHEAD:
            yield follower.follow(waiting.pop(0), waiting)
    while waiting:
        batch = waiting.pop(0)
        yield follower.follow(batch, waiting, last=not waiting)


class _Follower:
    """The clock of a feed, carried from batch to batch."""

    def __init__(self, lanes: Lanes, settings: ClockSettings) -> None:
        self._lanes = lanes
        self._settings = settings
        self._clock: int | None = None

    def follow(self, batch: Batch, ahead: Iterable[Batch], *, last: bool = False) -> Stretch:
        """``batch`` with its clocks; ``ahead`` is what comes behind it, `LOOK_AHEAD` items at least or all."""
        settings = self._settings
        times, good = _items(batch, len(batch.rows) + len(batch.bad))
        count = len(times)
        for each in ahead:
            more, more_good = _items(each, LOOK_AHEAD)
            times, good = np.concatenate((times, more)), np.concatenate((good, more_good))
        steps, in_force = np.empty((count, 3), np.int64), np.zeros(len(batch.bad), np.int64)
        found, known, clock = _follow(
            np.clip(times, -_FURTHEST, _FURTHEST),
            good,
            count,
            self._clock is not None,
            self._clock or 0,
            settings.step_us,
            settings.lateness_us,
            settings.max_ahead_us,
            steps,
            in_force,
        )
        items, first, final = steps[:found].T
        if not settings.every_step:
            first = final
        self._clock = int(clock) if known else None
        # Of the row that an item is, or that a bad one stands before.
        places: NDArray[np.int64] = np.cumsum(good[:count]) - good[:count]
        lengths = (final - first) // settings.step_us + 1
        clocks = np.zeros(lengths.sum() + last, CLOCK)
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        clocks["index"][: len(within)] = np.repeat(places[items], lengths)
        clocks["time"][: len(within)] = np.repeat(first, lengths) + within * settings.step_us
        if last:
            clocks = self._end(clocks, len(batch.rows))
        letters = tuple(
            (place, Message(row.file, row.dead_letter(time), time, self._lanes.source))
            for (place, row), time in zip(batch.bad, in_force.tolist(), strict=True)
        )
        return Stretch(batch.rows, tuple(self._lanes.known), clocks, letters, self._lanes.source, batch.tick)

    def _end(self, clocks: NDArray[np.void], count: int) -> NDArray[np.void]:
        """``clocks``, the last of which is still empty, with the one that closes every window."""
        settings = self._settings
        if self._clock is None or settings.open_end:
            return clocks[:-1]
        end = self._clock + settings.step_us + settings.lateness_us + settings.close_after_us
        clocks[-1] = (count, -(-end // settings.step_us) * settings.step_us)
        return clocks


def _items(batch: Batch, most: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Times of the first ``most`` rows, the bad ones among them, and which of them are good."""
    times, good = batch.rows["event_time"][:most], np.ones(min(most, len(batch.rows)), np.bool_)
    places = [place for place, _ in batch.bad if place <= len(times)]
    return np.insert(times, places, 0)[:most], np.insert(good, places, False)[:most]


@kernel
def _follow(
    times: NDArray[np.int64],
    good: NDArray[np.bool_],
    count: int,
    known: bool,
    clock: Any,
    step: int,
    lateness: int,
    ahead_limit: int,
    steps: NDArray[np.int64],
    in_force: NDArray[np.int64],
) -> tuple[int, bool, int]:
    """Move the clock over the first ``count`` items; the others are there to be looked at.

    ``steps`` gets the item, the first boundary after the clock and the last, of each move; ``in_force`` the clock at
    each bad item. Answers the number of moves, whether there is a clock, and the clock.
    """
    found = bad = 0
    for i in range(count):
        if not good[i]:
            in_force[bad] = clock if known else 0
            bad += 1
            continue
        time = times[i]
        due = clock + step + lateness
        if known and time < due:
            continue
        safe = time
        if not known or time - due > ahead_limit:
            # The rule of `connectors.clocks`: the time may jump, unless most of the next ticks lie before the jump.
            following = earlier = 0
            earliest = time
            for j in range(i + 1, min(i + 1 + LOOK_AHEAD, times.shape[0])):
                if good[j]:
                    following += 1
                    if times[j] < time - (lateness + ahead_limit):
                        earlier += 1
                        earliest = min(earliest, times[j])
            if 2 * earlier > following:
                safe = due - 1 if known else earliest
        if known and safe < due:
            continue
        target = (safe - lateness) // step * step
        steps[found, 0] = i
        steps[found, 1] = clock + step if known else target
        steps[found, 2] = target
        found += 1
        clock, known = target, True
    return found, known, clock
