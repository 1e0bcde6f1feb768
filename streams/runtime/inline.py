"""The same topology without Kafka, in one process: backtests, the fast test driver, and the oracle of rule 11."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec

from schemas.codec import Unreadable, decode_body, encode_body
from schemas.partitioner import partition_of
from schemas.records import DeadLetter, Record, Settings
from schemas.states import State
from schemas.topics import INPUTS, TOPICS
from streams.agent import DEAD_LETTERS, Agent, Input, Output, SourcePartition
from streams.runtime.runs import Headers, record_time_ms

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
        self._agents = tuple(agents)
        self._inputs: dict[str, list[_Partition]] = defaultdict(list)
        for agent in agents:
            for partition in range(TOPICS[agent.source].partitions):
                self._inputs[agent.source].append(_Partition(agent, partition))
        for topic in INPUTS:
            for part in self._inputs.get(topic, ()):
                body = encode_body(topic, settings)
                part.append(0, None, cast(Settings, decode_body(topic, body)), NO_FRAME + body)

    def tick(self, key: str, value: Record, timestamp_ms: int) -> None:
        """One record of market.ticks."""
        raw_key = key.encode()
        parts = self._inputs["market.ticks"]
        parts[partition_of(raw_key, len(parts))].append(timestamp_ms, raw_key, value, None)
        self._waited(1)

    def clock(self, source: str, timestamp_ms: int) -> None:
        """A clock of ``source``, to every partition of market.ticks."""
        parts = self._inputs["market.ticks"]
        headers = (("source", source.encode()),)
        for part in parts:
            part.append(timestamp_ms, None, None, None, headers)
        self._waited(len(parts))

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
        self._inputs[topic][partition].append(timestamp_ms, key, value, raw, headers)
        self._waited(1)

    def command(self, value: Record, key: str, timestamp_ms: int = 0) -> None:
        """A record of portfolio.events other than a snapshot."""
        self._route("portfolio.events", key, value, timestamp_ms)

    def flush(self) -> None:
        """Process everything that waits, through all agents."""
        self._waiting = 0
        for agent in self._agents:
            for part in self._inputs[agent.source]:
                if part.waiting:
                    self._step(part)

    def _waited(self, records: int) -> None:
        self._waiting += records
        if self._waiting >= self._run_records:
            self.flush()

    def _step(self, part: _Partition) -> None:
        inputs, part.waiting = part.waiting, []
        outputs, _ = part.agent.step(part.where, part.state, part.keys, inputs)
        for output in outputs:
            if output.topic == DEAD_LETTERS:
                output = _completed(output, inputs)
            self._collect(output)
            if output.topic in self._inputs:
                self._route(output.topic, output.key, output.value, record_time_ms(output.event_time))

    def _route(self, topic: str, key: str, value: Record, timestamp_ms: int) -> None:
        """To an inner topic, through Avro and back, so that the next agent sees what it would see over Kafka."""
        raw_key, body = key.encode(), encode_body(topic, value)
        parts = self._inputs[topic]
        part = parts[partition_of(raw_key, len(parts))]
        part.append(timestamp_ms, raw_key, cast(Record, decode_body(topic, body)), NO_FRAME + body)


def _completed(output: Output, inputs: Sequence[Input]) -> Output:
    """A dead letter with the value that a tick, passed on as it is, would have had in Kafka."""
    letter = cast(DeadLetter, output.value)
    item = inputs[letter.offset - inputs[0].offset]
    if letter.value is not None or not isinstance(item.value, Record):
        return output
    raw = NO_FRAME + encode_body(letter.topic, item.value)
    return output._replace(value=msgspec.structs.replace(letter, value=raw, value_size=len(raw)))
