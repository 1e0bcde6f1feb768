"""What a partition of market data takes in apart from its values: settings, clocks, names (DESIGN.md rules 2, 3, 13).

Shared by the agents that read a source topic. A record without key is control: with a value it is settings, without
one a clock of the source that its header names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

from schemas.codec import Unreadable
from schemas.records import NEVER, Clock, ClockKind, Quote, Reason, Record, Settings, SourceSpec, Tick
from schemas.states import TickName
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


class SourceState(Protocol):
    """The state of a partition of a source topic, as far as it is about settings and clocks."""

    settings: Settings | None
    source_clocks: dict[str, int]
    clock: int
    forwarded: int


class Struck(NamedTuple):
    """A clock record: what time (µs) it says of which source."""

    source: str
    time: int


class Intake(NamedTuple):
    """One agent's way in: its name for dead letters, what its records are, and the feeds that may write them."""

    stage: str
    kind: type[Record]
    sources: Callable[[Settings], tuple[SourceSpec, ...]]

    def read(
        self, where: SourcePartition, settings: Settings | None, item: Input
    ) -> Settings | Struck | Output | None:
        """What a record that is none of ``kind`` says: the first settings, a clock, nothing new; or a dead letter.

        Raises:
            SettingsMissing: it came before the partition's ``settings``.
        """
        value = item.value
        fault: Fault
        if isinstance(value, Settings) and item.key is None:
            if settings is None:
                return value
            if settings.version == value.version:
                return None
            error = f"version {value.version} over {settings.version}: settings are fixed per namespace"
            fault = Reason.SETTINGS_CHANGED, error
        elif settings is None:
            raise SettingsMissing(where.topic, where.partition)
        elif value is None and item.key is None:
            told = self._clock(settings, item)
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
        """Take a record that is none of ``kind`` into the partition's state; bad input is answered as a dead letter.

        Raises:
            SettingsMissing: it came before the partition's settings.
        """
        told = self.read(where, partition.settings, item)
        if isinstance(told, Settings):
            partition.settings = told
        elif isinstance(told, Struck) and partition.settings is not None:
            self.strike(partition, partition.settings, *told)
        elif isinstance(told, Output):
            return told
        return None

    def strike(self, partition: SourceState, settings: Settings, source: str, clock: int) -> None:
        """Move a source's clock on, and with it the partition's, the least of all; neither ever goes back."""
        clocks = partition.source_clocks
        if clock > clocks.get(source, NEVER):
            clocks[source] = clock
            least = min(clocks.get(spec.name, NEVER) for spec in self.sources(settings))
            partition.clock = max(partition.clock, least)

    def bounds(self, partition: SourceState) -> Bounds:
        """The bounds on times as they are now; to be asked again after every control record."""
        settings = partition.settings
        if settings is None:
            return Bounds({}, frozenset())
        sources = self.sources(settings)
        latest = {source.name: MAX_TIME_US for source in sources}
        own_clock = frozenset(source.name for source in sources if source.clock is ClockKind.TICKS)
        for source, clock in partition.source_clocks.items():
            if source not in own_clock:
                latest[source] = min(MAX_TIME_US, clock + settings.max_ahead_us)
        return Bounds(latest, own_clock)

    def _clock(self, settings: Settings, item: Input) -> Struck | Fault:
        named = next((content for header, content in item.headers if header == "source"), None)
        if named is None:
            error = "a record without key and value is a clock; this one lacks the header source"
            return Reason.BAD_CLOCK, error
        source, time = named.decode(errors="replace"), item.timestamp_ms * 1000
        if source not in {spec.name for spec in self.sources(settings)}:
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
    for universe in settings.universes:
        clock = Clock(universe=universe.name, topic=where.topic, partition=where.partition, through=through)
        yield Output(UNIVERSE_BARS, universe.name, clock, max(through, 0))
