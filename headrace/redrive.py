"""Puts repaired records where they belong, each once.

A re-driven tick or quote has a name of its own: the session ``redrive`` of its source, and the sequence behind the
highest that lies there. Its old name will not do: the agent has taken note of it, or of a later one, and would drop the
tick as a repeat. A session for each letter would not do either: an agent keeps the last eight of a symbol, and many
repairs would push out those of the feed, whose repeats then count again.

The header ``dead-letter`` says whose repair a record is. Before one is sent, its topic is read to the end, and what
bears the letter's id is not sent again. Between reading and writing another process may come first, or what a killed
one left on its way. Then both have chosen the same sequence, of which the agent takes the first and drops the rest:
a name goes to who has read everything before it. So the topic is read again once the record is there, and where
another letter's was first, the next sequence is tried. (A command keeps its id, by which its agent drops a repeat.)
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

import confluent_kafka as ck
from msgspec.structs import replace

from headrace.dead_letters import DeadLetterError
from headrace.fates import HEADER, SESSION, Log, Topic
from headrace.repair import Repair
from schemas.codec import Codec
from schemas.records import Command, Quote, Tick
from schemas.topics import physical
from streams.errors import HeadraceError
from streams.runtime.kafka import output_settings
from streams.runtime.runs import record_time_ms

TIMEOUT_S: Final = 30.0


class NotSent(HeadraceError):
    """Raised where Kafka did not take a record, or does not say whether it did."""


class Done(StrEnum):
    """What has become of a letter."""

    SENT = "sent"
    READY = "would be sent"
    ALREADY = "was there already"
    REFUSED = "refused"


class Outcome(NamedTuple):
    """What has become of a repair: the record with its name, where it lies or belongs, and what it comes to."""

    repair: Repair
    record: Tick | Quote | Command
    done: Done
    place: str
    told: str


Delivered = Callable[[int, str], None]
"""Told the offset of a record that has arrived, or the error why it never will."""


class Outbox(Protocol):
    """A way into the input topics."""

    def send(
        self,
        topic: str,
        partition: int,
        key: str,
        value: bytes,
        timestamp_ms: int,
        letter: str,
        delivered: Delivered,
    ) -> None:
        """Queue a record, with the id of its letter in the header."""
        ...

    def flush(self) -> None:
        """Wait until all are there. Raises `NotSent` where that is not known."""
        ...


def redrive(log: Log, outbox: Outbox | None, codec: Codec, repairs: Sequence[Repair]) -> Iterator[Outcome]:
    """Send, in order of event time, what was not sent before and would not be refused again.

    Outcomes are told as they are known. Without an ``outbox`` they are what would be.

    Raises:
        DeadLetterError: a letter is there twice.
        NotSent: Kafka did not take a record; the outcomes told so far stand.
        Trimmed: an input topic does not begin at its beginning any more.
    """
    ids = [repair.letter.id for repair in repairs]
    for number, each in enumerate(ids):
        if each in ids[:number]:
            raise DeadLetterError(f"{each} is to be re-driven twice")
    keys = {repair.key.encode() for repair in repairs}
    topics = {
        name: Topic(log, codec, name, keys) for name in dict.fromkeys(repair.topic for repair in repairs)
    }
    waiting = sorted(repairs, key=lambda repair: repair.time_us)
    while waiting:
        waiting = yield from _round(topics, codec, waiting, outbox)


def _round(
    topics: dict[str, Topic], codec: Codec, waiting: Sequence[Repair], outbox: Outbox | None
) -> Generator[Outcome, None, list[Repair]]:
    """Of each key and source the first record: the name of the next depends on it. Returns what is left."""
    later: list[Repair] = []
    sent: list[_Sent] = []
    busy: set[tuple[str, ...]] = set()
    for repair in waiting:
        topic, record = topics[repair.topic], repair.record
        stream: tuple[str, ...] = repair.topic, repair.key
        if not isinstance(record, Command):
            stream = *stream, record.source
            record = replace(record, session=SESSION, sequence=topic.next_sequence(repair.key, record.source))
        if stream in busy:
            later.append(repair)
            continue
        there = topic.taken(repair.letter.id)
        if there is not None:
            fate = topic.fate(*there)
            told = f"its repair was refused too, and is a letter of its own: {fate.told}"
            place = _place(repair, *there)
            yield Outcome(repair, record, Done.ALREADY, place, told if fate.refused else "nothing is sent")
            continue
        partition, timestamp_ms = topic.partition_of(repair.key), record_time_ms(repair.time_us)
        fate = topic.foresee(repair.key, record, timestamp_ms)
        if fate.refused:
            yield Outcome(repair, record, Done.REFUSED, _place(repair, partition), fate.told)
        elif outbox is None:
            topic.suppose(repair.key, record, timestamp_ms)
            yield Outcome(repair, record, Done.READY, _place(repair, partition), fate.told)
        else:
            busy.add(stream)
            sent.append(_Sent(repair, record, partition))
            value = codec.encode(repair.topic, record)
            arrived = sent[-1].delivered
            outbox.send(repair.topic, partition, repair.key, value, timestamp_ms, repair.letter.id, arrived)
    if outbox is not None and sent:
        outbox.flush()
        for topic in topics.values():
            topic.advance()
        for each in sent:
            outcome = each.outcome(topics[each.repair.topic])
            if outcome is None:
                later.append(each.repair)
            else:
                yield outcome
    return later


class _Sent:
    """A record on its way."""

    def __init__(self, repair: Repair, record: Tick | Quote | Command, partition: int) -> None:
        self.repair = repair
        self._record, self._partition = record, partition
        self._offset = -1
        self._error = ""

    def delivered(self, offset: int, error: str) -> None:
        """See `Delivered`."""
        self._offset, self._error = offset, error

    def outcome(self, topic: Topic) -> Outcome | None:
        """What became of it, once its topic was read; None where its name went to another letter's."""
        if self._error:
            raise NotSent(f"{self.repair.letter.id}: Kafka does not take it: {self._error}")
        there = topic.taken(self.repair.letter.id)
        if there is None:
            return None
        place = _place(self.repair, *there)
        if there != (self._partition, self._offset):
            return Outcome(self.repair, self._record, Done.ALREADY, place, "another process was first")
        fate = topic.fate(*there)
        return Outcome(
            self.repair, self._record, Done.REFUSED if fate.refused else Done.SENT, place, fate.told
        )


class KafkaOutbox:
    """An `Outbox` of one namespace."""

    def __init__(self, bootstrap: str, namespace: str) -> None:
        self._producer = ck.Producer(output_settings(bootstrap))
        self._namespace = namespace

    def send(
        self,
        topic: str,
        partition: int,
        key: str,
        value: bytes,
        timestamp_ms: int,
        letter: str,
        delivered: Delivered,
    ) -> None:
        """See `Outbox`."""

        def told(error: ck.KafkaError | None, message: ck.Message) -> None:
            delivered(*((message.offset(), "") if error is None else (-1, error.str())))

        self._producer.produce(
            physical(self._namespace, topic),
            value,
            key,
            partition=partition,
            timestamp=timestamp_ms,
            headers=[(HEADER, letter.encode())],
            on_delivery=told,
        )

    def flush(self) -> None:
        """See `Outbox`."""
        if self._producer.flush(TIMEOUT_S):
            raise NotSent("Kafka does not answer. Run it again: what has arrived is not sent a second time")


def _place(repair: Repair, partition: int, offset: int | None = None) -> str:
    place = f"{repair.topic}[{partition}]"
    return place if offset is None else f"{place}@{offset}"
