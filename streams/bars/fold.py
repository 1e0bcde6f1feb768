"""The kernel that goes over the events of a run, symbol by symbol, and how it is called.

Kinds close on their own: a tick that is late for 1-second bars may still be in time for 5-minute bars. Then it goes to
the late topic once, with the kinds that it was late for, and counts in the others. For windows of time a tick is late
where its window is closed (see `streams.bars.time`). Other kinds take ticks in order of arrival; one is late for them
where its time is below the latest end of the kind's closed bars, less the lateness. A tick that is late for a kind and
counts in none leaves no other trace: it moves neither the watermark nor the tick rule. One that no kind has a window
for, because it is outside of all sessions, is late for none, and moves both.

Where a plan has several versions of the settings, each kind is active under some of them. A window that starts under
settings that do not name its kind is none. Other kinds begin no bar with a tick of such a time: a bar that is open when
its kind ends goes on until it is complete, and a tick from before its kind began does not count in it.

Bars that one event closes leave in order: windows by (end, order of the kinds), then the others in order of the kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from schemas.compiled import carray, kernel, pointer
from schemas.records import NEVER
from schemas.states import SymbolState
from streams.bars import imbalance, opened, renko, runs, threshold, time
from streams.bars import range as ranges
from streams.bars.kinds import Family
from streams.bars.plan import Plan
from streams.bars.state import BUILDER, EVENT, FOREVER, HEAD, OPEN, PLACE, Outbox, Rows, SymbolBars, grown

Row = Any

_SESSION: Final = int(Family.SESSION)
_THRESHOLD: Final = int(Family.THRESHOLD)
_RANGE: Final = int(Family.RANGE)
_RENKO: Final = int(Family.RENKO)
_IMBALANCE: Final = int(Family.IMBALANCE)


def step(bars: SymbolBars, events: Rows, clock: int, plan: Plan, out: Outbox) -> None:
    """`step_all` for one symbol, all of whose ``events`` they are."""
    step_all([bars], np.array([0, len(events)]), events, clock, plan, out)


def step_all(
    symbols: Sequence[SymbolBars],
    begins: NDArray[np.int64],
    events: Rows,
    clock: int,
    plan: Plan,
    out: Outbox,
) -> None:
    """Fold each symbol's events, then the partition's clock at the end of the run, into its bars.

    Args:
        symbols: their states; changed. None is there twice.
        begins: int64, shape (symbols + 1,); the events of symbol i are those from begins[i] to begins[i + 1].
        events: `EVENT`, shape (n,), contiguous and writable; admitted ticks in order of arrival within a symbol, each
            with a price above 0 and the clock in force when it came.
        clock: µs; NEVER where there is none.
        out: gets closed bars and late ticks, in order of the symbols and each symbol's in order of its events; what
            it held before is gone.

    Clocks between two ticks may be left to the second tick, or to the end: what they close comes out in the same
    order as if each had been dealt with at its place. The events may be cut anywhere into several calls, each with the
    clock at its end, without a difference in any byte.
    """
    out.begin(len(symbols))
    places = np.array([bars.place for bars in symbols], PLACE)
    while True:
        _fold_all(
            begins,
            events,
            clock,
            places,
            plan.table,
            plan.parts,
            plan.begins,
            plan.active,
            plan.lateness_us,
            plan.most_bars,
            out.bar_rows,
            out.late_rows,
            out.ends,
            out.cursor,
        )
        stopped = int(out.cursor[3])
        if stopped == len(symbols):
            break
        _make_room(symbols[stopped], plan, out)
        places[stopped] = symbols[stopped].place
    for bars, next_end in zip(symbols, places["next_end"].tolist(), strict=True):
        bars.next_end = next_end
        bars.folded = True


def prepare() -> None:
    """Compile the kernels, or read them from the cache: a few seconds or a fraction of one."""
    plan = Plan.of(("time:1s",), 0, 0)
    step(SymbolBars.thaw(SymbolState(), plan), np.zeros(0, EVENT), NEVER, plan, Outbox())


def _make_room(bars: SymbolBars, plan: Plan, out: Outbox) -> None:
    """Lengthen whatever array the next event might not fit into."""
    kinds, windows = len(plan.kinds), int(bars.head[0]["windows"])
    _, closed, late, _ = out.cursor.tolist()
    if len(bars.rows) < 2 * kinds + windows:
        bars.rows = grown(bars.rows, kinds)
    if len(out.bar_rows) < closed + windows + plan.most_bars:
        out.bar_rows = grown(out.bar_rows, windows + plan.most_bars)
    if len(out.late_rows) == late:
        out.late_rows = grown(out.late_rows, 1)


@kernel
def _fold_all(
    begins: Any,
    events: Rows,
    clock: int,
    places: Rows,
    table: Rows,
    parts: Rows,
    begun: Any,
    active: Any,
    lateness: int,
    most_bars: int,
    bars: Rows,
    late: Rows,
    ends: Any,
    cursor: Any,
) -> None:
    """Go on with the symbol ``cursor[3]``; stop at one whose next event might not fit, or behind the last."""
    kinds = len(table)
    number = cursor[3]
    while number < len(places):
        place = places[number]
        mine = events[begins[number] : begins[number + 1]]
        place.next_end = _fold(
            mine,
            clock,
            carray(pointer(place.head), 1, HEAD),
            carray(pointer(place.rows), place.length, OPEN),
            carray(pointer(place.builders), kinds, BUILDER),
            table,
            parts,
            begun,
            active,
            lateness,
            most_bars,
            bars,
            late,
            cursor,
        )
        if cursor[0] <= len(mine):
            break
        ends[number, 0], ends[number, 1] = cursor[1], cursor[2]
        cursor[0] = 0
        number += 1
    cursor[3] = number


@kernel
def _fold(
    events: Rows,
    clock: int,
    heads: Rows,
    rows: Rows,
    builders: Rows,
    table: Rows,
    parts: Rows,
    begun: Any,
    active: Any,
    lateness: int,
    most_bars: int,
    bars: Rows,
    late: Rows,
    cursor: Any,
) -> int:
    """Go on with the event ``cursor[0]``; stop at the first that might not fit, or past the clock at the end.

    Returns the earliest end of an open window.
    """
    head = heads[0]
    kinds = len(table)
    versions = len(begun)
    position, closed, lates = cursor[0], cursor[1], cursor[2]
    watermark, last_price, direction = head.watermark, head.last_price, head.direction
    next_end = rows[kinds].end if head.windows > 0 else FOREVER

    while position < len(events):
        room = len(rows) >= 2 * kinds + head.windows and len(bars) >= closed + head.windows + most_bars
        if not room or lates == len(late):
            break
        event = events[position]
        moment = event.time

        # Windows that end at or before `through` are closed.
        mark = max(event.clock, watermark)
        through = mark - lateness
        if through >= next_end:
            closed = _close_windows(head, rows, builders, through, bars, closed)
            next_end = rows[kinds].end if head.windows > 0 else FOREVER

        # No kind can have closed a bar past `through`, so only then a tick may be late.
        missed = np.uint64(0)
        if moment < through:
            missed, taken = _missed(
                rows, builders, table, parts, begun, active, lateness, moment, mark, event.clock, late[lates]
            )
            if missed != 0:
                late[lates].event = position
                lates += 1
                if not taken:
                    position += 1
                    continue
        position += 1

        if moment > watermark:
            watermark = moment
            if moment - lateness >= next_end:
                closed = _close_windows(head, rows, builders, moment - lateness, bars, closed)
                next_end = rows[kinds].end if head.windows > 0 else FOREVER

        price, size = event.price, event.size
        if last_price > 0.0:
            if price > last_price:
                direction = 1
            elif price < last_price:
                direction = -1
        last_price = price
        side = event.side if event.side != 0 else direction
        notional = price * size
        buy = size if side > 0 else 0.0 if side < 0 else size / 2.0
        sell = size if side < 0 else 0.0 if side > 0 else size / 2.0

        for k in range(kinds):
            if missed >> np.uint64(k) & np.uint64(1) != 0:
                continue
            kind = table[k]
            if kind.family <= _SESSION:
                place = builders[k].current
                if place < 0 or kind.has_gaps or not rows[place].start <= moment < rows[place].end:
                    start, end = time.window(kind, parts, moment)
                    if start == time.NO_WINDOW:
                        continue
                    if versions > 1 and not active[time.in_force(begun, start), k]:
                        continue
                    place = _place(head, rows, builders, k, start, end, event)
                    next_end = min(next_end, end)
                opened.add(rows[place], event, notional, buy, sell)
            else:
                bar = rows[k]
                if versions > 1 and not _counts(bar, begun, active, k, moment):
                    continue
                if bar.count == 0:
                    opened.begin(bar, k, moment, moment, event)
                opened.add(bar, event, notional, buy, sell)
                bar.start, bar.end = bar.first_time, bar.last_time
                closed = _build(kind, builders[k], bar, event, side, notional, bars, closed)

    if position == len(events) and len(bars) >= closed + head.windows:
        through = max(clock, watermark) - lateness
        if through >= next_end:
            closed = _close_windows(head, rows, builders, through, bars, closed)
            next_end = rows[kinds].end if head.windows > 0 else FOREVER
        position += 1
    head.watermark, head.last_price, head.direction = watermark, last_price, direction
    cursor[0], cursor[1], cursor[2] = position, closed, lates
    return next_end


@kernel
def _counts(bar: Row, begun: Any, active: Any, k: int, moment: int) -> bool:
    """Whether a bar that ticks close takes a tick at ``moment``: its kind is active, or the bar was open before."""
    return bool(active[time.in_force(begun, moment), k] or (bar.count > 0 and moment >= bar.start))


@kernel
def _missed(
    rows: Rows,
    builders: Rows,
    table: Rows,
    parts: Rows,
    begun: Any,
    active: Any,
    lateness: int,
    moment: int,
    mark: int,
    clock: int,
    late: Row,
) -> tuple[Any, bool]:
    """Bits of the kinds that a tick is late for, and whether another takes it; fills ``late`` where there are any."""
    missed = np.uint64(0)
    taken = False
    by_window = False
    latest = NEVER
    for k in range(len(table)):
        if table[k].family <= _SESSION:
            start, end = time.window(table[k], parts, moment)
            if start == time.NO_WINDOW:
                continue
            if len(begun) > 1 and not active[time.in_force(begun, start), k]:
                continue
            if end > mark - lateness:
                taken = True
                continue
            by_window = True
        elif len(begun) > 1 and not _counts(rows[k], begun, active, k, moment):
            continue
        elif moment >= builders[k].mark - lateness:
            taken = True
            continue
        else:
            latest = max(latest, builders[k].mark)
        missed |= np.uint64(1) << np.uint64(k)
    late.kinds = missed
    late.mark = mark if by_window else latest
    late.by_clock = by_window and clock == mark
    return missed, taken


@kernel
def _close_windows(head: Row, rows: Rows, builders: Rows, through: int, bars: Rows, closed: int) -> int:
    """Move windows that end at or before ``through`` to ``bars``; returns how many bars there are now."""
    kinds, windows = len(builders), head.windows
    due = 0
    while due < windows and rows[kinds + due].end <= through:
        opened.close(rows[kinds + due], 0, bars[closed])
        closed += 1
        due += 1
    for place in range(kinds + due, kinds + windows):
        rows[place - due] = rows[place]
    for place in range(kinds + windows - due, kinds + windows):
        rows[place].count = 0
    head.windows = windows - due
    for k in range(kinds):
        current = builders[k].current - due
        builders[k].current = current if current >= kinds else -1
    return closed


@kernel
def _place(head: Row, rows: Rows, builders: Rows, k: int, start: int, end: int, event: Row) -> int:
    """The row of a window of kind ``k``, which is opened where it is not open yet."""
    kinds = len(builders)
    last = kinds + head.windows
    place = last
    while place > kinds and (
        rows[place - 1].end > end or (rows[place - 1].end == end and rows[place - 1].kind > k)
    ):
        place -= 1
    if place > kinds and rows[place - 1].end == end and rows[place - 1].kind == k:
        place -= 1
    else:
        for moved in range(last, place, -1):
            rows[moved] = rows[moved - 1]
        opened.begin(rows[place], k, start, end, event)
        head.windows += 1
        for other in range(kinds):
            if builders[other].current >= place:
                builders[other].current += 1
    builders[k].current = place
    return int(place)


@kernel
def _build(
    kind: Row, builder: Row, bar: Row, event: Row, side: int, notional: float, bars: Rows, closed: int
) -> int:
    """Close ``bar``, to which ``event`` was just added, where its kind says so; returns how many bars there are now."""
    if kind.family == _RENKO:
        return _bricks(kind, builder, bar, event, bars, closed)
    ticks = bar.count
    if kind.family == _THRESHOLD:
        reached = threshold.reached(kind, bar)
    elif kind.family == _RANGE:
        reached = ranges.reached(kind, bar)
    else:
        imbalance.weigh(kind, builder, side, event.size, notional)
        if kind.family == _IMBALANCE:
            reached = imbalance.reached(kind, builder, ticks)
            if reached:
                imbalance.learn(kind, builder, ticks)
        else:
            reached = runs.reached(kind, builder, ticks)
            if reached:
                runs.learn(kind, builder, ticks)
    if reached:
        builder.mark = max(builder.mark, bar.end)
        opened.close(bar, builder.bars, bars[closed])
        builder.bars += 1
        closed += 1
    return closed


@kernel
def _bricks(kind: Row, builder: Row, bar: Row, event: Row, bars: Rows, closed: int) -> int:
    """Close a renko bar, and lay the further bricks that the tick makes; returns how many bars there are now."""
    if builder.base == 0.0:
        renko.begin_grid(builder, event.price)
    made = 0
    direction = renko.brick(kind, builder, event.price)
    while direction != 0 and made < renko.MOST_BRICKS:
        out = bars[closed]
        if made == 0:
            builder.mark = max(builder.mark, bar.end)
            opened.close(bar, builder.bars, out)
            renko.lay(kind, builder, direction, out)
        else:
            renko.lay(kind, builder, direction, out)
            renko.repeat(out, bar.kind, builder.bars, event)
        builder.bars += 1
        closed += 1
        made += 1
        direction = renko.brick(kind, builder, event.price)
    if direction != 0:
        renko.begin_grid(builder, event.price)
    return closed
