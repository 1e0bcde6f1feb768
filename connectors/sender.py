"""Messages into Kafka, in order, at a pace; and what of them has been acknowledged.

The only module here that knows a Kafka client and the wall clock.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import AdminClient

from connectors.errors import DeliveryFailed, KafkaUnreachable, TopicDeleted, TopicMissing
from connectors.messages import BEGINNING, TICKS, Message, Position
from schemas.records import DeadLetter, Record, Tick
from schemas.topics import DEAD_LETTER_BYTES, physical

DEAD_LETTERS = "system.dead_letters"

log = logging.getLogger(__name__)

Encode = Callable[[str, Record], bytes]
"""The framed value of a record in a topic (logical name)."""

_SERVE_EVERY = 512
_REPORT_EVERY_S = 1.0
_STOP_WITHIN_S = 10.0
_EARLY_S = 0.002
_KNOWN_WITHIN_S = 5.0
_STUCK_AFTER = 30
"""Answers of the broker, a second apart, without a single acknowledgement."""
START_TIMEOUT_S = 30.0
PRODUCER = {
    "partitioner": "murmur2_random",  # where Java's clients would put the key
    "enable.idempotence": True,
    "acks": "all",
    # A broker that knows of none of a producer's records takes any as the first: see streams.runtime.kafka.
    "max.in.flight.requests.per.connection": 1,
    "message.timeout.ms": 0,  # a record waits for the broker as long as it takes, it never expires in silence
    "linger.ms": 5,
    "compression.type": "lz4",
    "queue.buffering.max.messages": 200_000,
    "queue.buffering.max.kbytes": 262_144,
    "message.max.bytes": DEAD_LETTER_BYTES,
    "retry.backoff.ms": 50,
    "reconnect.backoff.max.ms": 2_000,
}


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast to go: ``speed`` × real time by event times; at most ``rate`` ticks and quotes a second, on average."""

    speed: float | None = None
    rate: float | None = None

    def start(self, first_us: int, now_s: float) -> Callable[[int, int], float]:
        """A function of (event time in µs, records sent before): the moment, by the clock of ``now_s``."""
        per_us = 1e-6 / self.speed if self.speed else 0.0
        per_record = 1.0 / self.rate if self.rate else 0.0
        return lambda time_us, sent: now_s + max((time_us - first_us) * per_us, sent * per_record)

    @property
    def limits(self) -> bool:
        return bool(self.speed or self.rate)


UNPACED = Pace()


class _Stopped(Exception):
    """Asked to stop while the queue was full."""


@dataclass
class Counts:
    """What was sent. ``late`` ticks and quotes lay behind the clock; ``time_us`` is the latest clock."""

    ticks: int = 0
    quotes: int = 0
    clocks: int = 0
    dead_letters: int = 0
    late: int = 0
    time_us: int | None = None


@dataclass(frozen=True)
class Progress:
    """What was sent, the position up to which all is acknowledged, and how many records are on their way."""

    counts: Counts
    acknowledged: Position
    outstanding: int


class _Batch:
    """The records sent between two reports; done when every one is acknowledged."""

    __slots__ = ("failed", "outstanding", "position")

    def __init__(self) -> None:
        self.outstanding = 0
        self.position: Position | None = None
        self.failed: KafkaError | None = None

    def delivered(self, error: KafkaError | None, _: object) -> None:
        self.outstanding -= 1
        if error is not None:
            self.failed = error


