"""How far an agent has committed, and the event time that it has come to, as its changelog tells."""

from __future__ import annotations

import time
from typing import NamedTuple

import confluent_kafka as ck

from schemas.codec import Codec
from schemas.records import NEVER
from schemas.states import PARTITION_KEY, POSITION_KEY, QuotesPartition, SourcePosition, SymbolsPartition
from schemas.topics import TOPICS, physical
from streams.errors import HeadraceError

_BATCH = 10_000
_WAIT_S = 0.05
_FIRST_S = 30.0


class ChangelogUnread(HeadraceError):
    """Raised where the broker does not hand a changelog over."""


class Reached(NamedTuple):
    """Where an agent stands: the next offset of each partition, and the least clock (µs) of those that have one."""

    offsets: tuple[int, ...]
    clock: int


class Positions:
    """Follows the changelog of one agent; what is not committed is not seen."""

    def __init__(self, bootstrap: str, namespace: str, agent: str, codec: Codec) -> None:
        self._topic = f"{agent}.changelog"
        self._codec = codec
        partitions = range(TOPICS[self._topic].partitions)
        self._offsets = dict.fromkeys(partitions, 0)
        self._clocks = dict.fromkeys(partitions, NEVER)
        self._unread = set(partitions)
        self._reader = ck.Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "headrace-positions",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 50,  # the first reading ends with answers that have waited in vain
                "fetch.queue.backoff.ms": 5,
            }
        )
        name = physical(namespace, self._topic)
        self._reader.assign([ck.TopicPartition(name, number, ck.OFFSET_BEGINNING) for number in partitions])

    def read(self) -> Reached:
        """Take in what has been committed since the last call; the first call waits until all of it is in.

        Raises `ChangelogUnread` where it does not come in.
        """
        latest: dict[tuple[int, bytes], bytes] = {}
        deadline_s = time.monotonic() + _FIRST_S
        while (messages := self._reader.consume(_BATCH, _WAIT_S)) or self._unread:
            for message in messages:
                error = message.error()
                if error is not None and error.code() == ck.KafkaError._PARTITION_EOF:
                    self._unread.discard(message.partition())
                elif error is None and message.key() in (POSITION_KEY, PARTITION_KEY):
                    latest[message.partition(), message.key()] = message.value()
            if self._unread and time.monotonic() > deadline_s:
                raise ChangelogUnread(f"{self._topic} could not be read within {_FIRST_S:g} s")
        for (partition, _), value in latest.items():
            state = self._codec.decode(self._topic, value)
            if isinstance(state, SourcePosition):
                self._offsets[partition] = state.next_offset
            elif isinstance(state, SymbolsPartition | QuotesPartition):
                self._clocks[partition] = state.clock
        struck = [clock for clock in self._clocks.values() if clock != NEVER]
        return Reached(tuple(self._offsets.values()), min(struck, default=NEVER))

    def close(self) -> None:
        """Stop following."""
        self._reader.close()
