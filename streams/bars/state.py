"""What the kernel works on: the arrays of one symbol, and those that results go to."""

from __future__ import annotations

from typing import Any, Final, TypedDict

import numpy as np
from numpy.typing import NDArray

from schemas.records import NEVER
from schemas.states import BuilderState, OpenBar, SymbolState
from streams.bars.kinds import Family
from streams.bars.plan import Plan

FOREVER: Final = 2**62
"""Past every time: the next end where no window is open."""
PREFIXES_KEPT: Final = 64
"""Above this many, prefixes that no open window names are forgotten."""

Rows = NDArray[np.void]

EVENT: Final = np.dtype(
    [
        ("time", np.int64),  # µs since the epoch
        ("price", np.float64),
        ("size", np.float64),
        ("clock", np.int64),  # the partition's, in force when the tick came, µs
        ("number", np.int64),  # the tick's name is prefixes[stream] + str(number)
        ("stream", np.int32),
        ("side", np.int8),  # the aggressor's: 1 buy, -1 sell, 0 not told
    ],
    align=True,
)
BAR: Final = np.dtype(
    [
        ("kind", np.int32),  # index into the plan's kinds
        ("start", np.int64),
        ("end", np.int64),
        ("ordinal", np.int64),
        ("open", np.float64),
        ("high", np.float64),
        ("low", np.float64),
        ("close", np.float64),
        ("volume", np.float64),
        ("vwap", np.float64),
        ("count", np.int64),
        ("buy_volume", np.float64),
        ("sell_volume", np.float64),
        ("first_stream", np.int32),
        ("first_number", np.int64),
        ("last_stream", np.int32),
        ("last_number", np.int64),
    ],
    align=True,
)
LATE: Final = np.dtype(
    [
        ("event", np.int32),  # index into the events of the call
        ("kinds", np.uint64),  # bit k: late for the plan's kind k
        ("mark", np.int64),  # what had closed them, µs
        ("by_clock", np.bool_),
    ],
    align=True,
)

_OPEN_FIELDS: Final = (
    ("start", np.int64),
    ("end", np.int64),
    ("open", np.float64),
    ("high", np.float64),
    ("low", np.float64),
    ("close", np.float64),
    ("volume", np.float64),
    ("notional", np.float64),
    ("price_sum", np.float64),
    ("count", np.int64),
    ("buy_volume", np.float64),
    ("sell_volume", np.float64),
    ("first_time", np.int64),
    ("last_time", np.int64),
)
OPEN: Final = np.dtype(
    [
        ("kind", np.int32),
        *_OPEN_FIELDS,
        ("first_stream", np.int32),
        ("last_stream", np.int32),
        ("first_number", np.int64),
        ("last_number", np.int64),
    ],
    align=True,
)
"""An open bar; the fields of `schemas.states.OpenBar`."""

_COUNT: Final = OPEN.names.index("count")  # type: ignore[union-attr]

_BUILDER_FIELDS: Final = (
    ("bars", np.int64),
    ("mark", np.int64),
    ("base", np.float64),
    ("bricks", np.int64),
    ("direction", np.int64),
    ("buys", np.int64),
    ("sells", np.int64),
    ("bought", np.float64),
    ("sold", np.float64),
    ("expected_ticks", np.float64),
    ("expected_imbalance", np.float64),
    ("buy_share", np.float64),
    ("expected_buy", np.float64),
    ("expected_sell", np.float64),
)
_BUILDER_NAMES: Final = tuple(name for name, _ in _BUILDER_FIELDS)
BUILDER: Final = np.dtype([*_BUILDER_FIELDS, ("current", np.int64)], align=True)
"""What a kind knows beyond its open bar; the fields of `schemas.states.BuilderState`.

``current`` is the row of the window that the kind's last tick went to, or -1: a short cut, no state.
"""

HEAD: Final = np.dtype(
    [
        ("watermark", np.int64),
        ("last_price", np.float64),  # 0: none yet
        ("direction", np.int64),
        ("windows", np.int64),  # open time windows
    ],
    align=True,
)

PLACE: Final = np.dtype(
    [
        ("head", np.int64),
        ("builders", np.int64),
        ("rows", np.int64),
        ("length", np.int64),
        ("next_end", np.int64),
    ],
    align=True,
)
"""Where a symbol's arrays lie: their addresses, and the length of the one that grows."""


