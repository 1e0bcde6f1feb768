"""The `universes` agent: bars of many partitions in, one snapshot per universe and bar start out.

universe.bars ─▶ barrier ─▶ correlations ─▶ market.correlations; portfolio.events, a part for each portfolio
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from schemas.codec import Unreadable
from schemas.partitioner import partition_of
from schemas.records import (
    NEVER,
    Clock,
    Correlations,
    Fit,
    QuoteBar,
    Reason,
    Settings,
    Snapshot,
    UniverseBar,
    UniverseSpec,
)
from schemas.states import EwmaState, UniversesPartition, UniverseState
from schemas.topics import TOPICS
from streams import barrier, versions
from streams.admission import is_settings
from streams.agent import DEAD_LETTERS, Input, Output, SourcePartition, dead_letter
from streams.bars.kinds import parse_utc
from streams.correlations.ewma import Ewma
from streams.correlations.model import Covariance, average
from streams.errors import SettingsMissing
from streams.quoting.bars import MAX_SPREAD_BPS

TICKS, QUOTES = "market.ticks", "market.quotes"
CORRELATIONS = "market.correlations"
SNAPSHOTS = "portfolio.events"

_LOWEST_PRICE, _HIGHEST_PRICE = 1e-150, 1e150
"""Between them the ratio of two closes, and its logarithm, are always finite."""


class _Refused(NamedTuple):
    reason: Reason
    error: str
    name: str | None = None
    symbol: str | None = None


class Universes:
    """Closes each universe's snapshots and estimates the covariance of its members on them."""

    name = "universes"
    source = "universe.bars"
    writes: tuple[str, ...] = (CORRELATIONS, SNAPSHOTS, DEAD_LETTERS)
    partition_type = UniversesPartition
    key_type = UniverseState

    def step(
        self,
        where: SourcePartition,
        partition: UniversesPartition,
        keys: dict[str, UniverseState],
        inputs: Sequence[Input],
    ) -> tuple[list[Output], set[str]]:
        """Fold ``inputs`` into the universes of this partition; see `streams.agent.Agent.step`.

        Raises:
            SettingsMissing: a record comes before the settings.
            UnknownKind: the settings name a universe whose bar kind does not exist.
        """
        run = _Run(where, partition, keys)
        for item in inputs:
            run.take(item)
        run.close()
        return run.outputs, run.touched


