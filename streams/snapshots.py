"""What the agents behind a barrier share: records of universe.bars in, each universe's closed snapshots out."""

from __future__ import annotations

import math
from collections.abc import Callable, MutableMapping
from typing import NamedTuple

from schemas.codec import Unreadable
from schemas.partitioner import partition_of
from schemas.records import NEVER, Clock, Fit, QuoteBar, Reason, Settings, UniverseBar, UniverseSpec
from schemas.states import EwmaState, UniverseState
from schemas.topics import TOPICS
from streams import barrier, versions
from streams.admission import is_settings
from streams.agent import Input, SourcePartition
from streams.bars.kinds import parse_utc
from streams.errors import SettingsMissing
from streams.quoting.bars import MAX_SPREAD_BPS

TICKS, QUOTES = "market.ticks", "market.quotes"

_LOWEST_PRICE, _HIGHEST_PRICE = 1e-150, 1e150
"""Between them the ratio of two closes, and its logarithm, are always finite."""


class Refused(NamedTuple):
    """Why a record is bad input."""

    reason: Reason
    error: str
    name: str | None = None
    symbol: str | None = None


OnClosed = Callable[[barrier.Closed, UniverseSpec, Settings], None]
OnRefused = Callable[[Input, Refused], None]


class Snapshots:
    """One run of a partition of universe.bars. Events wait until its end, or until the settings change.

    ``barriers`` are the universes' states, owned by the run and updated in place; those that change are ``touched``.
    Every snapshot is handed to ``on_closed`` with its universe and the settings in force at its start, in the order
    in which they close within a universe; every bad record to ``on_refused``.
    """

    def __init__(
        self,
        where: SourcePartition,
        partition: versions.Partition,
        barriers: MutableMapping[str, UniverseState],
        on_closed: OnClosed,
        on_refused: OnRefused,
        *,
        waits: bool = True,
    ) -> None:
        self.touched: set[str] = set()
        self._waits = waits
        self._where, self._partition, self._barriers = where, partition, barriers
        self._on_closed, self._on_refused = on_closed, on_refused
        self._events: dict[str, list[barrier.Event]] = {}
        self._know()

    def take(self, item: Input) -> None:
        """Take one record. Raises `SettingsMissing` where it comes before the settings."""
        if is_settings(item):
            self.close()
            self._settle(item)
            return
        if self._partition.settings is None:
            raise SettingsMissing(self._where.topic, self._where.partition)
        event = self._read(item)
        if isinstance(event, Refused):
            self._on_refused(item, event)
        elif event is not None:
            self._events.setdefault(event.universe, []).append(event)

    def close(self) -> None:
        """Do what waits."""
        for universe, events in self._events.items():
            state = self._barriers.get(universe)
            if state is None:
                state = self._barriers[universe] = UniverseState(ewma=EwmaState())
            terms = [
                barrier.terms(of.get(universe), settings, waits=self._waits)
                for settings, of in zip(self._held, self._specs, strict=True)
            ]
            _, closed = barrier.step(state, events, terms)
            for snapshot in closed:
                settings = versions.at(self._held, snapshot.start)
                spec = self._specs[self._held.index(settings)][universe]
                self._on_closed(snapshot, spec, settings)
        self.touched.update(self._events)
        self._events = {}

    def _settle(self, item: Input) -> None:
        told = item.value
        assert isinstance(told, Settings)
        versions.forget(self._partition, self._is_done)
        past = max((state.last_start for state in self._barriers.values()), default=NEVER)
        taken = versions.take(self._partition, told, past)
        if taken.error is not None:
            self._on_refused(item, Refused(Reason.SETTINGS_CHANGED, taken.error))
        self._know()

    def _is_done(self, old: Settings, new: Settings) -> bool:
        """Whether no universe of this partition has a window before ``new`` that is not closed."""
        return all(self._has_passed(universe, old, new.effective_from) for universe in old.universes)

    def _has_passed(self, universe: UniverseSpec, settings: Settings, begins: int) -> bool:
        state = self._barriers.get(universe.name)
        if state is None:
            partitions = TOPICS[self._where.topic].partitions
            return partition_of(universe.name, partitions) != self._where.partition
        size = parse_utc(universe.kind).size_us
        clocks = state.clocks.values()
        seen_all = len(clocks) == settings.tick_partitions + settings.quote_partitions
        # A snapshot may wait for a fit though every clock has passed it.
        waits = bool(state.pending) and state.pending[0].start < begins
        return seen_all and min(clocks) >= -(-begins // size) * size and not waits

    def _know(self) -> None:
        self._held = versions.held(self._partition)
        self._specs = [{spec.name: spec for spec in settings.universes} for settings in self._held]

    def _read(self, item: Input) -> barrier.Event | Refused | None:
        """The event that ``item`` carries, None where it means nothing to this agent, or why it is refused."""
        value = item.value
        if isinstance(value, Unreadable):
            return Refused(value.reason, value.error)
        if not isinstance(value, UniverseBar | QuoteBar | Clock | Fit):
            return Refused(
                Reason.WRONG_SCHEMA, f"{type(value).__name__} with key {item.key!r} is not taken here"
            )
        if item.key != value.universe.encode():
            return Refused(
                Reason.BAD_KEY, f"key {item.key!r} is not the record's universe {value.universe!r}"
            )
        spec = next((of[value.universe] for of in reversed(self._specs) if value.universe in of), None)
        if spec is None:
            if value.universe in self._barriers:
                return None  # left over from a universe that is gone: a repeat, or a clock
            return Refused(Reason.UNDECLARED_KEY, f"the settings name no universe {value.universe!r}")
        match value:
            case UniverseBar():
                return _check_bar(value, spec)
            case QuoteBar():
                return _check_quotes(value, spec, self._held[-1])
            case Clock():
                return _check_clock(value, self._held[-1])
            case Fit():
                return _check_fit(value)


def _check_bar(value: UniverseBar, spec: UniverseSpec) -> UniverseBar | Refused:
    bar = value.bar
    name = f"{value.universe}/{bar.symbol}/{bar.start}"
    fault = _check_window(bar.kind, bar.start, bar.end, spec) or _check_prices(
        ("open, high, low, close", (bar.open, bar.high, bar.low, bar.close))
    )
    if fault is None and not 0.0 <= bar.volume < math.inf:
        fault = Reason.BAD_SIZE, f"volume is {bar.volume}"
    return value if fault is None else Refused(*fault, name, bar.symbol)


def _check_quotes(value: QuoteBar, spec: UniverseSpec, settings: Settings) -> QuoteBar | Refused:
    name = f"{value.universe}/{value.symbol}/{value.start}"
    fault = _check_window(value.kind, value.start, value.end, spec) or _check_prices(
        ("open, high, low, close", (value.open, value.high, value.low, value.close)),
        ("bid, ask, microprice", (value.bid, value.ask, value.microprice)),
    )
    if not settings.quote_partitions:
        fault = Reason.UNDECLARED_SOURCE, "the settings declare no quotes"
    elif fault is None and not 0.0 <= value.spread_bps <= MAX_SPREAD_BPS:
        fault = Reason.BAD_PRICE, f"a spread of {value.spread_bps} basis points"
    return value if fault is None else Refused(*fault, name, value.symbol)


def _check_window(kind: str, start: int, end: int, spec: UniverseSpec) -> tuple[Reason, str] | None:
    if kind != spec.kind:
        error = f"a bar of kind {kind}, but universe {spec.name} is made of {spec.kind}"
        return Reason.WRONG_SCHEMA, error
    size = parse_utc(spec.kind).size_us
    if start % size or end != start + size:
        return Reason.BAD_TIME, f"{start} to {end} is no window of {spec.kind}"
    return None


def _check_prices(*told: tuple[str, tuple[float, ...]]) -> tuple[Reason, str] | None:
    for names, prices in told:
        if not all(_LOWEST_PRICE <= price <= _HIGHEST_PRICE for price in prices):
            return Reason.BAD_PRICE, f"{names} are {prices}"
    return None


def _check_clock(value: Clock, settings: Settings) -> Clock | Refused:
    partitions = {TICKS: settings.tick_partitions, QUOTES: settings.quote_partitions}.get(value.topic, 0)
    if 0 <= value.partition < partitions:
        return value
    name = f"{value.universe}/{value.topic}/{value.partition}/{value.through}"
    error = f"a clock of {value.topic}/{value.partition}, which has {partitions} partitions that count here"
    return Refused(Reason.BAD_CLOCK, error, name)


def _check_fit(value: Fit) -> Fit | Refused:
    if all(math.isfinite(each) for values in value.parameters.values() for each in values):
        return value
    return Refused(
        Reason.BAD_FIT, "a parameter is not finite", f"{value.universe}/{value.model}/{value.version}"
    )
