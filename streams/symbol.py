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
from schemas.records import NEVER, ClockKind, RegimeSpec, Settings
from schemas.states import RegimeState, SymbolsPartition, SymbolState, TickName
from streams import gate
from streams.admission import MAX_NAME_CHARS, SESSIONS
from streams.agent import SourcePartition
from streams.bars import plan as bars
from streams.bars.state import SymbolBars
from streams.ticks import Ticks


class Plan(NamedTuple):
    """What the settings say, as the fold needs it."""

    bars: bars.Plan
    rules: NDArray[Any]
    source_numbers: dict[str, int]
    regimes: RegimeSpec
    judged: tuple[bool, ...]
    """By kind: whether its bars have regimes."""
    universes: dict[tuple[str, str], tuple[str, ...]]
    """By (symbol, kind): the universes that take its bars."""


@functools.lru_cache(maxsize=8)
def plan_of(settings: Settings) -> Plan:
    """The plan of settings; the same one each time, since the fold's part of it is expensive.

    Raises:
        UnknownKind: they name a bar kind that does not exist.
    """
    universes: defaultdict[tuple[str, str], tuple[str, ...]] = defaultdict(tuple)
    for universe in settings.universes:
        for symbol in universe.symbols:
            universes[symbol, universe.kind] += (universe.name,)
    return Plan(
        bars.Plan.of(settings.kinds, settings.lateness_us, settings.version),
        gate.rules(settings),
        {spec.name: number for number, spec in enumerate(settings.sources)},
        settings.regimes,
        tuple(kind in settings.regimes.kinds for kind in settings.kinds),
        dict(universes),
    )


class Symbol:
    """One symbol's state at work: arrays for its open bars. `freeze` gives what the changelog holds."""

    __slots__ = ("bars", "names", "plan", "regimes")

    def __init__(self, state: SymbolState, plan: Plan) -> None:
        """Takes over a state as it was restored, or an empty one."""
        self.bars = SymbolBars.thaw(state, plan.bars)
        self.names = state.names
        self.regimes = state.regimes
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
                state = keys.get(lane.symbol)
                if type(state) is not Symbol:
                    state = Symbol(SymbolState() if state is None else state, plan)
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

    def admit(self, partition: SymbolsPartition, settings: Settings, clocks: NDArray[Any]) -> gate.Passed:
        """Through the gate; the partition's clocks move on."""
        sources = np.zeros(len(settings.sources), gate.SOURCE)
        held = partition.source_clocks
        for number, spec in enumerate(settings.sources):
            sources[number] = held.get(spec.name, NEVER), spec.clock is ClockKind.TICKS
        passed = gate.admit(
            self.ticks.rows,
            self.ticks.offsets,
            self.columns,
            self.slots,
            sources,
            clocks,
            partition.clock,
            self.plan.rules,
        )
        partition.clock = passed.clock
        moved = zip(settings.sources, sources["clock"].tolist(), strict=True)
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
