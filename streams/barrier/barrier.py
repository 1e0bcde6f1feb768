"""The barrier's stage: bars and clocks of one universe in, closed snapshots out.

A universe's bars come from every partition of the ticks, in an order between partitions that no run
repeats. What is promised: a symbol's bars come in order of time, and a partition's clock comes after every
bar that ends at or before it. So the snapshot of a bar's start is complete when every member's bar is
there, or when every partition's clock has reached its end. Either way it holds the same bars, and snapshots
close in order of start.

Where quotes are declared, the same holds of the bars of quotes: a snapshot is complete when every member's
bar of trades and of quotes is there, or when every clock of the partitions of both topics has reached its end.
A row has the quotes of the snapshot's own window or none: they are not carried. Quotes alone make no snapshot.

A snapshot's members are those of the settings in force at its start. The first one under new settings waits for every
clock to have passed its start: a symbol that left may still owe bars of before.

Where models are fitted, a snapshot may also wait for a fit (`streams.barrier.fits`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple

import msgspec

from schemas.records import (
    NEVER,
    Clock,
    Fit,
    FitSpec,
    QuoteBar,
    Settings,
    SnapshotRow,
    UniverseBar,
    UniverseSpec,
)
from schemas.states import PendingSnapshot, UniverseState
from streams.barrier import fits

_by_start = attrgetter("start")
_by_symbol = attrgetter("symbol")
_by_bar_symbol = attrgetter("bar.symbol")

Event = UniverseBar | QuoteBar | Clock | Fit


class Closed(NamedTuple):
    """A snapshot that is complete."""

    start: int
    end: int
    ordinal: int
    """Counts the universe's snapshots, from 1."""
    rows: tuple[SnapshotRow, ...]
    """Every member that ever had a bar, by symbol; stale where it has none of its own here."""
    fits: tuple[Fit, ...] = ()
    """Those that hold from here on."""
    due_before: int | None = None
    """A due of fits to all snapshots before this one, which its closing made known; µs."""
    due: int | None = None
    """A due of fits to all snapshots up to this one; µs."""


class Terms(NamedTuple):
    """What one version of the settings says of a universe; it holds for snapshots that start at or after ``begins``."""

    begins: int
    members: frozenset[str]
    """Empty where the settings do not name the universe: then it has no snapshots."""
    tick_partitions: int
    quote_partitions: int
    fits: FitSpec | None = None


def terms(spec: UniverseSpec | None, settings: Settings, *, waits: bool = True) -> Terms:
    """What ``settings`` say, whose part about the universe is ``spec``; unless it ``waits``, for no fit."""
    members = frozenset(() if spec is None else spec.symbols)
    models = None if spec is None else spec.fits
    if models is not None and not waits:
        models = msgspec.structs.replace(models, waits=False)
    return Terms(
        settings.effective_from,
        members,
        settings.tick_partitions,
        settings.quote_partitions,
        models,
    )


def step(
    state: UniverseState, events: Iterable[Event], versions: Sequence[Terms]
) -> tuple[UniverseState, list[Closed]]:
    """Take one universe's events in order; the snapshots that they close, by start.

    ``versions`` are in order of their beginnings; snapshots before the second belong to the first.

    Bars at or before the last snapshot closed, and a second bar of a symbol and start, are repeats and
    dropped; so are those of quotes. Bars of symbols that are no members wait with the others but are no part of
    a snapshot, and make none.
    """
    closed: list[Closed] = []
    for event in events:
        if isinstance(event, Clock):
            source = f"{event.topic}/{event.partition}"
            state.clocks[source] = max(event.through, state.clocks.get(source, NEVER))
        elif isinstance(event, Fit):
            fits.take(state, event)
        else:
            _keep(state, event)
        while (snapshot := _close_next(state, versions)) is not None:
            closed.append(snapshot)
    return state, closed


def _keep(state: UniverseState, event: UniverseBar | QuoteBar) -> None:
    start = event.start if isinstance(event, QuoteBar) else event.bar.start
    if start <= state.last_start:
        return
    place = bisect_left(state.pending, start, key=_by_start)
    if place == len(state.pending) or state.pending[place].start != start:
        state.pending.insert(place, PendingSnapshot(start=start, bars=[]))
    pending = state.pending[place]
    if isinstance(event, QuoteBar):
        place = bisect_left(pending.quotes, event.symbol, key=_by_symbol)
        if place == len(pending.quotes) or pending.quotes[place].symbol != event.symbol:
            pending.quotes.insert(place, event)
    else:
        place = bisect_left(pending.bars, event.bar.symbol, key=_by_bar_symbol)
        if place == len(pending.bars) or pending.bars[place].bar.symbol != event.bar.symbol:
            pending.bars.insert(place, event)


def _close_next(state: UniverseState, versions: Sequence[Terms]) -> Closed | None:
    while state.pending:
        start = state.pending[0].start
        under = next((each for each in reversed(versions) if each.begins <= start), versions[0])
        if not _complete(state, under) or fits.is_missing(state, under.fits, start):
            break
        members = under.members
        head = state.pending.pop(0)
        state.last_start = head.start
        own = {item.bar.symbol: item for item in head.bars if item.bar.symbol in members}
        if not own:
            continue
        quotes = {quote.symbol: quote for quote in head.quotes}
        latest = {item.bar.symbol: item for item in state.carried} | own
        state.carried = [latest[symbol] for symbol in sorted(latest)]
        state.snapshots += 1
        rows = tuple(
            SnapshotRow(
                symbol=symbol,
                stale=symbol not in own,
                bar=latest[symbol].bar,
                regime=latest[symbol].regime,
                quote=quotes.get(symbol),
            )
            for symbol in sorted(members & latest.keys())
        )
        end = head.bars[0].bar.end
        due_before, due = fits.closed(state, under.fits, start, end)
        return Closed(start, end, state.snapshots, rows, fits.begin(state, start), due_before, due)
    return None


def _complete(state: UniverseState, under: Terms) -> bool:
    head, members = state.pending[0], under.members
    seen_all = len(state.clocks) == under.tick_partitions + under.quote_partitions
    clock = min(state.clocks.values()) if seen_all else NEVER
    if clock >= _end(head):
        return True
    if not members or (state.last_start < under.begins <= head.start and clock < head.start):
        return False
    if len(head.bars) < len(members) or not members <= {item.bar.symbol for item in head.bars}:
        return False
    return not under.quote_partitions or members <= {quote.symbol for quote in head.quotes}


def _end(pending: PendingSnapshot) -> int:
    return pending.bars[0].bar.end if pending.bars else pending.quotes[0].end
