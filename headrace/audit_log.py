"""The topics as an audit reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from headrace.fates import HEADER
from headrace.reading import Reading
from schemas.codec import Codec
from schemas.records import Record, Settings
from schemas.topics import INPUTS


class Placed(NamedTuple):
    """A record and where it lies. ``repairs`` is the dead letter that it was re-driven for."""

    topic: str
    partition: int
    offset: int
    record: Record
    repairs: str | None = None

    @property
    def place(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


class Log(Protocol):
    """The topics, as an audit reads them."""

    def records(self, topic: str, key: str, since_us: int) -> Iterator[Placed]:
        """A key's records in order, beginning at or before the first whose time is ``since_us`` or later."""
        ...

    def begins(self, topic: str, key: str) -> tuple[int, int]:
        """The partition that a key's records are in, and its first offset: above 0 where records were removed."""
        ...

    def settings(self) -> Settings | None:
        """Those that the namespace runs with, if they are still there."""
        ...


class KafkaLog:
    """A `Log` on the broker. Records are stamped with event time, which is what it looks for."""

    def __init__(self, reading: Reading, codec: Codec) -> None:
        self._reading, self._codec = reading, codec

    def records(self, topic: str, key: str, since_us: int) -> Iterator[Placed]:
        """See `Log`."""
        partition, raw = self._reading.partition_of(topic, key), key.encode()
        begin = self._reading.since(topic, partition, since_us)
        for message in self._reading.messages(topic, partition, begin):
            value = message.value()
            if message.key() != raw or value is None:
                continue
            record = self._codec.decode(topic, value)
            if isinstance(record, Record):
                repairs = dict(message.headers() or ()).get(HEADER)
                yield Placed(
                    topic,
                    partition,
                    message.offset(),
                    record,
                    None if repairs is None else repairs.decode(errors="replace"),
                )

    def begins(self, topic: str, key: str) -> tuple[int, int]:
        """See `Log`."""
        partition = self._reading.partition_of(topic, key)
        return partition, self._reading.begin(topic, partition)

    def settings(self) -> Settings | None:
        """See `Log`: an input partition begins with them."""
        for message in self._reading.messages(INPUTS[0], 0, 0):
            record = self._codec.decode(INPUTS[0], message.value() or b"")
            return record if message.offset() == 0 and isinstance(record, Settings) else None
        return None
