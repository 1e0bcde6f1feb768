"""The symbols of a run: each one's working state, and how a run's lanes join with it.

What is told of a symbol here is by number: its place among the symbols of the run, in order of their first ticks.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.columns import NO_SEQUENCE, Lane
from schemas.records import NEVER, ClockKind, RegimeSpec, Settings, SourceSpec
from schemas.states import RegimeState, SymbolsPartition, SymbolState, TickName
from streams import gate, versions
from streams.admission import MAX_NAME_CHARS, SESSIONS
from streams.agent import SourcePartition
from streams.bars import plan as bars
from streams.bars.state import SymbolBars
from streams.ticks import Ticks


class Terms(NamedTuple):
    """What one version of the settings says of closed bars."""

    regimes: RegimeSpec
    judged: frozenset[str]
    """Kinds whose bars have regimes."""
    universes: dict[tuple[str, str], tuple[str, ...]]
    """By (symbol, kind): the universes that take its bars."""


class Plan(NamedTuple):
    """What the versions of the settings say, as the fold needs it."""

    bars: bars.Plan
    rules: NDArray[Any]
    sources: tuple[SourceSpec, ...]
    """Of all versions."""
    source_numbers: dict[str, int]
    declared: NDArray[np.bool_]
    """Which version declares which source; shape (versions, sources)."""
    terms: tuple[Terms, ...]
    """By version."""


@functools.lru_cache(maxsize=64)
def plan_of(versions: tuple[Settings, ...]) -> Plan:
    """The plan of a partition's settings; the same one each time, since the fold's part of it is expensive.

    Raises:
        UnknownKind: they name a bar kind that does not exist.
    """
    oldest = versions[0]
    sources = {spec.name: spec for settings in versions for spec in settings.sources}
    names = [{spec.name for spec in settings.sources} for settings in versions]
    return Plan(
        bars.Plan.of_versions(
            [bars.Version(each.version, each.kinds, each.effective_from) for each in versions],
            oldest.lateness_us,
        ),
        gate.rules(oldest),
        tuple(sources.values()),
        {name: number for number, name in enumerate(sources)},
        np.array([[name in declared for name in sources] for declared in names], np.bool_),
        tuple(map(_terms, versions)),
    )


def _terms(settings: Settings) -> Terms:
    universes: defaultdict[tuple[str, str], tuple[str, ...]] = defaultdict(tuple)
    for universe in settings.universes:
        for symbol in universe.symbols:
            universes[symbol, universe.kind] += (universe.name,)
    return Terms(settings.regimes, frozenset(settings.regimes.kinds), dict(universes))


class Plans:
    """The plan of each partition, found by what its state holds: to compare the settings would cost more than a run."""

    def __init__(self) -> None:
        self._held: dict[SourcePartition, tuple[Settings, list[Settings], Plan]] = {}

    def of(self, where: SourcePartition, partition: SymbolsPartition) -> Plan | None:
        """The plan of a partition; None before its settings."""
        settings, later = partition.settings, partition.later
        if settings is None:
            return None
        known = self._held.get(where)
        if known is None or known[0] is not settings or known[1] is not later:
            known = self._held[where] = settings, later, plan_of(versions.held(partition))
        return known[2]


class Symbol:
    """One symbol's state at work: arrays for its open bars. `freeze` gives what the changelog holds."""

    __slots__ = ("bars", "names", "plan", "regimes")

    def __init__(self, state: SymbolState, plan: Plan) -> None:
        """Takes over a state as it was restored, or an empty one."""
        self.bars = SymbolBars.thaw(state, plan.bars)
        self.names = state.names
        self.regimes = [regime for regime in state.regimes if regime.kind in plan.bars.numbers]
        self.plan = plan

    def freeze(self) -> SymbolState:
        """The state as its contract has it."""
        return SymbolState(names=self.names, regimes=self.regimes, **self.bars.freeze(self.plan.bars))

    def regime(self, kind: str) -> RegimeState:
        """The indicators of one bar kind, new ones where there are none yet."""
        for regime in self.regimes:
            if regime.kind == kind:
                return regime
        regime = RegimeState(kind=kind)
        self.regimes.append(regime)
        return regime


def working(state: SymbolState | Symbol | None, plan: Plan) -> Symbol:
    """A symbol's state at work under ``plan``; a new one where there is none yet."""
    if isinstance(state, Symbol):
        return state if state.plan is plan else Symbol(state.freeze(), plan)
    return Symbol(SymbolState() if state is None else state, plan)


