"""What becomes of a record in an input topic: not guessed, but told by the agent itself, run over the topic."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from msgspec.structs import replace

from headrace.repair import EVENTS, QUOTES, TICKS
from schemas.codec import Codec
from schemas.columns import Packed, PackedRecord
from schemas.partitioner import partition_of
from schemas.records import Command, DeadLetter, LateTick, Quote, Record, Settings, Snapshot, Tick
from schemas.states import State
from streams import topology
from streams.agent import Agent, Input, Output, SourcePartition, frozen
from streams.errors import HeadraceError
from streams.runtime import reading as decoding

HEADER: Final = "dead-letter"
"""A record's header with the id of the letter whose repair it is."""
SESSION: Final = "redrive"
"""Of every tick and quote that was re-driven; its sequence grows within symbol and source."""
_AGENTS: Final = {TICKS: "symbols", QUOTES: "quotes", EVENTS: "portfolios"}
"""Who reads each topic that people and feeds write."""
_RUN: Final = 5_000
TAKEN: Final = "taken"


class Trimmed(HeadraceError):
    """Raised where a topic does not begin at its beginning any more."""


class Log(Protocol):
    """The input topics, as they are looked through."""

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has."""
        ...

    def begin(self, topic: str, partition: int) -> int:
        """The first offset that is still there."""
        ...

    def records(self, topic: str, partition: int, offset: int) -> Iterator[PackedRecord]:
        """Every record from an offset to the end as it is when it is reached."""
        ...


class Fate(NamedTuple):
    """What an agent makes of a record, in words; ``refused``: it goes to the dead letters."""

    told: str
    refused: bool = False


class Topic:
    """One input topic as its agent sees it, as far as it is about ``keys``, up to where it has been read.

    Portfolios are run without their strategies: they are asked for nothing but whether they take a command.
    """

    def __init__(self, log: Log, codec: Codec, name: str, keys: set[bytes]) -> None:
        """Read the topic to its end. Raises `Trimmed` where a record that was re-driven may be gone."""
        self.name = name
        self._log, self._codec, self._keys = log, codec, keys
        agent = topology.agent(_AGENTS[name])
        places = (SourcePartition(name, partition) for partition in range(log.partitions(name)))
        self._parts = [_Part(agent, where) for where in places]
        self._taken: dict[str, tuple[int, int]] = {}
        self._highest: defaultdict[tuple[bytes, str], int] = defaultdict(int)
        for partition in range(len(self._parts)):
            begin = log.begin(name, partition)
            if begin:
                raise Trimmed(
                    f"{name}[{partition}] begins at offset {begin}: what was re-driven before that cannot be seen "
                    f"any more, so nothing can be sent that is sure to count once"
                )
        self.advance()

    def partition_of(self, key: str) -> int:
        """Where a key's records lie."""
        return partition_of(key, len(self._parts))

    def taken(self, letter: str) -> tuple[int, int] | None:
        """Partition and offset of the record that repairs a letter: the one that counts."""
        return self._taken.get(letter)

    def next_sequence(self, key: str, source: str) -> int:
        """The first that no re-driven record of a source has."""
        return self._highest[key.encode(), source] + 1

    def advance(self) -> None:
        """Read on, to the end of every partition."""
        for partition, part in enumerate(self._parts):
            held: list[PackedRecord] = []
            for record in self._log.records(self.name, partition, part.next):
                offset, _, key, value, headers = record
                part.next = offset + 1
                if headers and key is not None and value is not None:
                    self._note(part, offset, key, value, dict(headers))
                if key is None or key in self._keys:
                    held.append(record)
                if len(held) == _RUN:
                    part.fold(self._inputs(held))
                    held = []
            part.fold(self._inputs(held))

    def foresee(self, key: str, record: Tick | Quote | Command, timestamp_ms: int) -> Fate:
        """What the agent would make of a record that came next."""
        return self._part(key).copy(key).meet(self._input(key, record, timestamp_ms))

    def suppose(self, key: str, record: Tick | Quote | Command, timestamp_ms: int) -> None:
        """Go on as if a record had come next."""
        self._part(key).meet(self._input(key, record, timestamp_ms))
        if not isinstance(record, Command):
            self._highest[key.encode(), record.source] += 1

    def fate(self, partition: int, offset: int) -> Fate:
        """What the agent made of a re-driven record that is there."""
        return self._parts[partition].fates.get(offset, Fate(TAKEN))

    def _part(self, key: str) -> _Part:
        return self._parts[self.partition_of(key)]

    def _input(self, key: str, record: Tick | Quote | Command, timestamp_ms: int) -> Input:
        value = self._codec.encode(self.name, record)
        return Input(self._part(key).next, timestamp_ms, key.encode(), record, value)

    def _note(self, part: _Part, offset: int, key: bytes, value: bytes, headers: Mapping[str, bytes]) -> None:
        """Take note of a re-driven record, and whether it is the first of its name: the agent takes no other."""
        if HEADER not in headers:
            return
        record = self._codec.decode(self.name, value)
        if isinstance(record, Tick | Quote) and record.session == SESSION:
            highest, sequence = self._highest[key, record.source], record.sequence or 0
            if sequence <= highest:
                return
            self._highest[key, record.source] = sequence
            part.names[record.symbol, f"{record.source}/{SESSION}/{sequence}"] = offset
        self._taken.setdefault(headers[HEADER].decode(errors="replace"), (part.where.partition, offset))

    def _inputs(self, records: Sequence[PackedRecord]) -> Sequence[Input]:
        inputs = decoding.read(self._codec, self.name, Packed.of(records))
        if self.name != EVENTS:
            return inputs
        return [_without_strategies(item) for item in inputs if not isinstance(item.value, Snapshot)]


