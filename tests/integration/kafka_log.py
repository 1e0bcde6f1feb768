"""What lies in a namespace's topics, read as any consumer would."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, cast

import confluent_kafka as ck

from headrace.stack import Endpoints
from schemas.codec import Codec
from schemas.records import Record
from schemas.states import POSITION_KEY, SourcePosition
from schemas.topics import TOPICS, physical
from streams.agent import Input
from tests.simulation.port import Entry


class Placed(NamedTuple):
    """An output and where it lies."""

    partition: int
    offset: int
    entry: Entry


class Records(NamedTuple):
    """What one partition holds, and where it ended."""

    records: list[Input]
    end: int


class Committed(NamedTuple):
    """A partition's changelog."""

    position: int
    states: Mapping[bytes, bytes]


class Log:
    """Reads what lies in a namespace's topics."""

    def __init__(self, stack: Endpoints, namespace: str, codec: Codec) -> None:
        self.bootstrap, self.namespace, self.codec = stack.kafka, namespace, codec

    def read(self, topic: str, partition: int) -> Records:
        """Every committed record from the first to the end of the partition as it is now."""
        reader = ck.Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": "tests",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 50,
            }
        )
        reader.assign([ck.TopicPartition(physical(self.namespace, topic), partition, 0)])
        found: list[Input] = []
        try:
            while True:
                for message in reader.consume(10_000, 0.1):
                    error = message.error()
                    if error is None:
                        raw, headers = message.value(), tuple(message.headers() or ())
                        value = None if raw is None else cast("Record", self.codec.decode(topic, raw))
                        found.append(
                            Input(
                                message.offset(), message.timestamp()[1], message.key(), value, raw, headers
                            )
                        )
                    elif error.code() == ck.KafkaError._PARTITION_EOF:
                        return Records(found, message.offset())
                    else:
                        raise ck.KafkaException(error)
        finally:
            reader.close()

    def entries(self, topic: str) -> Iterator[Placed]:
        """Partition, offset and content of every record of an output topic."""
        for partition in range(TOPICS[topic].partitions):
            for item in self.read(topic, partition).records:
                if item.key is not None and item.raw is not None:  # without: the settings
                    yield Placed(partition, item.offset, Entry(item.key, item.raw, item.timestamp_ms))

    def ends(self, *topics: str) -> dict[tuple[str, int], int]:
        """Where every partition of these topics ends."""
        reader = ck.Consumer({"bootstrap.servers": self.bootstrap, "group.id": "tests"})
        try:
            return {
                (topic, partition): reader.get_watermark_offsets(
                    ck.TopicPartition(physical(self.namespace, topic), partition), timeout=10
                )[1]
                for topic in topics
                for partition in range(TOPICS[topic].partitions)
            }
        finally:
            reader.close()

    def committed(self, agent: str, partition: int) -> Committed:
        """The changelog of a partition: its position, and its states by key."""
        changelog = f"{agent}.changelog"
        latest: dict[bytes, bytes] = {}
        for item in self.read(changelog, partition).records:
            assert item.key is not None
            assert item.raw is not None
            latest[item.key] = item.raw
        raw = latest.pop(POSITION_KEY, None)
        position = 0 if raw is None else cast(SourcePosition, self.codec.decode(changelog, raw)).next_offset
        return Committed(position, latest)
