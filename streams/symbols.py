"""The `symbols` agent: ticks in, bars and regimes out; and clocks, so that silence closes windows too.

A run is folded in two passes. The first goes through the partition in its order: settings, clocks, bad input,
repeats. It leaves each symbol its good ticks, each with the partition's clock at its place. The second takes
the symbols one by one through the stages: bars, then regimes on the bars. Clocks between two ticks of a
symbol are dealt with at the second tick or at the end of the run: what they close comes out in the same order
as if each had been dealt with at its place, because windows close in order of their ends.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

from schemas.codec import Unreadable
from schemas.records import NEVER, Bar, Clock, ClockKind, Reason, RegimeSpec, Settings, Tick, UniverseBar
from schemas.states import RegimeState, SymbolsPartition, SymbolState, TickName
from streams.agent import DEAD_LETTERS, Input, Output, SourcePartition, dead_letter
from streams.bars import time as time_bars
from streams.errors import SettingsMissing
from streams.regimes import rule

BARS: Final = "market.bars"
REGIMES: Final = "market.regimes"
LATE: Final = "market.ticks.late"
UNIVERSE_BARS: Final = "universe.bars"

MAX_PRICE: Final = 1e15
"""Above this a double no longer tells cents apart, and sums of prices times sizes could overflow."""
MAX_SIZE: Final = 1e15
MAX_TIME_US: Final = 253_370_764_800_000_000
"""The year 9999: what databases and calendars can still name."""
MAX_NAME_CHARS: Final = 200
"""Of a symbol and of a session: they stand in every bar, which must stay within Kafka's limit for a record."""
SESSIONS: Final = 8
"""Sessions of a symbol whose highest sequence is kept."""


class Symbols:
    """Reads market.ticks, keyed by symbol; records without key are settings and clocks.

    A tick is refused (system.dead_letters, named by the tick) where its source is not declared, its price,
    size or time is out of bounds, or its time is more than ``max_ahead_us`` past its source's clock. A source
    whose clock is its own ticks is not held to the last: nothing else tells how far its time has come. A
    repeat, by name, is dropped before its content is looked at.
    """

    name = "symbols"
    source = "market.ticks"
    writes: tuple[str, ...] = (BARS, REGIMES, LATE, UNIVERSE_BARS, DEAD_LETTERS)
    partition_type = SymbolsPartition
    key_type = SymbolState

    def step(
        self,
        where: SourcePartition,
        partition: SymbolsPartition,
        keys: dict[str, SymbolState],
        inputs: Sequence[Input],
    ) -> tuple[list[Output], set[str]]:
        """See `streams.agent.Agent.step`.

        Raises:
            SettingsMissing: a record came before the partition's settings.
            UnknownKind: the settings name a bar kind that does not exist.
        """
        outputs: list[Output] = []
        touched: set[str] = set()
        before = partition.clock
        admitted = _admit(where, partition, keys, inputs, outputs)
        settings, clock = partition.settings, partition.clock
        if settings is None:
            return outputs, touched
        plan = _plan(settings)

        for key in admitted:
            if key.changed or key.events:
                keys[key.symbol] = key.state
                touched.add(key.symbol)
        events = {key.symbol: key.events for key in admitted if key.events}
        if clock > before:
            struck: time_bars.Event = (clock, None, "")
            through = clock - settings.lateness_us
            for symbol, state in keys.items():
                if symbol in events:
                    events[symbol].append(struck)
                elif any(bar.end <= through for bar in state.open_bars):
                    events[symbol] = [struck]
                    touched.add(symbol)
        for symbol, run in events.items():
            _fold(symbol, keys[symbol], run, plan, outputs)
        _forward(where, partition, settings, outputs)
        return outputs, touched


class _Plan(NamedTuple):
    """What the settings say, as the fold needs it."""

    windows: time_bars.Windows
    regimes: RegimeSpec
    universes: dict[tuple[str, str], tuple[str, ...]]
    """By (symbol, kind): the universes that take its bars."""


@functools.lru_cache(maxsize=8)
def _plan(settings: Settings) -> _Plan:
    universes: defaultdict[tuple[str, str], tuple[str, ...]] = defaultdict(tuple)
    for universe in settings.universes:
        for symbol in universe.symbols:
            universes[symbol, universe.kind] += (universe.name,)
    windows = time_bars.Windows.of(settings.kinds, settings.lateness_us, settings.version)
    return _Plan(windows, settings.regimes, dict(universes))


