"""The `universes` agent: bars of many partitions in, one snapshot per universe and bar start out.

universe.bars ─▶ barrier ─▶ correlations ─▶ market.correlations; portfolio.events, a part for each portfolio
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from schemas.codec import Unreadable
from schemas.records import (
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
from streams import barrier
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
        settings = partition.settings
        specs = _specs(settings)
        events: dict[str, list[barrier.Event]] = {}
        outputs: list[Output] = []
        for item in inputs:
            if settings is None:
                if not isinstance(item.value, Settings) or item.key is not None:
                    raise SettingsMissing(where.topic, where.partition)
                settings = partition.settings = item.value
                specs = _specs(settings)
                continue
            event = _read(item, settings, specs)
            if isinstance(event, _Refused):
                outputs.append(dead_letter(where, item, stage="barrier", **event._asdict()))
            elif event is not None:
                events.setdefault(event.universe, []).append(event)
        if settings is not None:
            for universe, its_events in events.items():
                state = keys.get(universe) or UniverseState(ewma=EwmaState())
                keys[universe], results = _step_universe(state, its_events, specs[universe], settings)
                outputs += results
        return outputs, set(events)


def _specs(settings: Settings | None) -> dict[str, UniverseSpec]:
    return {spec.name: spec for spec in settings.universes} if settings is not None else {}


def _read(item: Input, settings: Settings, specs: dict[str, UniverseSpec]) -> barrier.Event | _Refused | None:
    """The event that ``item`` carries, None where it means nothing to this agent, or why it is refused."""
    value = item.value
    if isinstance(value, Unreadable):
        return _Refused(value.reason, value.error)
    if isinstance(value, Settings) and item.key is None:
        if value.version == settings.version:
            return None
        return _Refused(
            Reason.SETTINGS_CHANGED, f"settings {value.version}: this namespace runs on {settings.version}"
        )
    if not isinstance(value, UniverseBar | QuoteBar | Clock | Fit):
        return _Refused(
            Reason.WRONG_SCHEMA, f"{type(value).__name__} with key {item.key!r} is not taken here"
        )
    if item.key != value.universe.encode():
        return _Refused(Reason.BAD_KEY, f"key {item.key!r} is not the record's universe {value.universe!r}")
    spec = specs.get(value.universe)
    if spec is None:
        return _Refused(Reason.UNDECLARED_KEY, f"the settings name no universe {value.universe!r}")
    match value:
        case UniverseBar():
            return _check_bar(value, spec)
        case QuoteBar():
            return _check_quotes(value, spec, settings)
        case Clock():
            return _check_clock(value, settings)
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


def _step_universe(
    state: UniverseState, events: Sequence[barrier.Event], spec: UniverseSpec, settings: Settings
) -> tuple[UniverseState, list[Output]]:
    model = Ewma(spec.decay)
    outputs: list[Output] = []
    state, snapshots = barrier.step(state, events, spec, settings)
    for closed in snapshots:
        closes = {row.symbol: row.bar.close for row in closed.rows if not row.stale}
        state.ewma, covariance = model.step(state.ewma, closes)
        outputs.append(_correlations(closed, covariance, spec, model.name, settings))
        outputs += _snapshots(closed, covariance, spec, model.name, settings)
    return state, outputs


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