class Run:
    """A run's symbols and lanes, joined with the states that they belong to.

    ``lanes`` are in the order of the gate's: those of the run, then held sessions that it does not name.
    """

    def __init__(self, where: SourcePartition, ticks: Ticks, keys: dict[str, Any], plan: Plan) -> None:
        self.where, self.ticks, self.plan = where, ticks, plan
        self.symbols: list[str] = []
        self.states: list[Symbol] = []
        of_key: dict[str, int] = {}
        owner: list[int] = []
        for lane in ticks.lanes:
            number = of_key.get(lane.symbol)
            if number is None:
                number = of_key[lane.symbol] = len(self.symbols)
                state = working(keys.get(lane.symbol), plan)
                self.symbols.append(lane.symbol)
                self.states.append(state)
            owner.append(number)
        self.lanes = list(ticks.lanes)
        self.slots = np.full((len(self.states), SESSIONS), -1, np.int32)
        self.columns = self._columns(owner)

    def _columns(self, owner: list[int]) -> NDArray[Any]:
        """The lanes as the gate wants them; fills ``slots``."""
        lanes, sources = self.lanes, self.plan.source_numbers
        numbers = {lane: number for number, lane in enumerate(lanes)}
        highest: dict[int, int] = {}
        for key, (symbol, state) in enumerate(zip(self.symbols, self.states, strict=True)):
            for slot, name in enumerate(state.names):
                lane = Lane(symbol, name.source, name.session)
                number = numbers.setdefault(lane, len(lanes))
                if number == len(lanes):
                    lanes.append(lane)
                    owner.append(key)
                highest[number] = name.sequence
                self.slots[key, slot] = number
        columns = np.zeros(len(lanes), gate.LANE)
        if not lanes:
            return columns
        columns["key"] = owner
        columns["source"] = [sources.get(lane.source, -1) for lane in lanes]
        columns["long"] = [len(lane.session) > MAX_NAME_CHARS for lane in lanes]
        columns["highest"] = NO_SEQUENCE
        held = list(highest)
        columns["highest"][held] = list(highest.values())
        columns["held"][held] = True
        states = self.states
        named = len(self.ticks.lanes)
        columns["stream"][:named] = [
            states[key].bars.stream(f"{lane.source}/{lane.session}/")
            for key, lane in zip(owner, self.ticks.lanes, strict=False)
        ]
        if (self.ticks.rows["sequence"] == NO_SEQUENCE).any():
            columns["placed"][:named] = [
                states[key].bars.stream(f"{lane.source}/@{self.where.partition}/")
                for key, lane in zip(owner, self.ticks.lanes, strict=False)
            ]
        return columns

    def admit(self, partition: SymbolsPartition, clocks: NDArray[Any]) -> gate.Passed:
        """Through the gate; the partition's clocks move on."""
        plan, held = self.plan, partition.source_clocks
        sources = np.zeros(len(plan.sources), gate.SOURCE)
        for number, spec in enumerate(plan.sources):
            counts = bool(plan.declared[-1, number])
            sources[number] = held.get(spec.name, NEVER), spec.clock is ClockKind.TICKS, counts
        passed = gate.admit(
            self.ticks.rows,
            self.ticks.offsets,
            self.columns,
            self.slots,
            sources,
            clocks,
            partition.clock,
            plan.rules,
            plan.bars.begins,
            plan.declared,
        )
        partition.clock = passed.clock
        moved = zip(plan.sources, sources["clock"].tolist(), strict=True)
        partition.source_clocks = {spec.name: clock for spec, clock in moved if clock != NEVER}
        return passed

    def note(self, passed: gate.Passed, keys: dict[str, Any]) -> set[str]:
        """Put back what the gate learned of names; the symbols whose state this changes, or a tick will."""
        touched: set[str] = set()
        lanes, highest = self.lanes, self.columns["highest"].tolist()
        slots = self.slots.tolist()
        for key in np.flatnonzero(passed.changed).tolist():
            names = self.states[key].names
            held = [lane for lane in slots[key] if lane >= 0]
            if len(held) == len(names) < SESSIONS:  # none was added, and none had to make room
                for name, lane in zip(names, held, strict=True):
                    name.sequence = highest[lane]
                continue
            self.states[key].names = [
                TickName(source=lanes[lane].source, session=lanes[lane].session, sequence=highest[lane])
                for lane in held
            ]
        for key in np.flatnonzero(passed.changed | (np.diff(passed.begins) > 0)).tolist():
            symbol = self.symbols[key]
            keys[symbol] = self.states[key]
            touched.add(symbol)
        return touched