class _Run:
    """One run of a partition. Events wait until its end, or until the settings change."""

    def __init__(
        self, where: SourcePartition, partition: UniversesPartition, keys: dict[str, UniverseState]
    ) -> None:
        self.outputs: list[Output] = []
        self.touched: set[str] = set()
        self._where, self._partition, self._keys = where, partition, keys
        self._events: dict[str, list[barrier.Event]] = {}
        self._know()

    def take(self, item: Input) -> None:
        """Take one record."""
        if is_settings(item):
            self.close()
            self._settle(item)
            return
        if self._partition.settings is None:
            raise SettingsMissing(self._where.topic, self._where.partition)
        event = self._read(item)
        if isinstance(event, _Refused):
            self._refuse(item, event)
        elif event is not None:
            self._events.setdefault(event.universe, []).append(event)

    def close(self) -> None:
        """Do what waits."""
        for universe, events in self._events.items():
            state = self._keys.get(universe) or UniverseState(ewma=EwmaState())
            terms = [
                barrier.terms(of.get(universe), settings)
                for settings, of in zip(self._held, self._specs, strict=True)
            ]
            state, snapshots = barrier.step(state, events, terms)
            for closed in snapshots:
                settings = versions.at(self._held, closed.start)
                spec = self._specs[self._held.index(settings)][universe]
                self.outputs += _results(state, closed, spec, settings)
            self._keys[universe] = state
        self.touched.update(self._events)
        self._events = {}

    def _settle(self, item: Input) -> None:
        told = item.value
        assert isinstance(told, Settings)
        versions.forget(self._partition, self._is_done)
        past = max((state.last_start for state in self._keys.values()), default=NEVER)
        taken = versions.take(self._partition, told, past)
        if taken.error is not None:
            self._refuse(item, _Refused(Reason.SETTINGS_CHANGED, taken.error))
        self._know()

    def _is_done(self, old: Settings, new: Settings) -> bool:
        """Whether no universe of this partition has a window before ``new`` that is not closed."""
        return all(self._has_passed(universe, old, new.effective_from) for universe in old.universes)

    def _has_passed(self, universe: UniverseSpec, settings: Settings, begins: int) -> bool:
        state = self._keys.get(universe.name)
        if state is None:
            partitions = TOPICS[self._where.topic].partitions
            return partition_of(universe.name, partitions) != self._where.partition
        size = parse_utc(universe.kind).size_us
        clocks = state.clocks.values()
        seen_all = len(clocks) == settings.tick_partitions + settings.quote_partitions
        return seen_all and min(clocks) >= -(-begins // size) * size

    def _know(self) -> None:
        self._held = versions.held(self._partition)
        self._specs = [{spec.name: spec for spec in settings.universes} for settings in self._held]

    def _refuse(self, item: Input, refused: _Refused) -> None:
        self.outputs.append(dead_letter(self._where, item, stage="barrier", **refused._asdict()))

    def _read(self, item: Input) -> barrier.Event | _Refused | None:
        """The event that ``item`` carries, None where it means nothing to this agent, or why it is refused."""
        value = item.value
        if isinstance(value, Unreadable):
            return _Refused(value.reason, value.error)
        if not isinstance(value, UniverseBar | QuoteBar | Clock | Fit):
            return _Refused(
                Reason.WRONG_SCHEMA, f"{type(value).__name__} with key {item.key!r} is not taken here"
            )
        if item.key != value.universe.encode():
            return _Refused(
                Reason.BAD_KEY, f"key {item.key!r} is not the record's universe {value.universe!r}"
            )
        spec = next((of[value.universe] for of in reversed(self._specs) if value.universe in of), None)
        if spec is None:
            if value.universe in self._keys:
                return None  # left over from a universe that is gone: a repeat, or a clock
            return _Refused(Reason.UNDECLARED_KEY, f"the settings name no universe {value.universe!r}")
        match value:
            case UniverseBar():
                return _check_bar(value, spec)
            case QuoteBar():
                return _check_quotes(value, spec, self._held[-1])
            case Clock():
                return _check_clock(value, self._held[-1])
            case Fit():
                return None


def _check_bar(value: UniverseBar, spec: UniverseSpec) -> UniverseBar | _Refused:
    bar = value.bar
    name = f"{value.universe}/{bar.symbol}/{bar.start}"
    fault = _check_window(bar.kind, bar.start, bar.end, spec) or _check_prices(
        ("open, high, low, close", (bar.open, bar.high, bar.low, bar.close))
    )
    if fault is None and not 0.0 <= bar.volume < math.inf:
        fault = Reason.BAD_SIZE, f"volume is {bar.volume}"
    return value if fault is None else _Refused(*fault, name, bar.symbol)


def _check_quotes(value: QuoteBar, spec: UniverseSpec, settings: Settings) -> QuoteBar | _Refused:
    name = f"{value.universe}/{value.symbol}/{value.start}"
    fault = _check_window(value.kind, value.start, value.end, spec) or _check_prices(
        ("open, high, low, close", (value.open, value.high, value.low, value.close)),
        ("bid, ask, microprice", (value.bid, value.ask, value.microprice)),
    )
    if not settings.quote_partitions:
        fault = Reason.UNDECLARED_SOURCE, "the settings declare no quotes"
    elif fault is None and not 0.0 <= value.spread_bps <= MAX_SPREAD_BPS:
        fault = Reason.BAD_PRICE, f"a spread of {value.spread_bps} basis points"
    return value if fault is None else _Refused(*fault, name, value.symbol)


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


def _check_clock(value: Clock, settings: Settings) -> Clock | _Refused:
    partitions = {TICKS: settings.tick_partitions, QUOTES: settings.quote_partitions}.get(value.topic, 0)
    if 0 <= value.partition < partitions:
        return value
    name = f"{value.universe}/{value.topic}/{value.partition}/{value.through}"
    error = f"a clock of {value.topic}/{value.partition}, which has {partitions} partitions that count here"
    return _Refused(Reason.BAD_CLOCK, error, name)


def _results(
    state: UniverseState, closed: barrier.Closed, spec: UniverseSpec, settings: Settings
) -> Iterator[Output]:
    """What follows from a snapshot; the model's state moves on."""
    model = Ewma(spec.decay)
    closes = {row.symbol: row.bar.close for row in closed.rows if not row.stale}
    state.ewma, covariance = model.step(state.ewma, closes)
    yield _correlations(closed, covariance, spec, model.name, settings)
    yield from _snapshots(closed, covariance, spec, model.name, settings)


def _correlations(
    closed: barrier.Closed, covariance: Covariance, spec: UniverseSpec, model: str, settings: Settings
) -> Output:
    covariance = covariance.of([row.symbol for row in closed.rows])
    correlations = covariance.correlations()
    record = Correlations(
        universe=spec.name,
        start=closed.start,
        end=closed.end,
        kind=spec.kind,
        model=model,
        fit=covariance.fit,
        warm=covariance.warm(spec.warm_up),
        observations=closed.ordinal,
        symbols=covariance.symbols,
        stale=tuple(row.stale for row in closed.rows),
        volatilities=covariance.volatilities(),
        correlations=correlations,
        average_correlation=average(correlations),
        settings=settings.version,
    )
    return Output(CORRELATIONS, spec.name, record, closed.end)


def _snapshots(
    closed: barrier.Closed, covariance: Covariance, spec: UniverseSpec, model: str, settings: Settings
) -> Iterator[Output]:
    for portfolio in settings.portfolios:
        if portfolio.universe != spec.name:
            continue
        wanted = frozenset(portfolio.symbols)
        rows = tuple(row for row in closed.rows if row.symbol in wanted)
        part = covariance.of([row.symbol for row in rows])
        record = Snapshot(
            portfolio=portfolio.name,
            universe=spec.name,
            start=closed.start,
            end=closed.end,
            kind=spec.kind,
            rows=rows,
            warm=part.warm(spec.warm_up),
            model=model,
            fit=part.fit,
            covariance=part.packed(),
            settings=settings.version,
        )
        yield Output(SNAPSHOTS, portfolio.name, record, closed.end)