class Frozen(TypedDict):
    """The fields of a `SymbolState` that bars own."""

    watermark: int
    last_price: float | None
    direction: int
    open_bars: list[OpenBar]
    builders: list[BuilderState]


class SymbolBars:
    """One symbol's working state.

    ``rows`` holds open bars: row k that of the plan's kind k where k is no time kind (count 0: none is open), then
    from row ``len(plan.kinds)`` on the open windows of the time kinds, sorted by (end, kind).
    """

    __slots__ = (
        "_addresses",
        "_numbers",
        "_prefixes_limit",
        "_rows",
        "builders",
        "folded",
        "head",
        "next_end",
        "prefixes",
    )

    head: Rows
    """`HEAD`, shape (1,)."""
    builders: Rows
    """`BUILDER`, shape (kinds,)."""
    next_end: int
    """Earliest end of an open time window, µs; FOREVER where none is open."""
    folded: bool
    """`step` was here since the last call of `stream`."""
    prefixes: list[str]
    """Names of ticks without their numbers, ``source/session/``: those that open bars name, and new ones."""

    @classmethod
    def thaw(cls, state: SymbolState, plan: Plan) -> SymbolBars:
        """The working state of what the contract's state says, of an empty one too.

        What is of a kind that the plan does not know is left out: no settings that matter name it any more.
        """
        bars = cls()
        kinds = len(plan.kinds)
        bars.prefixes, bars._numbers, bars._prefixes_limit, bars.folded = [], {}, PREFIXES_KEPT, False
        bars.head = np.zeros(1, HEAD)
        bars.head[0] = (state.watermark, state.last_price or 0.0, state.direction, 0)
        bars.builders = np.zeros(kinds, BUILDER)
        bars.builders["mark"] = NEVER
        bars.builders["buy_share"] = 0.5
        bars.builders["current"] = -1
        for builder in state.builders:
            if builder.kind in plan.numbers:
                bars.builders[plan.numbers[builder.kind]] = (
                    *(getattr(builder, name) for name, _ in _BUILDER_FIELDS),
                    -1,
                )
        bars.rows = np.zeros(kinds + max(4, len(state.open_bars) + 2 * kinds), OPEN)
        bars.next_end = FOREVER
        windows = kinds
        known = [(plan.numbers[bar.kind], bar) for bar in state.open_bars if bar.kind in plan.numbers]
        for number, bar in sorted(known, key=lambda each: (each[1].end, each[0])):
            place = number
            if plan.table["family"][number] <= Family.SESSION:
                bars.next_end = min(bars.next_end, bar.end)
                place = windows
                windows += 1
            first, first_number = bars._name(bar.first_tick)
            last, last_number = bars._name(bar.last_tick)
            fields = (getattr(bar, name) for name, _ in _OPEN_FIELDS)
            bars.rows[place] = (number, *fields, first, last, first_number, last_number)
        bars.head[0]["windows"] = windows - kinds
        return bars

    @property
    def rows(self) -> Rows:
        """`OPEN`, of any length."""
        return self._rows

    @rows.setter
    def rows(self, rows: Rows) -> None:
        self._rows = rows
        self._addresses = (_address(self.head), _address(self.builders), _address(rows), len(rows))

    @property
    def place(self) -> tuple[int, int, int, int, int]:
        """A row of `PLACE`: good until ``rows`` is set anew."""
        return *self._addresses, self.next_end

    def freeze(self, plan: Plan) -> Frozen:
        """The same as fields of a `SymbolState`: ``SymbolState(names=..., regimes=..., **bars.freeze(plan))``."""
        ((watermark, last_price, direction, windows),) = self.head.tolist()
        rows = self.rows[: len(plan.kinds) + windows].tolist()
        builders = [
            BuilderState(kind=kind, **dict(zip(_BUILDER_NAMES, values, strict=False)))
            for kind, values, row in zip(plan.kinds, self.builders.tolist(), rows, strict=False)
            if values[0] or row[_COUNT]
        ]
        return Frozen(
            watermark=watermark,
            last_price=last_price or None,
            direction=direction,
            open_bars=[self._open_bar(row, plan) for row in rows if row[_COUNT]],
            builders=builders,
        )

    def stream(self, prefix: str) -> int:
        """The number of a prefix, which is added where it is new.

        Numbers hold until the first call after the next `step`: then, now and again, prefixes that no open bar
        names any more are forgotten and the others numbered anew.
        """
        if self.folded:
            self.folded = False
            if len(self.prefixes) > self._prefixes_limit:
                self._forget()
        number = self._numbers.get(prefix)
        if number is None:
            number = self._numbers[prefix] = len(self.prefixes)
            self.prefixes.append(prefix)
        return number

    def _forget(self) -> None:
        """Keep the prefixes that open bars name."""
        opened = self.rows["count"] > 0
        named = np.concatenate([self.rows["first_stream"][opened], self.rows["last_stream"][opened]])
        used, places = np.unique(named, return_inverse=True)
        self.rows["first_stream"][opened], self.rows["last_stream"][opened] = np.split(places, 2)
        self.prefixes = [self.prefixes[number] for number in used.tolist()]
        self._numbers = {prefix: number for number, prefix in enumerate(self.prefixes)}
        self._prefixes_limit = max(PREFIXES_KEPT, 2 * len(self.prefixes))

    def _name(self, name: str) -> tuple[int, int]:
        """Stream and number of a tick's name."""
        prefix, _, number = name.rpartition("/")
        return self.stream(prefix + "/"), int(number)

    def _open_bar(self, row: tuple[Any, ...], plan: Plan) -> OpenBar:
        (
            kind,
            start,
            end,
            opening,
            high,
            low,
            close,
            volume,
            notional,
            price_sum,
            count,
            bought,
            sold,
            *rest,
        ) = row
        first_time, last_time, first_stream, last_stream, first_number, last_number = rest
        return OpenBar(
            kind=plan.kinds[kind],
            start=start,
            end=end,
            open=opening,
            high=high,
            low=low,
            close=close,
            volume=volume,
            notional=notional,
            price_sum=price_sum,
            count=count,
            buy_volume=bought,
            sell_volume=sold,
            first_time=first_time,
            last_time=last_time,
            first_tick=self.prefixes[first_stream] + str(first_number),
            last_tick=self.prefixes[last_stream] + str(last_number),
        )


