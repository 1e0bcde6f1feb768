"""The plain lines of a CSV file to columns, by kernels over its bytes and without an object per line.

A line is plain where nothing has to be guessed: as many cells as there are columns, no quotes, numbers of digits and at
most one point, times as counts of digits or in the usual spelling of ISO 8601. Of such a line this says exactly what
`connectors.files.layout.Layout.read` would; every other line is left to that.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from connectors.files import values
from connectors.files.layout import Layout
from connectors.files.settings import TIME_UNITS_PER_SECOND, FilesSettings
from schemas.columns import SIDES, TICK, Rows
from schemas.compiled import kernel

Array = NDArray[Any]


class LineState(IntEnum):
    """What a line is."""

    PLAIN = 0
    LOCAL = 1
    """Plain, with a time that does not say its zone."""
    UNSURE = 2
    BLANK = 3


_PLAIN, _LOCAL, _UNSURE, _BLANK = map(int, LineState)
_MOST_WORDS: Final = 65_536
_LONGEST_WORD: Final = 24
_LONGEST_LINE: Final = 65_536
_MOST_DIGITS: Final = 18
_EXACT: Final = 2**53
"""A double holds every integer up to this."""
_FIRST_YEAR, _LAST_YEAR = 1980, 2199
"""Of ISO times: since then, no zone's offset has changed in the middle of a minute."""
_MINUTE_US: Final = 60_000_000
_EPOCH: Final = datetime(1970, 1, 1)


class Lines(NamedTuple):
    """The lines of a block, a row each."""

    rows: Rows
    """``sequence`` is the line's number; the rest holds where the line is PLAIN."""
    state: NDArray[np.uint8]
    """Of `LineState`; never LOCAL."""
    begins: NDArray[np.int64]
    """Where each line begins, and, last, where the block ends."""


