"""The sink: a consumer of every result topic that writes rows and offsets together.

The consumer group shares out partitions and nothing else: where to go on is read from the database, and
`writer` holds off a process that has lost a partition without knowing it. The group's own offsets are for lag
monitors.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

import psycopg
import sqlalchemy.exc
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas.codec import RegistryUnavailable, Unreadable
from schemas.records import Reason, Record
from schemas.states import State
from schemas.topics import TOPICS, physical
from sinks.timescale.errors import OutOfGroup, PositionLost, TopicsMissing
from sinks.timescale.migrations import migrate
from sinks.timescale.queries import connect, next_offsets
from sinks.timescale.results import RESULTS, Result
from sinks.timescale.settings import SinkSettings
from sinks.timescale.tables import run_of
from sinks.timescale.writer import Partition, Taken, Writer, Written

logger = logging.getLogger(__name__)

Decoded = Record | State | Unreadable
Decode = Callable[[str, bytes], Decoded]
"""What `schemas.codec.Codec.decode` does, for the logical name of a topic. Raises `RegistryUnavailable`."""

SINK_TOPICS = tuple(dict.fromkeys(result.topic for result in RESULTS))
"""The topics that the sink reads, by their logical names."""

_AWAY = (psycopg.OperationalError, sqlalchemy.exc.OperationalError, RegistryUnavailable, KafkaException)
_MISSING = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)
_FATAL = (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID)
_FIRST_PAUSE_MS = 100
_POLL_S = 0.05
_ENDS_TIMEOUT_S = 10.0
_POLL_RECORDS = 2_000


@dataclass
class Progress:
    """What this process has done since it started: rows by table, and records that made none.

    ``waiting_for`` tells in words what is away while the sink waits; None: nothing is.
    """

    rows: Counter[str] = field(default_factory=Counter)
    records: int = 0
    repeats: int = 0
    conflicts: int = 0
    refused: int = 0
    waiting_for: str | None = None

    def add(self, written: Written) -> None:
        """Count a transaction."""
        self.rows.update(written.rows)
        self.records += written.records
        self.repeats += written.repeats
        self.conflicts += written.conflicts
        self.refused += written.refused


OnProgress = Callable[[Progress], None]


class TimescaleSink:
    """Copies the result topics of one namespace into TimescaleDB; any number of processes share the work.

    ``topics`` are logical names out of `SINK_TOPICS`, all by default.
    """

    def __init__(
        self,
        settings: SinkSettings,
        kafka_bootstrap: str,
        database_url: str,
        namespace: str,
        decode: Decode,
        topics: Iterable[str] = SINK_TOPICS,
    ) -> None:
        self._settings = settings
        self._bootstrap = kafka_bootstrap
        self._database_url = database_url
        self._run = run_of(namespace)
        self._group = physical(namespace, "sinks.timescale")
        self._decode = decode
        self._logical = {physical(namespace, topic): topic for topic in topics}
        self._physical = {topic: name for name, topic in self._logical.items()}
        self._results: dict[str, dict[type[Record | State], Result]] = defaultdict(dict)
        for result in RESULTS:
            self._results[result.topic][result.record] = result
        self._writer = Writer(database_url, self._run)
        self._progress = Progress()
        self._on_progress: OnProgress | None = None
        self._fatal: KafkaError | None = None
        """What has made the consumer useless. It is told once, in one of three ways: see `_note`."""

        self._assigned: list[TopicPartition] = []
        self._placed = True
        self._rebalances = (
            0  # what was read before a rebalance is dropped after it: it is read again from the database
        )
        self._slipped: list[Message] = []
        self._batch: dict[Partition, list[Taken]] = {}
        self._batch_rows = 0
        self._batch_bytes = 0
        self._batch_since = 0.0

    def run(self, stop: threading.Event, on_progress: OnProgress | None = None) -> None:
        """Bring the database's schema up, then copy until ``stop`` is set; what was read by then is written.

        ``on_progress`` is called in this thread after each transaction and when a wait begins or ends. An
        outage of Kafka, the registry or the database is waited out. Raises `TopicsMissing`, `TopicDeleted`,
        `PositionLost`, `OutOfGroup` or `RunRemoved`.
        """
        self._on_progress = on_progress
        consumer = self._consumer()
        try:
            if not self._patiently(consumer, stop, lambda: migrate(self._database_url)):
                return
            consumer.subscribe(list(self._logical), on_assign=self._on_assign, on_revoke=self._on_revoke)
            while not stop.is_set():
                if not self._placed:
                    self._place(consumer, stop)
                self._read(consumer, stop)
                if self._batch_is_due():
                    self._write(consumer, stop)
            if self._batch:
                self._write(consumer, stop)
        finally:
            consumer.close()
            self._writer.close()

    def lag(self) -> int:
        """Records of all partitions that are not in the database yet, whichever process they are for.

        Raises `KafkaException` or `sqlalchemy.exc.OperationalError` where a service is away.
        """
        ends = self._ends()
        with connect(self._database_url) as connection:
            held = next_offsets(connection, self._run)
        return sum(end - held.get(partition, 0) for partition, end in ends.items())

    def _ends(self) -> dict[Partition, int]:
        """The end of each partition. New topics have no leader for a moment, so it asks for a while."""
        wanted = {
            TopicPartition(name, partition): OffsetSpec.latest()
            for name, topic in self._logical.items()
            for partition in range(TOPICS[topic].partitions)
        }
        until = time.monotonic() + _ENDS_TIMEOUT_S
        while True:
            try:
                answers = self._admin.list_offsets(wanted, request_timeout=_ENDS_TIMEOUT_S)
                return {self._partition(place): answer.result().offset for place, answer in answers.items()}
            except KafkaException:
                if time.monotonic() > until:
                    raise
                time.sleep(_FIRST_PAUSE_MS / 1000)

    def _topic_ids(self, topics: Iterable[str]) -> dict[str, str]:
        """The broker's id of each topic."""
        wanted = {self._physical[topic]: topic for topic in topics}
        if not wanted:
            return {}
        answers = self._admin.describe_topics(TopicCollection(list(wanted)), request_timeout=_ENDS_TIMEOUT_S)
        try:
            return {wanted[name]: str(answer.result().topic_id) for name, answer in answers.items()}
        except KafkaException as error:
            if error.args[0].code() in _MISSING:
                raise TopicsMissing(error.args[0].str()) from error
            raise

    @cached_property
    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self._bootstrap}, logger=logger)

    def _consumer(self) -> Consumer:
        static = {"group.instance.id": self._settings.instance} if self._settings.instance else {}
        return Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": self._group,
                "session.timeout.ms": self._settings.session_timeout_ms,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "fetch.queue.backoff.ms": 5,
                "error_cb": self._on_kafka_error,
                "on_commit": self._on_commit,
                "log_level": 2,  # it would tell of every attempt to reach a broker, twenty a second
                **static,
            },
            logger=logger,
        )

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Take note of the partitions; they are assigned once the database has told their offsets."""
        self._forget()
        self._assigned = partitions
        self._placed = False
        consumer.assign([])

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._forget()
        self._assigned = []
        self._placed = True

    def _forget(self) -> None:
        """Drop what was read and is not written: whoever gets the partitions reads it again."""
        self._rebalances += 1
        self._slipped = []
        self._clear_batch()

    def _place(self, consumer: Consumer, stop: threading.Event) -> None:
        """Start the assigned partitions where the database says."""
        positions: dict[Partition, int] = {}

        def ask() -> None:
            partitions = [self._partition(one) for one in self._assigned]
            ids = self._topic_ids({one.topic for one in partitions})
            positions.update(self._writer.positions(partitions, ids))

        if not self._patiently(consumer, stop, ask):
            return
        placed = [
            TopicPartition(one.topic, one.partition, positions[self._partition(one)] or OFFSET_BEGINNING)
            for one in self._assigned
        ]
        consumer.assign(placed)
        consumer.resume(placed)
        self._placed = True

    def _partition(self, place: TopicPartition) -> Partition:
        return Partition(self._logical[place.topic], place.partition)

    def _read(self, consumer: Consumer, stop: threading.Event) -> None:
        """Read what Kafka has into the batch."""
        rebalances = self._rebalances
        messages = consumer.consume(
            num_messages=_POLL_RECORDS, timeout=min(_POLL_S, self._settings.batch_ms / 1000)
        )
        for error in filter(None, (message.error() for message in messages)):
            self._note(error)
        if self._fatal is not None:
            raise OutOfGroup(self._fatal.str())
        if self._rebalances != rebalances:
            return
        messages = self._slipped + messages
        self._slipped = []
        for message in messages:
            error = message.error()
            if error is not None:
                self._check(error)
            elif not self._take(consumer, stop, message):
                return

    def _take(self, consumer: Consumer, stop: threading.Event, message: Message) -> bool:
        """Put a message into the batch. False: a wait for the registry was cut short, stop reading here."""
        partition = Partition(self._logical[message.topic()], message.partition())
        item = Taken(message.offset(), message.timestamp()[1], message.key(), message.value())
        decoded = self._decoded(consumer, stop, partition.topic, item.value)
        if decoded is None:
            return False
        if isinstance(decoded, Unreadable):
            item = self._writer.refuse(partition, item, decoded.reason, decoded.error)
        elif (result := self._results[partition.topic].get(type(decoded))) is not None:
            item = item._replace(result=result, row=self._writer.row(result, decoded))
        if not self._batch:
            self._batch_since = time.monotonic()
        self._batch.setdefault(partition, []).append(item)
        self._batch_rows += 1
        self._batch_bytes += len(item.value or b"")
        return True

    def _decoded(
        self, consumer: Consumer, stop: threading.Event, topic: str, value: bytes | None
    ) -> Decoded | None:
        if value is None:
            return Unreadable(Reason.UNREADABLE, "a record without a value")
        try:
            return self._decode(topic, value)
        except RegistryUnavailable:
            answer: list[Decoded] = []
            self._patiently(consumer, stop, lambda: answer.append(self._decode(topic, value)))
            return answer[0] if answer else None

    def _batch_is_due(self) -> bool:
        limits = self._settings
        return bool(self._batch) and (
            self._batch_rows >= limits.batch_rows
            or self._batch_bytes >= limits.batch_bytes
            or (time.monotonic() - self._batch_since) * 1000 >= limits.batch_ms
        )

    def _clear_batch(self) -> None:
        self._batch = {}
        self._batch_rows = self._batch_bytes = 0

    def _write(self, consumer: Consumer, stop: threading.Event) -> None:
        """Write the batch, and tell the group how far the database is."""
        batch = self._batch
        if not self._patiently(consumer, stop, lambda: self._progress.add(self._writer.write(batch))):
            return
        self._clear_batch()
        self._report()
        done = [
            TopicPartition(self._physical[partition.topic], partition.partition, items[-1].offset + 1)
            for partition, items in batch.items()
        ]
        try:
            consumer.commit(offsets=done, asynchronous=True)
        except KafkaException as error:
            logger.debug("the group's offsets, which only monitors read, were not written: %s", error)

    def _patiently(self, consumer: Consumer, stop: threading.Event, action: Callable[[], None]) -> bool:
        """Do ``action``, again and again while a service that it needs is away.

        Answers False if it was not done: ``stop`` was set, or a rebalance came, and what was read is void.
        The group sees a live member meanwhile.
        """
        rebalances = self._rebalances
        pause_ms = _FIRST_PAUSE_MS
        while True:
            try:
                action()
            except _AWAY as error:
                self._waiting_for(error)
                self._idle(consumer, stop, pause_ms)
                pause_ms = min(2 * pause_ms, self._settings.max_backoff_ms)
                if stop.is_set() or self._rebalances != rebalances:
                    return False
            else:
                self._waiting_for(None)
                return True

    def _idle(self, consumer: Consumer, stop: threading.Event, pause_ms: int) -> None:
        """Stay in the group for a while, without reading on."""
        held = consumer.assignment()
        consumer.pause(held)
        rebalances = self._rebalances
        until = time.monotonic() + pause_ms / 1000
        while (left := until - time.monotonic()) > 0 and not stop.is_set() and self._rebalances == rebalances:
            message = consumer.poll(min(left, _POLL_S))
            if message is not None:
                self._slipped.append(message)
        if self._rebalances == rebalances:
            consumer.resume(held)

    def _waiting_for(self, error: Exception | None) -> None:
        """Log, once, that a wait begins or ends."""
        reason = None if error is None else str(error).strip().partition("\n")[0]
        if (reason is None) == (self._progress.waiting_for is None):
            return
        self._progress.waiting_for = reason
        if error is None:
            logger.warning("the sink of %s goes on", self._run)
        else:
            logger.warning("the sink of %s waits: %s: %s", self._run, type(error).__name__, reason)
        self._report()

    def _report(self) -> None:
        if self._on_progress is not None:
            self._on_progress(replace(self._progress, rows=self._progress.rows.copy()))

    def _check(self, error: KafkaError) -> None:
        """What the consumer met. It gets over most of it by itself."""
        if error.code() in _MISSING:
            raise TopicsMissing(error.str())
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise PositionLost(self._run, error.str())
        logger.info("Kafka: %s", error)

    def _on_commit(self, error: KafkaError | None, _: list[TopicPartition]) -> None:
        if error is not None:
            self._note(error)

    def _note(self, error: KafkaError) -> None:
        """A static member that was fenced is given nothing any more, as is one whose last commit came too late."""
        if error.fatal() or error.code() in _FATAL:
            self._fatal = error

    def _on_kafka_error(self, error: KafkaError) -> None:
        self._note(error)
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            logger.warning("the sink of %s waits for Kafka: %s", self._run, error.str())
        else:
            logger.debug("Kafka: %s", error)