class Outbox:
    """Where `step_all` puts results: one for many calls; it grows as it must."""

    __slots__ = ("bar_rows", "cursor", "ends", "late_rows")

    def __init__(self) -> None:
        self.bar_rows: Rows = np.empty(4096, BAR)
        self.late_rows: Rows = np.empty(1024, LATE)
        self.ends: NDArray[np.int64] = np.zeros((0, 2), np.int64)
        """By symbol of the call: how many bars, and late ticks, there are up to it."""
        self.cursor: NDArray[np.int64] = np.zeros(4, np.int64)
        """Next event of the symbol; bars; late ticks; the symbol."""

    def begin(self, symbols: int) -> None:
        """Forget all results; room for those of so many symbols."""
        self.cursor[:] = 0
        self.ends = np.zeros((symbols, 2), np.int64)

    @property
    def bars(self) -> Rows:
        """Closed bars, `BAR`, shape (n,); a view that the next call makes stale."""
        return self.bar_rows[: self.cursor[1]]

    @property
    def late(self) -> Rows:
        """Late ticks, `LATE`, shape (n,); a view likewise."""
        return self.late_rows[: self.cursor[2]]

    @property
    def bar_symbols(self) -> NDArray[np.int64]:
        """The symbol of the call that each closed bar is of, shape (n,)."""
        return np.repeat(np.arange(len(self.ends)), np.diff(self.ends[:, 0], prepend=0))

    @property
    def late_symbols(self) -> NDArray[np.int64]:
        """The same of late ticks."""
        return np.repeat(np.arange(len(self.ends)), np.diff(self.ends[:, 1], prepend=0))


def _address(rows: Rows) -> int:
    return int(rows.ctypes.data)


def grown(rows: Rows, room: int) -> Rows:
    """A copy of ``rows`` with twice the length, and at least ``room`` more; what is added is zero."""
    longer: Rows = np.zeros(max(2 * len(rows), len(rows) + room), rows.dtype)
    longer[: len(rows)] = rows
    return longer