class Sender:
    """Sends messages to the topics of one namespace.

    ``encode`` frames a record for a topic; ``config`` adds to or overrides librdkafka's settings. ``topics`` are the
    source topics that the messages are for. The records of the first have the positions; one of another topic belongs
    to the next record of the first, and is sent again with it. Raises `TopicMissing` at once where the topics are not
    there.
    """

    def __init__(
        self,
        bootstrap: str,
        namespace: str,
        encode: Encode,
        config: Mapping[str, Any] | None = None,
        topics: Sequence[str] = (TICKS,),
    ) -> None:
        self._encode = encode
        self._counted = topics[0]
        self._physical = {topic: physical(namespace, topic) for topic in topics}
        self._dead_letters = physical(namespace, DEAD_LETTERS)
        servers = {"bootstrap.servers": bootstrap}
        self._admin = AdminClient(servers, logger=log)
        self._asked: Future[Any] | None = None
        self._sent = self._acknowledgements = self._answers = 0
        self._producer = Producer({**servers, **PRODUCER, "error_cb": _log_error, **(config or {})})
        found = {topic: _topic(servers, name) for topic, name in self._physical.items()}
        self._partitions = {topic: partitions for topic, (_, partitions) in found.items()}
        self.topic = self._physical[self._counted]
        self.topic_id, _ = found[self._counted]
        self._batches: deque[_Batch] = deque((_Batch(),))
        self._position = self._acknowledged = BEGINNING
        self._report: Callable[[Progress], None] | None = None
        self._next_report = 0.0
        self.counts = Counts()

    def run(
        self,
        messages: Iterator[Message],
        *,
        pace: Pace = UNPACED,
        start: Position = BEGINNING,
        report: Callable[[Progress], None] | None = None,
        stop: threading.Event | None = None,
    ) -> Counts:
        """Send ``messages`` until they end or ``stop`` is set, and wait until all of them are acknowledged.

        ``start`` is the position behind which the messages begin. ``report`` is called about once a second
        and at the end. While Kafka is away the run waits for it; only once ``stop`` is set it waits no longer
        than ten seconds, and what is not acknowledged then is sent again by the next run. Raises
        `DeliveryFailed` where Kafka refuses a record for good, `TopicDeleted` where the topic is deleted and made
        again: what was sent is gone then, and a run that goes on would leave it out.
        """
        stop = stop or threading.Event()
        self._report, self._next_report = report, time.monotonic() + _REPORT_EVERY_S
        self._position, self._acknowledged, self.counts = start, start, Counts(time_us=start.clock_us)
        due: Callable[[int, int], float] | None = None
        unserved = 0
        message = next(messages, None)
        with suppress(_Stopped):
            while message is not None and not stop.is_set():
                following = next(messages, None)
                if pace.limits and following is not None:  # the closing clock waits for nobody
                    due = due or pace.start(message.time_us, time.monotonic())
                    self._wait_until(due(message.time_us, self.counts.ticks + self.counts.quotes), stop)
                self._send(message, stop)
                unserved += 1
                if unserved == _SERVE_EVERY:
                    unserved = 0
                    self._serve(0.0)
                message = following
            if message is None:
                self._position = self._position._replace(finished=True)
        self._drain(stop)
        return self.counts

    def _send(self, message: Message, stop: threading.Event) -> None:
        record, counts, topic = message.record, self.counts, message.topic
        timestamp_ms = max(message.time_us // 1000, 1)  # librdkafka takes 0 for "now", Kafka refuses less
        if record is None:
            name, headers = self._physical[topic], [("source", message.source.encode())]
            for partition in range(self._partitions[topic]):
                self._produce(stop, name, partition=partition, timestamp=timestamp_ms, headers=headers)
            self._position = self._position._replace(clock_us=message.time_us)
            counts.clocks += 1
            counts.time_us = message.time_us
            return
        if isinstance(record, DeadLetter):
            value = self._encode(DEAD_LETTERS, record)
            self._produce(stop, self._dead_letters, key=message.key, value=value, timestamp=timestamp_ms)
            self._position = self._position._replace(sequence=record.offset)
            counts.dead_letters += 1
            return
        value = self._encode(topic, record)
        self._produce(stop, self._physical[topic], key=message.key, value=value, timestamp=timestamp_ms)
        clock_us = self._position.clock_us
        if topic == self._counted:
            self._position = Position(record.sequence or 0, clock_us)
        if isinstance(record, Tick):
            counts.ticks += 1
        else:
            counts.quotes += 1
        counts.late += clock_us is not None and message.time_us < clock_us

    def _produce(self, stop: threading.Event, topic: str, **record: Any) -> None:
        batch = self._batches[-1]
        while True:
            try:
                self._producer.produce(topic, on_delivery=batch.delivered, **record)
            except BufferError:  # the queue is full: its head goes first, so the order stays
                if stop.is_set():
                    raise _Stopped from None
                self._serve(0.1)
                batch = self._batches[-1]
            except KafkaException as error:
                raise DeliveryFailed(f"{topic}: {error.args[0].str()}") from error
            else:
                batch.outstanding += 1
                self._sent += 1
                return

    def _wait_until(self, moment_s: float, stop: threading.Event) -> None:
        """Serve the producer until then, or a moment before: short waits are saved up into one."""
        while (left_s := moment_s - time.monotonic()) > _EARLY_S and not stop.is_set():
            self._serve(min(left_s, 0.1))

    def _serve(self, wait_s: float) -> None:
        """Take acknowledgements in for ``wait_s`` at most, and report where that is due."""
        self._producer.poll(wait_s)
        if time.monotonic() >= self._next_report:
            self._next_report = time.monotonic() + _REPORT_EVERY_S
            self._cut()
            self._tell()
            self._look()

    def _look(self) -> None:
        """Ask for the topic's id, and see what the last question was answered, without waiting for either."""
        if self._asked is not None and self._asked.done():
            with suppress(KafkaException):  # away, or gone: records wait for it as well
                now = _plain(self._asked.result().topic_id)
                self._see_that_it_moves()
                if now != self.topic_id:
                    raise TopicDeleted(
                        f"{self.topic} was deleted and made again while it was sent to: what was sent is gone. Start "
                        f"again: all is sent from the beginning"
                    )
            self._asked = None
        if self._asked is None:
            topics = TopicCollection([self.topic])
            self._asked = self._admin.describe_topics(topics, request_timeout=START_TIMEOUT_S)[self.topic]

    def _see_that_it_moves(self) -> None:
        """The broker has answered: notice where it takes nothing all the same.

        A librdkafka that was told of a partition without a leader, as a broker says that shuts down, may never send to
        it again (its issue 5430, open at 2.16). A new process does.
        """
        waiting = self._outstanding()
        acknowledgements = self._sent - waiting
        self._answers = self._answers + 1 if waiting and acknowledgements == self._acknowledgements else 0
        self._acknowledgements = acknowledgements
        if self._answers > _STUCK_AFTER:
            raise DeliveryFailed(
                f"{self.topic}: Kafka answers, but has taken nothing for {_STUCK_AFTER} s. Start again: it goes on "
                f"behind what was acknowledged"
            )

    def _outstanding(self) -> int:
        """Records on their way."""
        return sum(batch.outstanding for batch in self._batches)

    def _cut(self) -> None:
        """Begin a new batch: the one before ends at the present position."""
        self._batches[-1].position = self._position
        self._batches.append(_Batch())

    def _tell(self) -> None:
        while len(self._batches) > 1 and not self._batches[0].outstanding:
            batch = self._batches.popleft()
            if batch.failed is not None:
                raise DeliveryFailed(
                    f"{self.topic}: {batch.failed.str()}; nothing after {self._acknowledged} counts"
                )
            assert batch.position is not None
            self._acknowledged = batch.position
        if self._report is not None:
            self._report(Progress(replace(self.counts), self._acknowledged, self._outstanding()))

    def _drain(self, stop: threading.Event) -> None:
        self._cut()
        stopped_at: float | None = None
        while self._outstanding():
            self._serve(0.05)
            if stop.is_set():
                stopped_at = stopped_at or time.monotonic()
                if time.monotonic() - stopped_at > _STOP_WITHIN_S:
                    log.warning("stopped with records not acknowledged: the next run sends them again")
                    self._producer.purge()
                    break
        self._tell()


def _log_error(error: KafkaError) -> None:
    log.warning("kafka: %s", error.str())


def _topic(servers: Mapping[str, Any], name: str) -> tuple[str, int]:
    """The id of a topic, fit for a file's name, and its partitions; waits a little for a new topic."""
    admin = AdminClient(dict(servers))  # held until the answer is there: it ends with its last reference
    deadline_s = time.monotonic() + _KNOWN_WITHIN_S
    while True:
        try:
            found = admin.describe_topics(TopicCollection([name]), request_timeout=START_TIMEOUT_S)[
                name
            ].result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise KafkaUnreachable(f"{servers['bootstrap.servers']}: {error.args[0].str()}") from error
            if time.monotonic() >= deadline_s:
                raise TopicMissing(f"there is no topic {name}: run `headrace topics create` first") from error
            time.sleep(0.1)
        else:
            return _plain(found.topic_id), len(found.partitions)


def _plain(topic_id: object) -> str:
    """A topic's id, which is base64, fit for a file's name."""
    return str(topic_id).replace("/", "_").replace("+", "-")