class _Key:
    """One symbol in one run: its state and what it will be folded over."""

    __slots__ = ("changed", "events", "state", "symbol", "tick_name")

    def __init__(self, symbol: str, state: SymbolState) -> None:
        self.symbol = symbol
        self.state = state
        self.events: list[time_bars.Event] = []
        self.tick_name: TickName | None = None
        self.changed = False

    def seen(self, source: str, session: str) -> TickName | None:
        """The highest sequence of a session, where it is one of the last eight."""
        for name in self.state.names:
            if name.session == session and name.source == source:
                return name
        return None

    def begin(self, source: str, session: str, sequence: int) -> TickName:
        """Keep a session that is not among the last eight; the oldest makes room."""
        name = TickName(source=source, session=session, sequence=sequence)
        self.state.names.append(name)
        if len(self.state.names) > SESSIONS:
            del self.state.names[0]
        return name


def _admit(
    where: SourcePartition,
    partition: SymbolsPartition,
    keys: dict[str, SymbolState],
    inputs: Sequence[Input],
    outputs: list[Output],
) -> list[_Key]:
    """The first pass: what is left for each symbol, in order of first ticks; dead letters to ``outputs``."""
    by_key: dict[bytes | None, _Key] = {}
    settings, clock = partition.settings, partition.clock
    latest, own_clock = _latest(partition)

    def refuse(item: Input, tick: Tick, reason: Reason, error: str, name: str | None = None) -> None:
        outputs.append(
            dead_letter(
                where,
                item,
                stage="symbols",
                reason=reason,
                error=error,
                name=name,
                symbol=tick.symbol or None,
            )
        )

    for item in inputs:
        value = item.value
        if type(value) is not Tick:
            letter = _control(where, partition, item)
            if letter is not None:
                outputs.append(letter)
            settings, clock = partition.settings, partition.clock
            latest, own_clock = _latest(partition)
            continue
        if settings is None:
            raise SettingsMissing(where.topic, where.partition)

        key = by_key.get(item.key)
        if key is None:
            symbol = _symbol(item.key)
            if symbol is None:
                refuse(item, value, Reason.BAD_KEY, f"the key is not a symbol: {item.key!r}")
                continue
            key = by_key[item.key] = _Key(symbol, keys.get(symbol) or SymbolState())
        if value.symbol != key.symbol:
            refuse(
                item, value, Reason.BAD_KEY, f"the key is {key.symbol!r}, the tick's symbol {value.symbol!r}"
            )
            continue

        source, sequence = value.source, value.sequence
        if sequence is None:
            name = f"{source}/@{where.partition}/{item.offset}"
        else:
            name = f"{source}/{value.session}/{sequence}"
        limit = latest.get(source)
        if limit is None:
            refuse(item, value, Reason.UNDECLARED_SOURCE, f"source {source!r} is not in the settings", name)
            continue
        if sequence is not None:
            tick_name = key.tick_name
            if tick_name is None or tick_name.session != value.session or tick_name.source != source:
                tick_name = key.tick_name = key.seen(source, value.session)
            if tick_name is None:
                if len(value.session) > MAX_NAME_CHARS:
                    error = (
                        f"a session of {len(value.session)} characters; at most {MAX_NAME_CHARS} name a tick"
                    )
                    refuse(item, value, Reason.TOO_LARGE, error)
                    continue
                key.tick_name = key.begin(source, value.session, sequence)
            elif sequence > tick_name.sequence:
                tick_name.sequence = sequence
            else:
                continue

        # A comparison with NaN is false, so this refuses it too.
        event_time = value.event_time
        if not (0.0 < value.price <= MAX_PRICE and 0.0 <= value.size <= MAX_SIZE and 0 < event_time <= limit):
            key.changed = key.changed or sequence is not None
            refuse(item, value, *_fault(value, limit), name)
            continue
        key.events.append((clock, value, name))
        if source in own_clock:
            _strike(partition, settings, source, event_time - settings.lateness_us)
            clock = partition.clock
    return list(by_key.values())


def _symbol(key: bytes | None) -> str | None:
    """The symbol in a record's key; None for what cannot be one.

    Control characters are refused: no database's text holds NUL, and the changelog's own keys begin with it.
    """
    try:
        symbol = "" if key is None else key.decode()
    except UnicodeDecodeError:
        return None
    return symbol if 0 < len(symbol) <= MAX_NAME_CHARS and symbol.isprintable() else None


def _latest(partition: SymbolsPartition) -> tuple[dict[str, int], frozenset[str]]:
    """The latest time that a tick may have, by declared source; and sources whose ticks are their clock."""
    settings = partition.settings
    if settings is None:
        return {}, frozenset()
    latest = {source.name: MAX_TIME_US for source in settings.sources}
    own_clock = frozenset(source.name for source in settings.sources if source.clock is ClockKind.TICKS)
    for source, clock in partition.source_clocks.items():
        if source not in own_clock:
            latest[source] = min(MAX_TIME_US, clock + settings.max_ahead_us)
    return latest, own_clock


