"""Reads the partitions of a namespace's topics, from a place or from a time, to their ends of the moment."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Final

import confluent_kafka as ck

from schemas.columns import PackedRecord
from schemas.partitioner import partition_of
from schemas.topics import physical
from streams.errors import HeadraceError

TIMEOUT_S: Final = 20.0
_AT_ONCE: Final = 5_000
_WAIT_S: Final = 0.02


class TopicMissing(HeadraceError):
    """Raised where a namespace has no such topic."""


class NotRead(HeadraceError):
    """Raised where the broker does not answer, or answers with an error."""


class Reading:
    """One consumer over many partitions, one after the other; a context manager. Topics are named without namespace.

    Of two iterators of `messages` only the one made last goes on.
    """

    def __init__(self, bootstrap: str, namespace: str) -> None:
        self._namespace = namespace
        self._bootstrap = bootstrap
        self._partitions: dict[str, int] = {}
        self._reader = ck.Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"{namespace or 'live'}.headrace-reading",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 5,  # a partition's end is told by an answer that waited in vain
                "fetch.queue.backoff.ms": 5,
            }
        )

    def __enter__(self) -> Reading:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has. Raises `TopicMissing`, and `NotRead` where no broker answers."""
        count = self._partitions.get(topic)
        if count is None:
            name = physical(self._namespace, topic)
            try:
                count = len(self._reader.list_topics(name, timeout=TIMEOUT_S).topics[name].partitions)
            except ck.KafkaException as error:
                raise NotRead(f"no broker at {self._bootstrap}: {error.args[0].str()}") from error
            if not count:
                raise TopicMissing(f"there is no topic {name}: is the namespace right?")
            self._partitions[topic] = count
        return count

    def partition_of(self, topic: str, key: str | bytes) -> int:
        """Where the records of a key lie."""
        return partition_of(key, self.partitions(topic))

    def begin(self, topic: str, partition: int) -> int:
        """The first offset that is still there; above 0 where records were removed."""
        low, _ = self._reader.get_watermark_offsets(self._place(topic, partition), timeout=TIMEOUT_S)
        return int(low)

    def end(self, topic: str, partition: int) -> int:
        """The offset behind the last record."""
        _, high = self._reader.get_watermark_offsets(self._place(topic, partition), timeout=TIMEOUT_S)
        return int(high)

    def since(self, topic: str, partition: int, time_us: int) -> int:
        """The first offset with a timestamp of ``time_us`` or later: no such record lies before it. The end: none."""
        at = self._place(topic, partition, max(time_us // 1000, 0))
        (found,) = self._reader.offsets_for_times([at], timeout=TIMEOUT_S)
        if found.error is not None:
            raise NotRead(f"{at.topic}[{partition}]: {found.error.str()}")
        return int(found.offset)

    def messages(self, topic: str, partition: int, offset: int) -> Iterator[ck.Message]:
        """Every message from ``offset`` to the end as it is when it is reached."""
        self._reader.assign([self._place(topic, partition, offset)])
        while True:
            for message in self._reader.consume(_AT_ONCE, _WAIT_S):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == ck.KafkaError._PARTITION_EOF:
                    return
                else:
                    raise NotRead(f"{physical(self._namespace, topic)}[{partition}]: {error.str()}")

    def records(self, topic: str, partition: int, offset: int) -> Iterator[PackedRecord]:
        """As `messages`, without the client's own objects."""
        for message in self.messages(topic, partition, offset):
            headers = tuple((name, content or b"") for name, content in message.headers() or ())
            yield message.offset(), message.timestamp()[1], message.key(), message.value(), headers

    def _place(self, topic: str, partition: int, offset: int = 0) -> ck.TopicPartition:
        return ck.TopicPartition(physical(self._namespace, topic), partition, offset)
