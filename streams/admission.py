"""What a partition of market data takes in apart from its values: settings, clocks, names (DESIGN.md rules 2, 3, 13).

Shared by the agents that read a source topic. A record without key is control: with a value it is settings, without
one a clock of the source that its header names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from schemas.codec import Unreadable
from schemas.records import NEVER, Clock, ClockKind, Quote, Reason, Record, Settings, SourceSpec, Tick
from schemas.states import TickName
from streams import versions
from streams.agent import Input, Output, SourcePartition, dead_letter
from streams.errors import SettingsMissing

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

Fault = tuple[Reason, str]
"""Why a record goes to the dead letters, and that in words."""


class SourceState(versions.Partition, Protocol):
    """The state of a partition of a source topic, as far as it is about settings and clocks."""

    source_clocks: dict[str, int]
    clock: int
    forwarded: int


class Struck(NamedTuple):
    """A clock record: what time (µs) it says of which source."""

    source: str
    time: int


class Intake(NamedTuple):
    """One agent's way in: its name for dead letters, what it reads, which feeds may write that, and its bar kinds."""

    stage: str
    kind: type[Record]
    sources: Callable[[Settings], tuple[SourceSpec, ...]]
    kinds: Callable[[Settings], Sequence[str]]

    def settle(
        self, where: SourcePartition, partition: SourceState, item: Input, watermarks: Iterable[int]
    ) -> Output | None:
        """Take a settings record; what people must be told of it is answered as a dead letter.

        ``watermarks`` are the latest times of the symbols' records. A source that is new counts from the settings'
        ``effective_from`` on; the partition's clock waits for one that is gone no more.
        """
        told = item.value
        assert isinstance(told, Settings)
        versions.forget(partition, lambda old, new: self._is_done(partition, old, new))
        before = versions.newest(partition)
        taken = versions.take(partition, told, max(partition.clock, max(watermarks, default=NEVER)))
        if before is not None and taken.settings is not None:
            known = {spec.name for spec in self.sources(before)}
            clocks = partition.source_clocks
            for spec in self.sources(taken.settings):
                if spec.name not in known:
                    clocks[spec.name] = max(clocks.get(spec.name, NEVER), taken.settings.effective_from)
            self._advance(partition, taken.settings)
        if taken.error is None:
            return None
        return dead_letter(where, item, stage=self.stage, reason=Reason.SETTINGS_CHANGED, error=taken.error)

    def _is_done(self, partition: SourceState, old: Settings, new: Settings) -> bool:
        longest_us = versions.reach_us(self.kinds(old))
        return new.effective_from + longest_us + old.lateness_us <= partition.clock

    def read(self, where: SourcePartition, partition: SourceState, item: Input) -> Struck | Output:
        """What a record says that is neither of ``kind`` nor settings: a clock, or a dead letter.

        Raises:
            SettingsMissing: it came before the partition's settings.
        """
        value = item.value
        fault: Fault
        if partition.settings is None:
            raise SettingsMissing(where.topic, where.partition)
        if value is None and item.key is None:
            told = self._clock(partition, item)
            if isinstance(told, Struck):
                return told
            fault = told
        elif isinstance(value, Unreadable):
            fault = value
        else:
            what = type(value).__name__ if value is not None else "no value"
            fault = Reason.WRONG_SCHEMA, f"{what} with key {item.key!r} is no {self.kind.__name__.lower()}"
        return dead_letter(where, item, stage=self.stage, reason=fault[0], error=fault[1])

    def control(self, where: SourcePartition, partition: SourceState, item: Input) -> Output | None:
        """Take a clock into the partition's state; bad input is answered as a dead letter.

        Raises:
            SettingsMissing: it came before the partition's settings.
        """
        told = self.read(where, partition, item)
        if isinstance(told, Output):
            return told
        self.strike(partition, *told)
        return None

    def strike(self, partition: SourceState, source: str, clock: int) -> None:
        """Move a source's clock on, and with it the partition's, the least of all declared; neither ever goes back."""
        settings = versions.newest(partition)
        if settings is not None and clock > partition.source_clocks.get(source, NEVER):
            partition.source_clocks[source] = clock
            self._advance(partition, settings)

    def _advance(self, partition: SourceState, settings: Settings) -> None:
        clocks = [partition.source_clocks.get(spec.name, NEVER) for spec in self.sources(settings)]
        partition.clock = max(partition.clock, min(clocks, default=NEVER))

    def declares(self, settings: Sequence[Settings], source: str, time: int) -> bool:
        """Whether the settings in force at ``time`` (µs) declare a source."""
        return any(spec.name == source for spec in self.sources(versions.at(settings, time)))

    def bounds(self, partition: SourceState) -> Bounds:
        """The bounds on times as they are now, of the sources of all versions; to be asked again after every clock."""
        settings = partition.settings
        if settings is None:
            return Bounds({}, frozenset())
        sources = [spec for each in versions.held(partition) for spec in self.sources(each)]
        latest = {source.name: MAX_TIME_US for source in sources}
        own_clock = frozenset(source.name for source in sources if source.clock is ClockKind.TICKS)
        for source, clock in partition.source_clocks.items():
            if source not in own_clock:
                latest[source] = min(MAX_TIME_US, clock + settings.max_ahead_us)
        return Bounds(latest, own_clock)

    def _clock(self, partition: SourceState, item: Input) -> Struck | Fault:
        named = next((content for header, content in item.headers if header == "source"), None)
        if named is None:
            error = "a record without key and value is a clock; this one lacks the header source"
            return Reason.BAD_CLOCK, error
        source, time = named.decode(errors="replace"), item.timestamp_ms * 1000
        held, latest = versions.held(partition), versions.held(partition)[-1]
        if not self.declares((latest,), source, time) and not self.declares(held, source, time):
            return Reason.UNDECLARED_SOURCE, f"clock of {source!r}, which is not in the settings"
        if not 0 < time <= MAX_TIME_US:
            return Reason.BAD_CLOCK, f"clock of {source!r} at {time} is not between 1970 and the year 9999"
        return Struck(source, time)