class Scanner:
    """Reads the blocks of one file. ``lane`` numbers a symbol."""

    def __init__(
        self, layout: Layout, settings: FilesSettings, delimiter: str, lane: Callable[[str], int]
    ) -> None:
        self._delimiter = np.uint8(ord(delimiter))
        self._iso = layout.time_format == "iso"
        self._units = TIME_UNITS_PER_SECOND.get(layout.time_format, 1)
        self._zone = ZoneInfo(settings.time_zone)
        self._divisors = {"price": _divisors(layout.price_scale), "size": _divisors(1)}
        self._fields = [(field, column) for field, found in layout.columns.items() for column in found]
        self._wanted = np.full(layout.width, -1, np.int64)
        for number, (_, column) in enumerate(self._fields):
            self._wanted[column] = number
        bits = values.bits(settings.condition_base)
        self._words = {
            "symbol": ("lane", _Words(lambda cell: lane(values.symbol(cell)))),
            "conditions": ("conditions", _Words(bits)),
            "suspicious": ("suspicious", _Words(values.flag)),
            "aggressor": ("side", _Words(lambda cell: SIDES[values.side(cell)])),
        }
        constants = settings.constants
        self._lane = None if constants.symbol is None else lane(values.symbol(constants.symbol))
        self._size = constants.size

    @staticmethod
    def can_read(layout: Layout, delimiter: str) -> bool:
        """Whether there may be plain lines in a file of such a layout."""
        columns = [column for found in layout.columns.values() for column in found]
        time = layout.columns["time"]
        counted = layout.time_format in TIME_UNITS_PER_SECOND and len(time) == 1
        spelled = layout.time_format == "iso" and len(time) <= 2
        cut = delimiter.isascii() and delimiter not in '\r\n"'
        return (counted or spelled) and cut and len(columns) == len(set(columns))

    def read(self, block: bytes, number: int, most: int | None = None) -> Lines:
        """The first ``most`` lines of a ``block`` that ends where a line ends; its first is line ``number``."""
        count = block.count(b"\n") + (not block.endswith(b"\n"))
        if most is not None:
            count = min(count, most)
        text = np.frombuffer(block, np.uint8)
        rows = np.zeros(count, TICK)
        rows["sequence"] = np.arange(number, number + count)
        if self._lane is not None:
            rows["lane"] = self._lane
        if self._size is not None:
            rows["size"] = self._size
        state, begins = np.zeros(count, np.uint8), np.empty(count + 1, np.int64)
        cells = np.zeros((len(self._fields), count, 2), np.int32)
        split(text, self._delimiter, self._wanted, begins, cells, state)
        for place, (field, _) in enumerate(self._fields):
            found = cells[place]
            if field in self._words:
                target, words = self._words[field]
                rows[target] = words.read(text, found, state)
            elif field in self._divisors:
                rows[field] = _quotients(text, found, state, self._divisors[field])
            elif field != "time":
                plain_text(text, found, state)
            elif not self._iso:
                rows["event_time"] = self._counted(text, found, state)
            elif len(cells) > place + 1 and self._fields[place + 1][0] == "time":
                iso(text, found, cells[place + 1], state, rows["event_time"])
            elif place == 0 or self._fields[place - 1][0] != "time":
                iso(text, *_halves(text, found, state), state, rows["event_time"])
        if self._iso:
            self._localize(rows, state)
        return Lines(rows, state, begins)

    def _counted(self, text: Array, cells: Array, state: Array) -> Array:
        """Microseconds since the epoch from units since the epoch; ties to even."""
        number, behind = _digits(text, cells, state)
        if self._units > 1_000_000:
            parts = self._units // 1_000_000
            whole, rest = np.divmod(number, parts)
            state[behind > 0] = _UNSURE
            rounded: Array = whole + ((2 * rest > parts) | ((2 * rest == parts) & (whole % 2 == 1)))
            return rounded
        factors = np.zeros(_MOST_DIGITS + 1, np.int64)
        factor = 1_000_000 // self._units
        for behind_point in range(len(str(factor))):
            factors[behind_point] = factor // 10**behind_point
        factors = factors[behind]
        state[(factors == 0) | (number > 2**62 // np.maximum(factors, 1))] = _UNSURE
        counted: Array = number * factors
        return counted

    def _localize(self, rows: Rows, state: Array) -> None:
        """Times of the settings' zone to UTC, minute by minute."""
        local = state == _LOCAL
        state[local] = _PLAIN
        if self._zone.key == "UTC" or not local.any():
            return
        times = rows["event_time"][local]
        minutes, which = np.unique(times // _MINUTE_US, return_inverse=True)
        moments = [
            values.moment(_EPOCH + timedelta(minutes=minute), self._zone) for minute in minutes.tolist()
        ]
        rows["event_time"][local] = times + (np.array(moments, np.int64) - minutes * _MINUTE_US)[which]


class _Words:
    """The different cells of a column that has few, in order of first sight: each is converted once."""

    def __init__(self, convert: Callable[[str], int]) -> None:
        self._convert = convert
        self._slots = np.full(2 * _MOST_WORDS, -1, np.int32)
        self._lengths = np.zeros(_MOST_WORDS, np.int32)
        self._pool = np.zeros((_MOST_WORDS, _LONGEST_WORD), np.uint8)
        self._known = 0
        self._values = np.zeros(_MOST_WORDS, np.int64)
        self._good = np.zeros(_MOST_WORDS, np.bool_)

    def read(self, text: Array, cells: Array, state: Array) -> Array:
        """The value of each cell. One that is none, is long, or is one too many makes its line UNSURE."""
        found = np.zeros(len(cells), np.int32)
        known = intern(text, cells, state, self._slots, self._lengths, self._pool, self._known, found)
        for word in range(self._known, known):
            cell = self._pool[word, : self._lengths[word]].tobytes()
            try:
                self._values[word] = self._convert(cell.decode("utf-8", "surrogateescape"))
                self._good[word] = True
            except (ValueError, TypeError, ArithmeticError):
                continue
        self._known = known
        state[~self._good[found] & (state <= _LOCAL)] = _UNSURE
        read: Array = self._values[found]
        return read


def _divisors(scale: int) -> Array:
    """What digits are divided by, shape (19,): by how many stand behind the point.

    NaN where a double cannot hold it: the quotient would be rounded twice.
    """
    exact = [10**digits * scale for digits in range(_MOST_DIGITS + 1)]
    return np.array([float(value) if int(float(value)) == value else np.nan for value in exact])


def _digits(text: Array, cells: Array, state: Array) -> tuple[Array, Array]:
    number, behind = np.zeros(len(cells), np.int64), np.zeros(len(cells), np.int64)
    digits(text, cells, state, number, behind)
    return number, behind


def _quotients(text: Array, cells: Array, state: Array, divisors: Array) -> Array:
    number, behind = _digits(text, cells, state)
    chosen = divisors[behind]
    state[((number > _EXACT) | np.isnan(chosen)) & (state <= _LOCAL)] = _UNSURE
    quotients: Array = number / chosen
    return quotients


def _halves(text: Array, cells: Array, state: Array) -> tuple[Array, Array]:
    """Date and time of day of times in one cell, where a blank or a T stands between."""
    middle = np.minimum(cells[:, 0] + 10, len(text) - 1)
    parted = (cells[:, 1] > middle) & ((text[middle] == 32) | (text[middle] == 84))
    state[~parted & (state <= _LOCAL)] = _UNSURE
    return np.stack((cells[:, 0], middle), 1), np.stack((middle + 1, cells[:, 1]), 1)


@kernel
def split(text: Array, delimiter: np.uint8, wanted: Array, begins: Array, cells: Array, state: Array) -> None:
    """Cut ``text`` into lines, and each line's wanted columns into ``cells``: begin and end, shape (fields, n, 2)."""
    width, size = wanted.shape[0], text.shape[0]
    at = 0
    for i in range(state.shape[0]):
        begin = at
        while at < size and text[at] != 10:
            at += 1
        upcoming, end = at + 1, at
        while end > begin and text[end - 1] == 13:
            end -= 1
        begins[i] = begin
        at = begin
        column = 0
        quoted = False
        while True:
            cell = at
            while at < end and text[at] != delimiter:
                quoted |= text[at] == 34
                at += 1
            field = wanted[column]
            if field >= 0:
                cells[field, i, 0] = cell
                cells[field, i, 1] = at
            column += 1
            if at == end or column == width:
                break
            at += 1
        if end == begin:
            state[i] = _BLANK
        elif quoted or column != width or at != end or end - begin >= _LONGEST_LINE:
            state[i] = _UNSURE
        at = upcoming
    begins[state.shape[0]] = min(at, size)


@kernel
def digits(text: Array, cells: Array, state: Array, number: Array, behind: Array) -> None:
    """The digits of each cell as one integer, and how many stand behind the point; blanks around them are skipped."""
    for i in range(cells.shape[0]):
        if state[i] > _LOCAL:
            continue
        begin, end = np.int64(cells[i, 0]), np.int64(cells[i, 1])
        while begin < end and text[begin] == 32:
            begin += 1
        while end > begin and text[end - 1] == 32:
            end -= 1
        value: Any = 0
        count, point = 0, -1
        good: Any = end - begin <= _MOST_DIGITS + 1
        if good:
            for at in range(begin, end):
                digit: Any = np.int64(text[at]) - 48
                if 0 <= digit <= 9:
                    value = value * 10 + digit
                    count += 1
                elif digit == -2 and point < 0:
                    point = count
                else:
                    good = False
                    break
        if good and 0 < count <= _MOST_DIGITS:
            number[i] = value
            behind[i] = count - point if point >= 0 else 0
        else:
            state[i] = _UNSURE


@kernel
def intern(
    text: Array,
    cells: Array,
    state: Array,
    slots: Array,
    lengths: Array,
    pool: Array,
    known: int,
    found: Array,
) -> int:
    """The number of each cell among the words, new words behind the ``known`` ones; answers how many there are."""
    latest: Any = 0
    for i in range(cells.shape[0]):
        if state[i] > _LOCAL:
            continue
        begin, length = np.int64(cells[i, 0]), np.int64(cells[i, 1] - cells[i, 0])
        if length > pool.shape[1]:
            state[i] = _UNSURE
            continue
        word: Any = latest
        same: Any = word < known and lengths[word] == length
        place = 0
        while same and place < length:
            same = pool[word, place] == text[begin + place]
            place += 1
        if not same:
            digest = np.int64(0)
            for place in range(length):
                digest = digest * 1_000_003 + text[begin + place]
            slot = (digest ^ (digest >> 17)) & (slots.shape[0] - 1)
            while slots[slot] >= 0:
                word = np.int64(slots[slot])
                same = lengths[word] == length
                place = 0
                while same and place < length:
                    same = pool[word, place] == text[begin + place]
                    place += 1
                if same:
                    break
                slot = (slot + 1) & (slots.shape[0] - 1)
        if not same:
            if known == pool.shape[0]:
                state[i] = _UNSURE
                continue
            word = known
            known += 1
            slots[slot] = word
            lengths[word] = length
            for place in range(length):
                pool[word, place] = text[begin + place]
        latest = word
        found[i] = word
    return known


@kernel
def plain_text(text: Array, cells: Array, state: Array) -> None:
    """Lines whose cell is not all ASCII are UNSURE."""
    for i in range(cells.shape[0]):
        for at in range(cells[i, 0], cells[i, 1]):
            if text[at] >= 128 and state[i] <= _LOCAL:
                state[i] = _UNSURE


@kernel
def iso(text: Array, dates: Array, clocks: Array, state: Array, times: Array) -> None:
    """Microseconds of YYYY-MM-DD and HH:MM:SS[.f…][Z|±HH:MM]; finer digits are cut off. LOCAL without a zone."""
    for i in range(dates.shape[0]):
        if state[i] > _LOCAL:
            continue
        state[i] = _UNSURE
        date, at, end = np.int64(dates[i, 0]), np.int64(clocks[i, 0]), np.int64(clocks[i, 1])
        if dates[i, 1] != date + 10 or end < at + 8:
            continue
        year = _two(text[date], text[date + 1]) * 100 + _two(text[date + 2], text[date + 3])
        month, day = _two(text[date + 5], text[date + 6]), _two(text[date + 8], text[date + 9])
        hour, minute = _two(text[at], text[at + 1]), _two(text[at + 3], text[at + 4])
        second = _two(text[at + 6], text[at + 7])
        if text[date + 4] != 45 or text[date + 7] != 45 or text[at + 2] != 58 or text[at + 5] != 58:
            continue
        if not (_FIRST_YEAR <= year <= _LAST_YEAR and 1 <= month <= 12 and 1 <= day <= _days(year, month)):
            continue
        if not (0 <= hour <= 23 and 0 <= minute <= 59 and 0 <= second <= 59):
            continue
        at += 8
        part_us: Any = 0
        unit_us = 100_000
        if at < end and text[at] == 46:
            at += 1
            first = at
            while at < end and 48 <= text[at] <= 57:
                part_us += (np.int64(text[at]) - 48) * unit_us
                unit_us //= 10
                at += 1
            if at == first:
                continue
        shift = 0
        zone = _LOCAL
        if at < end:
            zone = _PLAIN
            if text[at] == 90:
                at += 1
            elif end == at + 6 and (text[at] == 43 or text[at] == 45) and text[at + 3] == 58:
                hours, minutes = _two(text[at + 1], text[at + 2]), _two(text[at + 4], text[at + 5])
                if not (0 <= hours <= 23 and 0 <= minutes <= 59):
                    continue
                shift = (hours * 60 + minutes) * (1 if text[at] == 43 else -1)
                at += 6
        if at == end:
            minute += (_day(year, month, day) * 24 + hour) * 60 - shift
            times[i] = (minute * 60 + second) * 1_000_000 + part_us
            state[i] = zone


@kernel
def _two(tens: Any, ones: Any) -> Any:
    """Two digits as a number; far below zero where they are none."""
    high, low = np.int64(tens) - 48, np.int64(ones) - 48
    return high * 10 + low if 0 <= high <= 9 and 0 <= low <= 9 else np.int64(-1_000_000)


@kernel
def _days(year: int, month: int) -> int:
    """Days in a month."""
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31


@kernel
def _day(year: int, month: int, day: int) -> int:
    """Days since the epoch: https://howardhinnant.github.io/date_algorithms.html, days_from_civil."""
    if month <= 2:
        year -= 1
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return 365 * year + year // 4 - year // 100 + year // 400 + day_of_year - 719_468