class _Part:
    """One partition, and the agent's states there."""

    def __init__(self, agent: Agent[Any, Any], where: SourcePartition) -> None:
        self.where = where
        self.next = 0
        self.fates: dict[int, Fate] = {}
        self.names: dict[tuple[str, str], int] = {}
        """Offsets of re-driven ticks by symbol and name, for late ticks, which tell no offset."""
        self._agent = agent
        self._partition: State = agent.partition_type()
        self._states: dict[str, Any] = {}

    def fold(self, inputs: Sequence[Input]) -> None:
        """Take what was read."""
        for output in self._step(inputs):
            offset = None
            match output.value:
                case DeadLetter():
                    offset = output.value.offset
                case LateTick(symbol=symbol, name=name):
                    offset = self.names.get((symbol, name))
            fate = _fate(output.value)
            if fate is not None and offset is not None:
                self.fates[offset] = fate

    def meet(self, item: Input) -> Fate:
        """Take one record more."""
        fates = (_fate(output.value) for output in self._step([item]))
        return next((fate for fate in fates if fate is not None), Fate(TAKEN))

    def copy(self, key: str) -> _Part:
        """The same as far as it is about one key, to be gone on with on its own."""
        other = _Part(self._agent, self.where)
        other.next = self.next
        other._partition = copy.deepcopy(self._partition)
        if key in self._states:
            other._states[key] = copy.deepcopy(frozen(self._states[key]))
        return other

    def _step(self, inputs: Sequence[Input]) -> list[Output]:
        if not len(inputs):
            return []
        outputs, _ = self._agent.step(self.where, self._partition, self._states, inputs)
        return outputs


def _fate(record: Record) -> Fate | None:
    """What an output says of its input, where it says anything."""
    match record:
        case DeadLetter(reason=reason, error=error):
            return Fate(f"{reason}: {error}", refused=True)
        case LateTick(kinds=kinds, reason=reason):
            return Fate(f"late for {', '.join(kinds)}: {reason}")
    return None


def _without_strategies(item: Input) -> Input:
    if not isinstance(item.value, Settings):
        return item
    portfolios = tuple(replace(spec, strategies=()) for spec in item.value.portfolios)
    return item._replace(value=replace(item.value, portfolios=portfolios))
