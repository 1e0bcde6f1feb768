"""What the throughput is measured over: topics full of ticks, made once for all contenders of a scenario.

- ``sim20``: 20 simulated symbols, 1,000 ticks in a second of event time;
- ``sim2000``: 2,000 simulated symbols, 20,000 ticks in a second of event time, so a bar has ten ticks on average;
- ``sessions``: the trades of a file, over and over, a week apart each time, until there are enough.

Ticks go through the connectors' own sender, with their clocks, framed Avro as ever.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from enum import StrEnum
from itertools import count
from pathlib import Path

import msgspec

from bench.rig import BenchError, Rig
from connectors.clocks import interleave
from connectors.files import TradesFile
from connectors.files.settings import FilesSettings
from connectors.messages import Message
from connectors.sender import Sender
from connectors.simulator import Simulation, SimulatorSettings
from headrace.pipeline import MarketPart, PipelineSettings, RegimesPart, SourcePart
from schemas.partitioner import partition_of
from schemas.records import Tick
from schemas.topics import SYMBOL_PARTITIONS

WEEK_US = 7 * 86_400_000_000
FILE_SOURCE = "files"


class Scenario(StrEnum):
    """Where the ticks come from."""

    SIM20 = "sim20"
    SIM2000 = "sim2000"
    SESSIONS = "sessions"


SYMBOLS = {Scenario.SIM20: 20, Scenario.SIM2000: 2_000}
TICKS_PER_SECOND = {Scenario.SIM20: 1_000, Scenario.SIM2000: 20_000}
"""Of event time."""


def least(scenario: Scenario) -> int:
    """Records after which every symbol has closed bars: some seconds of event time."""
    return 4 * TICKS_PER_SECOND.get(scenario, 0)


def pipeline(scenario: Scenario) -> PipelineSettings:
    """1-second bars and nothing else."""
    source = FILE_SOURCE if scenario is Scenario.SESSIONS else "simulator"
    market = MarketPart(bars=("1s",), regimes=RegimesPart(bars=()), sources=(SourcePart(name=source),))
    return PipelineSettings(market=market)


def describe(scenario: Scenario) -> str:
    """In a few words."""
    if scenario is Scenario.SESSIONS:
        return "trades of a file"
    return f"{SYMBOLS[scenario]:,} simulated symbols, {TICKS_PER_SECOND[scenario]:,} ticks a second of event time"


class Contents:
    """What lies where in the partitions of market.ticks: the places of clocks and settings; the rest are ticks."""

    def __init__(self) -> None:
        self.ends = dict.fromkeys(range(SYMBOL_PARTITIONS), 1)
        self._others = {partition: [0] for partition in self.ends}  # the settings come first

    def add(self, message: Message) -> None:
        """Count a message that is sent: a clock goes to every partition."""
        if message.key is not None:
            self.ends[partition_of(message.key, SYMBOL_PARTITIONS)] += 1
            return
        for partition, end in self.ends.items():
            self._others[partition].append(end)
            self.ends[partition] = end + 1

    def ticks(self, partition: int, offset: int) -> int:
        """How many ticks of a partition lie before ``offset``."""
        return offset - bisect_left(self._others[partition], offset)

    @property
    def warm_up(self) -> int:
        """A twentieth of all ticks."""
        return sum(self.ticks(partition, end) for partition, end in self.ends.items()) // 20


def fill(
    rig: Rig,
    scenario: Scenario,
    ticks: int,
    *,
    trades: Path | None = None,
    files: FilesSettings | None = None,
) -> Contents:
    """Exactly ``ticks`` ticks with their clocks into market.ticks.

    ``trades`` is the file of `Scenario.SESSIONS`, ``files`` how it is read (None: columns by their usual names).
    Raises `BenchError` where it is missing or has no trades.
    """
    if scenario is Scenario.SESSIONS:
        if trades is None:
            raise BenchError("the scenario sessions needs a file of trades: --trades FILE")
        messages = _sessions(trades, files or FilesSettings())
    else:
        messages = Simulation(_simulated(scenario, ticks)).messages()
    contents = Contents()
    sender = Sender(rig.kafka, rig.namespace, rig.codec.encode)
    sent = sender.run(_first(messages, ticks, contents))
    if sent.ticks != ticks:
        raise BenchError(f"{scenario}: {sent.ticks:,} ticks instead of {ticks:,}")
    return contents


def _simulated(scenario: Scenario, ticks: int) -> SimulatorSettings:
    symbols, rate = SYMBOLS[scenario], TICKS_PER_SECOND[scenario]
    return SimulatorSettings(
        symbols=tuple(f"S{number:04d}" for number in range(1, symbols + 1)),
        ticks_per_minute=60.0 * rate / symbols,
        minutes=max(390, 2 * ticks // (60 * rate)),
    )


def _sessions(trades: Path, settings: FilesSettings) -> Iterator[Message]:
    """The file's trades without end; each round is a week behind the last and a session of its own."""
    file = TradesFile(trades, settings.model_copy(update={"source": FILE_SOURCE, "limit": None}))

    def rounds() -> Iterator[Tick]:
        for turn in count():
            found = 0
            for row in file.rows():
                if isinstance(row, Tick):
                    found += 1
                    yield msgspec.structs.replace(
                        row, event_time=row.event_time + turn * WEEK_US, session=f"{row.session}-{turn}"
                    )
            if not found:
                raise BenchError(f"{trades.name} has no trades")

    return interleave(rounds(), file.source, file.settings.clocks)


def _first(given: Iterator[Message], ticks: int, contents: Contents) -> Iterator[Message]:
    for message in given:
        contents.add(message)
        yield message
        ticks -= message.record is not None
        if not ticks:
            return
