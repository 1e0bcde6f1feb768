"""The barrier's stage: bars and clocks of one universe in, closed snapshots out.

A universe's bars come from every partition of the ticks, in an order between partitions that no run
repeats. What is promised: a symbol's bars come in order of time, and a partition's clock comes after every
bar that ends at or before it. So the snapshot of a bar's start is complete when every member's bar is
there, or when every partition's clock has reached its end. Either way it holds the same bars, and snapshots
close in order of start.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from operator import attrgetter
from typing import NamedTuple

from schemas.records import NEVER, Clock, Settings, SnapshotRow, UniverseBar, UniverseSpec
from schemas.states import PendingSnapshot, UniverseState

_by_start = attrgetter("start")
_by_symbol = attrgetter("bar.symbol")


class Closed(NamedTuple):
    """A snapshot that is complete."""

    start: int
    end: int
    ordinal: int
    """Counts the universe's snapshots, from 1."""
    rows: tuple[SnapshotRow, ...]
    """Every member that ever had a bar, by symbol; stale where it has none of its own here."""


def step(
    state: UniverseState, events: Iterable[UniverseBar | Clock], spec: UniverseSpec, settings: Settings
) -> tuple[UniverseState, list[Closed]]:
    """Take one universe's events in order; the snapshots that they close, by start.

    Bars at or before the last snapshot closed, and a second bar of a symbol and start, are repeats and
    dropped. Bars of symbols that are no members wait with the others but are no part of a snapshot, and
    make none.
    """
    members = frozenset(spec.symbols)
    closed: list[Closed] = []
    for event in events:
        if isinstance(event, Clock):
            source = f"{event.topic}/{event.partition}"
            state.clocks[source] = max(event.through, state.clocks.get(source, NEVER))
        else:
            _keep(state, event)
        while (snapshot := _close_next(state, members, settings)) is not None:
            closed.append(snapshot)
    return state, closed


def _keep(state: UniverseState, event: UniverseBar) -> None:
    start = event.bar.start
    if start <= state.last_start:
        return
    place = bisect_left(state.pending, start, key=_by_start)
    if place == len(state.pending) or state.pending[place].start != start:
        state.pending.insert(place, PendingSnapshot(start=start, bars=[event]))
        return
    bars = state.pending[place].bars
    place = bisect_left(bars, event.bar.symbol, key=_by_symbol)
    if place == len(bars) or bars[place].bar.symbol != event.bar.symbol:
        bars.insert(place, event)


def _close_next(state: UniverseState, members: frozenset[str], settings: Settings) -> Closed | None:
    while state.pending and _complete(state, members, settings):
        head = state.pending.pop(0)
        state.last_start = head.start
        own = {item.bar.symbol: item for item in head.bars if item.bar.symbol in members}
        if not own:
            continue
        latest = {item.bar.symbol: item for item in state.carried} | own
        state.carried = [latest[symbol] for symbol in sorted(latest)]
        state.snapshots += 1
        rows = tuple(
            SnapshotRow(
                symbol=symbol, stale=symbol not in own, bar=latest[symbol].bar, regime=latest[symbol].regime
            )
            for symbol in sorted(members & latest.keys())
        )
        return Closed(head.start, head.bars[0].bar.end, state.snapshots, rows)
    return None


def _complete(state: UniverseState, members: frozenset[str], settings: Settings) -> bool:
    head = state.pending[0]
    seen_all = len(state.clocks) == settings.tick_partitions
    clock = min(state.clocks.values()) if seen_all else NEVER
    if clock >= head.bars[0].bar.end:
        return True
    first_under_settings = state.last_start < settings.effective_from <= head.start
    if first_under_settings and clock < settings.effective_from:
        # A symbol that left the universe may still owe bars of before.
        return False
    return len(head.bars) >= len(members) and members <= {item.bar.symbol for item in head.bars}