def _fault(tick: Tick, limit: int) -> tuple[Reason, str]:
    """What is wrong with a tick that was refused, the first of: price, size, time."""
    if not 0.0 < tick.price <= MAX_PRICE:
        return Reason.BAD_PRICE, f"price {tick.price} is not above 0 and at most {MAX_PRICE:g}"
    if not 0.0 <= tick.size <= MAX_SIZE:
        return Reason.BAD_SIZE, f"size {tick.size} is not between 0 and {MAX_SIZE:g}"
    if not 0 < tick.event_time <= MAX_TIME_US:
        return (
            Reason.BAD_TIME,
            f"event_time {tick.event_time} is not between 1970 and the year 9999 in microseconds",
        )
    return (
        Reason.AHEAD_OF_CLOCK,
        f"event_time {tick.event_time} is past {limit}, its source's clock and max_ahead",
    )


def _control(where: SourcePartition, partition: SymbolsPartition, item: Input) -> Output | None:
    """Take a record that is no tick: settings, a clock, or bad input, which is answered as a dead letter."""
    value = item.value
    settings = partition.settings
    if isinstance(value, Settings) and item.key is None:
        if settings is None:
            partition.settings = value
        elif settings.version != value.version:
            error = f"version {value.version} over {settings.version}: settings are fixed per namespace"
            return dead_letter(where, item, stage="symbols", reason=Reason.SETTINGS_CHANGED, error=error)
        return None
    if settings is None:
        raise SettingsMissing(where.topic, where.partition)
    if value is None and item.key is None:
        return _clock(where, partition, settings, item)
    if isinstance(value, Unreadable):
        reason, error = value
    else:
        reason = Reason.WRONG_SCHEMA
        error = (
            f"{type(value).__name__ if value is not None else 'no value'} with key {item.key!r} is no tick"
        )
    return dead_letter(where, item, stage="symbols", reason=reason, error=error)


def _clock(
    where: SourcePartition, partition: SymbolsPartition, settings: Settings, item: Input
) -> Output | None:
    """Take a clock record; a bad one is answered as a dead letter."""
    named = next((content for header, content in item.headers if header == "source"), None)
    source = None if named is None else named.decode(errors="replace")
    clock = item.timestamp_ms * 1000
    if source is None:
        reason, error = (
            Reason.BAD_CLOCK,
            "a record without key and value is a clock; this one lacks the header source",
        )
    elif source not in {spec.name for spec in settings.sources}:
        reason, error = Reason.UNDECLARED_SOURCE, f"clock of {source!r}, which is not in the settings"
    elif not 0 < clock <= MAX_TIME_US:
        reason, error = (
            Reason.BAD_CLOCK,
            f"clock of {source!r} at {clock} is not between 1970 and the year 9999",
        )
    else:
        _strike(partition, settings, source, clock)
        return None
    return dead_letter(where, item, stage="symbols", reason=reason, error=error)


def _strike(partition: SymbolsPartition, settings: Settings, source: str, clock: int) -> None:
    """Move a source's clock on, and with it the partition's, the least of all; neither ever goes back."""
    clocks = partition.source_clocks
    if clock > clocks.get(source, NEVER):
        clocks[source] = clock
        least = min(clocks.get(spec.name, NEVER) for spec in settings.sources)
        partition.clock = max(partition.clock, least)


def _fold(
    symbol: str, state: SymbolState, events: list[time_bars.Event], plan: _Plan, outputs: list[Output]
) -> None:
    """The second pass for one symbol: its chain of stages."""
    state, results = time_bars.step(state, symbol, events, plan.windows)
    for result in results:
        if not isinstance(result, Bar):
            outputs.append(Output(LATE, symbol, result, result.tick.event_time))
            continue
        outputs.append(Output(BARS, symbol, result, result.end))
        regime = None
        if result.kind in plan.regimes.kinds:
            _, regime = rule.step(_regime_state(state, result.kind), result, plan.regimes)
            outputs.append(Output(REGIMES, symbol, regime, result.end))
        for universe in plan.universes.get((symbol, result.kind), ()):
            record = UniverseBar(universe=universe, bar=result, regime=regime)
            outputs.append(Output(UNIVERSE_BARS, universe, record, result.end))


def _regime_state(state: SymbolState, kind: str) -> RegimeState:
    for regime in state.regimes:
        if regime.kind == kind:
            return regime
    regime = RegimeState(kind=kind)
    state.regimes.append(regime)
    return regime


def _forward(
    where: SourcePartition, partition: SymbolsPartition, settings: Settings, outputs: list[Output]
) -> None:
    """Tell every universe through when this partition's windows are closed; their bars are out before it."""
    through = partition.clock - settings.lateness_us
    if through <= partition.forwarded:
        return
    partition.forwarded = through
    for universe in settings.universes:
        clock = Clock(
            universe=universe.name, topic=Symbols.source, partition=where.partition, through=through
        )
        outputs.append(Output(UNIVERSE_BARS, universe.name, clock, max(through, 0)))
