"""The same topology without Kafka, in one process: backtests, the fast test driver, and the oracle of rule 11."""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.codec import Unreadable, decode_body, encode_body, schema_of
from schemas.columns import NO_SEQUENCE, NO_TICK, TICK, Headers, Lane, Rows, TickColumns
from schemas.partitioner import partition_of
from schemas.records import DeadLetter, Record, Settings, Tick
from schemas.states import State
from schemas.topics import DEAD_LETTER_VALUE_BYTES, INPUTS, TOPICS
from streams.admission import symbol_of
from streams.agent import DEAD_LETTERS, Agent, Input, Output, SourcePartition
from streams.runtime.runs import record_time_ms
from streams.ticks import Clocks, Ticks

Collect = Callable[[Output], None]
NO_FRAME = bytes(5)
"""Stands before values for the frame that only a registry can give."""


class _Partition:
    """One partition of an agent's input topic, with what has not been processed yet."""

    def __init__(self, agent: Agent[Any, Any], partition: int) -> None:
        self.agent = agent
        self.where = SourcePartition(agent.source, partition)
        self.state: State = agent.partition_type()
        self.keys: dict[str, State] = {}
        self.waiting: list[Input] = []
        self.end = 0

    def append(
        self,
        timestamp_ms: int,
        key: bytes | None,
        value: Record | Unreadable | None,
        raw: bytes | None,
        headers: Headers = (),
    ) -> None:
        self.waiting.append(Input(self.end, timestamp_ms, key, value, raw, headers))
        self.end += 1

    def run(self, stretch: Stretch, mine: NDArray[np.intp]) -> Ticks:
        """The rows ``mine`` of a stretch, and its clocks, as the partition's next records.

        Of clocks with no tick between them only the last is handed over, which says all that the others said; each
        has its offset all the same.
        """
        times = stretch.clocks["time"]
        before = np.searchsorted(mine, stretch.clocks["index"])
        last = np.append(before[1:] != before[:-1], True)[: len(before)]
        numbers = np.arange(len(mine))
        offsets = np.insert(
            numbers + np.searchsorted(before, numbers, "right"),
            before[last],
            (before + np.arange(len(before)))[last],
        )
        offsets += self.end
        self.end += len(mine) + len(before)
        clocks = np.zeros(np.count_nonzero(last), TICK)
        clocks["event_time"], clocks["lane"], clocks["sequence"] = times[last], NO_TICK, NO_SEQUENCE
        columns = TickColumns(*_own_lanes(stretch.rows[mine], stretch.lanes))
        columns = columns._replace(rows=np.insert(columns.rows, before[last], clocks))
        at = before[last] + np.arange(len(clocks))

        headers = (("source", stretch.source.encode()),)

        def record(index: int) -> Input:
            place = np.searchsorted(at, index)
            if place < len(at) and at[place] == index:
                time = int(clocks["event_time"][place])
                return Input(int(offsets[index]), record_time_ms(time), None, None, None, headers)
            tick = stretch.tick(int(mine[index - place]))
            return Input(
                int(offsets[index]), record_time_ms(tick.event_time), tick.symbol.encode(), tick, None
            )

        # Kafka's time of a record is in milliseconds.
        struck = np.maximum(clocks["event_time"] // 1000, 1) * 1000
        return Ticks(columns, [], offsets, record, Clocks(stretch.source, at, struck))


class Stretch(NamedTuple):
    """A stretch of market.ticks as columns.

    ``rows`` are its ticks, of `TICK`, shape (n,); ``lanes`` those that they name, and maybe more. ``clocks`` are of
    ``source``: each has the ``index`` of the row that it stands before, n behind the last, and its ``time`` (µs).
    ``tick`` gives the whole record of a row.
    """

    rows: Rows
    lanes: Sequence[Lane]
    clocks: NDArray[np.void]
    source: str
    tick: Callable[[int], Tick]


class Inline:
    """Runs a topology. Every output of every agent goes to ``collect``, in the order in which it is made.

    ``run_records`` is how many records of market.ticks are gathered before the agents step; by the law of
    determinism it changes nothing but speed and how soon outputs are seen.
    """

    def __init__(
        self,
        agents: Sequence[Agent[Any, Any]],
        settings: Settings,
        collect: Collect,
        *,
        run_records: int = 4096,
    ) -> None:
        self._collect = collect
        self._run_records = run_records
        self._waiting = 0
        self._parts = [
            [_Partition(agent, number) for number in range(TOPICS[agent.source].partitions)]
            for agent in agents
        ]
        """By agent, upstream first."""
        self._readers: dict[str, list[list[_Partition]]] = defaultdict(list)
        for parts in self._parts:
            self._readers[parts[0].agent.source].append(parts)
        self.settings(settings)

    def settings(self, settings: Settings, topics: Iterable[str] = INPUTS) -> None:
        """Settings, to every partition of the agents' input topics.

        Snapshots wait for their fits, whatever the settings say: how soon one comes is no matter of time here.
        """
        settings = _waiting(settings)
        for topic in topics:
            body = encode_body(topic, settings)
            for part in chain.from_iterable(self._readers.get(topic, ())):
                part.append(0, None, cast(Settings, decode_body(topic, body)), NO_FRAME + body)

    def tick(self, key: str, value: Record, timestamp_ms: int, topic: str = "market.ticks") -> None:
        """One record of market.ticks, or of another source ``topic``."""
        raw_key = key.encode()
        for parts in self._readers[topic]:
            parts[partition_of(raw_key, len(parts))].append(timestamp_ms, raw_key, value, None)
        self._waited(1)

    def clock(self, source: str, timestamp_ms: int, topic: str = "market.ticks") -> None:
        """A clock of ``source``, to every partition of its topic."""
        headers = (("source", source.encode()),)
        for part in chain.from_iterable(self._readers[topic]):
            part.append(timestamp_ms, None, None, None, headers)
        self._waited(TOPICS[topic].partitions)

    def columns(self, stretch: Stretch) -> None:
        """Ticks and clocks as columns: processed at once, through all agents."""
        self.flush()
        (parts,) = self._readers["market.ticks"]
        lanes = [lane.symbol.encode() for lane in stretch.lanes]
        home = np.array([partition_of(key, len(parts)) for key in lanes], np.int64)[stretch.rows["lane"]]
        unnamed = [number for number, key in enumerate(lanes) if symbol_of(key) is None]
        if unnamed and np.isin(stretch.rows["lane"], unnamed).any():
            self._one_by_one(stretch)
            return
        for number, part in enumerate(parts):
            self._step(part, part.run(stretch, np.flatnonzero(home == number)))
        self.flush()

    def _one_by_one(self, stretch: Stretch) -> None:
        """A stretch with ticks whose symbol cannot be one: they are bad input, which columns do not hold."""
        clocks = iter(stretch.clocks.tolist())
        upcoming = next(clocks, None)
        for index in range(len(stretch.rows) + 1):
            while upcoming is not None and upcoming[0] == index:
                self.clock(stretch.source, record_time_ms(upcoming[1]))
                upcoming = next(clocks, None)
            if index < len(stretch.rows):
                tick = stretch.tick(index)
                self.tick(tick.symbol, tick, record_time_ms(tick.event_time))
        self.flush()

    def raw(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: Record | Unreadable | None,
        raw: bytes | None,
        timestamp_ms: int,
        headers: Headers = (),
    ) -> None:
        """A record as it lies in a partition of any input topic; for oracles that read a recorded log."""
        for parts in self._readers[topic]:
            parts[partition].append(timestamp_ms, key, value, raw, headers)
        self._waited(1)

    def command(self, value: Record, key: str, timestamp_ms: int = 0) -> None:
        """A record of portfolio.events other than a snapshot."""
        self._route("portfolio.events", key, value, timestamp_ms)

    def flush(self) -> None:
        """Process everything that waits, through all agents."""
        self._waiting = 0
        for part in chain.from_iterable(self._parts):
            if part.waiting:
                waiting, part.waiting = part.waiting, []
                self._step(part, waiting)

    def _waited(self, records: int) -> None:
        self._waiting += records
        if self._waiting >= self._run_records:
            self.flush()

    def _step(self, part: _Partition, inputs: Sequence[Input]) -> None:
        outputs, _ = part.agent.step(part.where, part.state, part.keys, inputs)
        collect, inner = self._collect, self._readers
        for output in outputs:
            if output.topic == DEAD_LETTERS:
                output = _completed(output, inputs)
            collect(output)
            if output.topic in inner:
                self._route(output.topic, output.key, output.value, record_time_ms(output.event_time))

    def _route(self, topic: str, key: str, value: Record, timestamp_ms: int) -> None:
        """To an inner topic, as a copy: the next agent sees what it would see over Kafka."""
        raw_key = key.encode()
        received = _received(topic, value)
        for parts in self._readers[topic]:
            parts[partition_of(raw_key, len(parts))].append(timestamp_ms, raw_key, received, None)


def _waiting(settings: Settings) -> Settings:
    """``settings`` under which every universe waits for its fits."""
    universes = tuple(
        universe
        if universe.fits is None
        else msgspec.structs.replace(universe, fits=msgspec.structs.replace(universe.fits, waits=True))
        for universe in settings.universes
    )
    return msgspec.structs.replace(settings, universes=universes)


def _own_lanes(rows: Rows, lanes: Sequence[Lane]) -> tuple[Rows, tuple[Lane, ...]]:
    """``rows`` with only the lanes that they name, in order of first rows."""
    named, first, which = np.unique(rows["lane"], return_index=True, return_inverse=True)
    order = np.argsort(first)
    numbers = np.empty(len(order), np.int32)
    numbers[order] = np.arange(len(order))
    rows["lane"] = numbers[which]
    return rows, tuple(lanes[lane] for lane in named[order].tolist())


def _received(topic: str, record: Record) -> Record:
    """``record`` as a reader of ``topic`` gets it: what Avro makes of it.

    MessagePack, many times as fast, makes the same of a record without decimals (Avro fixes their exponent). What it
    refuses, a float of numpy for example, goes through Avro, which takes or refuses it as over Kafka.
    """
    reader = _reader(type(record))
    if reader is not None:
        with suppress(TypeError):
            return reader.decode(_WRITER.encode(record))
    return cast(Record, decode_body(topic, encode_body(topic, record)))


_WRITER = msgspec.msgpack.Encoder()


@functools.cache
def _reader(kind: type[Record]) -> msgspec.msgpack.Decoder[Record] | None:
    """A reader of the kind's MessagePack; None where it, or a record within it, may hold a decimal."""
    return None if "'decimal'" in repr(schema_of(kind)) else msgspec.msgpack.Decoder(kind)


def _completed(output: Output, inputs: Sequence[Input]) -> Output:
    """A dead letter with the value that its input, passed on as it is, would have had in Kafka."""
    letter = cast(DeadLetter, output.value)
    if letter.value is not None:
        return output
    item = inputs[bisect_left(inputs, letter.offset, key=lambda each: each.offset)]
    if not isinstance(item.value, Record):
        return output
    raw = NO_FRAME + encode_body(letter.topic, item.value)
    value = raw[:DEAD_LETTER_VALUE_BYTES]
    return output._replace(value=msgspec.structs.replace(letter, value=value, value_size=len(raw)))