class Bounds(NamedTuple):
    """The latest time that a record may have, by declared source; and the sources whose records are their clock."""

    latest: dict[str, int]
    own_clock: frozenset[str]


def name_of(where: SourcePartition, item: Input, value: Tick | Quote) -> str:
    """The name of a tick or quote: source, session and sequence; without a sequence its place."""
    if value.sequence is None:
        return f"{value.source}/@{where.partition}/{item.offset}"
    return f"{value.source}/{value.session}/{value.sequence}"


def symbol_of(key: bytes | None) -> str | None:
    """The symbol in a record's key; None for what cannot be one.

    Control characters are refused: no database's text holds NUL, and the changelog's own keys begin with it.
    """
    try:
        symbol = "" if key is None else key.decode()
    except UnicodeDecodeError:
        return None
    return symbol if 0 < len(symbol) <= MAX_NAME_CHARS and symbol.isprintable() else None


def is_repeat(names: list[TickName], source: str, session: str, sequence: int) -> bool:
    """Whether a sequence was seen; else it is kept as its session's highest.

    Of a session that is not among the last eight nothing is known any more; the oldest makes room for it.
    """
    for name in names:
        if name.session == session and name.source == source:
            if sequence <= name.sequence:
                return True
            name.sequence = sequence
            return False
    names.append(TickName(source=source, session=session, sequence=sequence))
    if len(names) > SESSIONS:
        del names[0]
    return False


def time_fault(event_time: int, latest: int) -> Fault | None:
    """What is wrong with a record's time; ``latest`` is its source's clock and max_ahead."""
    if not 0 < event_time <= MAX_TIME_US:
        return (
            Reason.BAD_TIME,
            f"event_time {event_time} is not between 1970 and the year 9999 in microseconds",
        )
    if event_time > latest:
        error = f"event_time {event_time} is past {latest}, its source's clock and max_ahead"
        return Reason.AHEAD_OF_CLOCK, error
    return None


def forward(where: SourcePartition, partition: SourceState) -> Iterator[Output]:
    """Tell every universe through when this partition's windows are closed; their bars are out before it."""
    settings = partition.settings
    if settings is None or partition.clock - settings.lateness_us <= partition.forwarded:
        return
    partition.forwarded = through = partition.clock - settings.lateness_us
    for name in dict.fromkeys(
        universe.name for each in versions.held(partition) for universe in each.universes
    ):
        clock = Clock(universe=name, topic=where.topic, partition=where.partition, through=through)
        yield Output(UNIVERSE_BARS, name, clock, max(through, 0))


def stretches(inputs: Sequence[Input], places: Iterable[int]) -> list[tuple[int, int]]:
    """A run cut before each settings record (at ``places``), each stretch as (begin, end): what holds changes there."""
    begins = [0, *(place for place in places if place)]
    return list(zip(begins, [*begins[1:], len(inputs)], strict=True))


def is_settings(item: Input) -> bool:
    """Whether a record tells settings."""
    return item.key is None and isinstance(item.value, Settings)
