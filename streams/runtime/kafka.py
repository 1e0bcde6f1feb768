"""Kafka as a `Port`: librdkafka producers for outputs and transactions, and a reader of changelogs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import confluent_kafka as ck

from schemas.states import POSITION_KEY
from schemas.topics import LARGEST_BYTES, physical
from streams.errors import CopyUnfit, DeliveryFailed, Fenced
from streams.runtime.changelog import read_behind
from streams.runtime.ownership import OnDelivery, Outcome

if TYPE_CHECKING:
    from streams.runtime.copies import Copies, Lease

log = logging.getLogger("headrace.kafka")

_Delivered = Callable[[ck.KafkaError | None, ck.Message], None]

FENCE_TIMEOUT_S = 30.0
COMMIT_TIMEOUT_S = 25.0

_FENCED = {
    ck.KafkaError._FENCED,
    ck.KafkaError.PRODUCER_FENCED,
    ck.KafkaError.INVALID_PRODUCER_EPOCH,
    ck.KafkaError.INVALID_PRODUCER_ID_MAPPING,
}

ONE_IN_FLIGHT = {"max.in.flight.requests.per.connection": 1}
"""A partition takes any record of a producer as the first while its broker knows of none of that producer (before
Kafka 4.5, KAFKA-15591): where it becomes its broker's between two requests that are on their way, the one is refused
and the one behind it written. librdkafka takes that for a receipt of both: what was refused is lost, and reported as
delivered.

That is not for new partitions alone. A broker forgets a producer a day after its last record, by that record's
timestamp (``producer.id.expiration.ms``): where those are event times, history is forgotten at every clean restart.
"""


def output_settings(bootstrap: str, linger_ms: float = 0.2) -> dict[str, Any]:
    """librdkafka settings of a producer that never loses, reorders or misplaces a record.

    ``message.timeout.ms=0``: with a limit, a record may expire in the queue during a pause, unseen. Without
    ``enable.gapless.guarantee``, what follows a record that the broker refuses for good would be written all the same,
    and the record itself, computed again by the next owner, behind it. `ONE_IN_FLIGHT`: else records may be lost.

    ``linger_ms``: a burst of outputs is queued within 0.2 ms, so they leave together; with 0 its first leaves alone.
    """
    return {
        "bootstrap.servers": bootstrap,
        **ONE_IN_FLIGHT,
        "enable.idempotence": True,
        "enable.gapless.guarantee": True,
        "log_level": 3,  # it would warn at each start that this is experimental
        "acks": "all",
        "linger.ms": linger_ms,
        "partitioner": "murmur2_random",
        "compression.type": "lz4",
        "message.timeout.ms": 0,
        "message.max.bytes": LARGEST_BYTES,
        "queue.buffering.max.messages": 1_000_000,
        "socket.nagle.disable": True,
    }


def transactional_id(namespace: str, agent: str, partition: int) -> str:
    """What the owners of a partition have in common, so that the broker can shut out all but the last."""
    return f"{namespace or 'live'}.headrace-{agent}-{partition}"


def outputs_client_id(agent: str) -> str:
    """What the producers of an agent's outputs call themselves, for a broker's log, metrics and quotas."""
    return f"headrace-{agent}-outputs"


class Restored(NamedTuple):
    """Of what a partition's state was restored: keys in all, keys of the local copy, records of the changelog."""

    keys: int
    copied: int
    records: int


class KafkaPort:
    """One worker's way to the broker. ``send`` and ``poll`` belong to one thread; the rest may block in others."""

    def __init__(
        self,
        bootstrap: str,
        namespace: str,
        *,
        client_id: str = "headrace-outputs",
        buffer_kb: int = 65_536,
        copies: Copies | None = None,
    ) -> None:
        """``client_id``: of the outputs, in the broker's log, metrics and quotas; transactions are not counted to it.

        ``buffer_kb``: of the outputs to one topic that Kafka has not acknowledged.
        ``copies``: of the changelog of the one agent that this is the port of.
        """
        self._bootstrap = bootstrap
        self._namespace = namespace
        self._buffer_kb = buffer_kb
        self._client_id = client_id
        self._outputs: dict[str, tuple[str, ck.Producer]] = {}
        self._gathered: list[tuple[str, int, bytes, bytes, int, _Delivered]] | None = None
        self._copies = copies
        self._leases: dict[tuple[str, int], Lease] = {}
        self.restored: dict[tuple[str, int], Restored] = {}
        """How each partition's state was restored the last time."""
        self._fences: dict[tuple[str, int], ck.Producer] = {}
        self.sent = 0
        """Outputs since the start."""
        self._done: OnDelivery | None = None
        self._delivered: _Delivered | None = None

    # ---- outputs

    @contextmanager
    def together(self) -> Iterator[None]:
        """Outputs that are sent within leave at its end, as one burst; none where it is left with an error.

        A snapshot waits for the bars of all partitions: sent one after the other, the first would leave alone, and the
        others wait until it is acknowledged, to be fetched and taken up one by one.
        """
        gathered = self._gathered = []
        try:
            yield
        finally:
            self._gathered = None
        for output in gathered:
            self._queue_output(*output)

    def send(
        self, topic: str, partition: int, key: bytes, value: bytes, timestamp_ms: int, done: OnDelivery
    ) -> None:
        """Queue an output. When librdkafka's queue is full, waits for it: that is the back-pressure."""
        if done is not self._done or self._delivered is None:  # the outputs of a run share theirs
            self._done, self._delivered = done, _report(done)
        self.sent += 1
        output = topic, partition, key, value, timestamp_ms, self._delivered
        if self._gathered is None:
            self._queue_output(*output)
        else:
            self._gathered.append(output)

    def _queue_output(
        self, topic: str, partition: int, key: bytes, value: bytes, timestamp_ms: int, delivered: _Delivered
    ) -> None:
        name, producer = self._output(topic)
        _queue(producer, name, value, key, partition=partition, timestamp=timestamp_ms, on_delivery=delivered)

    def _output(self, topic: str) -> tuple[str, ck.Producer]:
        """A topic's name on the broker and its own producer.

        librdkafka makes a request of each partition's records, and there is `ONE_IN_FLIGHT`: through one producer for
        all, what goes to one topic would wait for what goes to the others.
        """
        found = self._outputs.get(topic)
        if found is None:
            settings = output_settings(self._bootstrap)
            more = {"client.id": self._client_id, "queue.buffering.max.kbytes": self._buffer_kb}
            found = self._outputs[topic] = physical(self._namespace, topic), ck.Producer({**settings, **more})
        return found

    def poll(self) -> bool:
        """Call the ``done`` of outputs whose fate is known, here and now. Whether no output is on its way.

        Raises `streams.errors.DeliveryFailed` where one was refused for good: the producer sends nothing more.
        """
        try:
            for _, producer in self._outputs.values():
                producer.poll(0)
        except ck.KafkaException as error:
            raise DeliveryFailed(error.args[0].str()) from error
        return not self.is_pending

    @property
    def is_pending(self) -> bool:
        """Whether an output is on its way."""
        return bool(self._gathered) or any(len(producer) for _, producer in self._outputs.values())

    # ---- state and position

    def fence(self, agent: str, partition: int) -> None:
        """``init_transactions`` aborts what the last owner left open and shuts it out for ever."""
        producer = ck.Producer(
            {
                "bootstrap.servers": self._bootstrap,
                "transactional.id": transactional_id(self._namespace, agent, partition),
                **ONE_IN_FLIGHT,
                "transaction.timeout.ms": 10_000,
                "delivery.timeout.ms": 8_000,
                "linger.ms": 5,
                "retry.backoff.ms": 20,
                "compression.type": "lz4",
                "message.max.bytes": LARGEST_BYTES,
                "queue.buffering.max.messages": 1_000_000,
                "queue.buffering.max.kbytes": self._buffer_kb,
            }
        )
        producer.init_transactions(FENCE_TIMEOUT_S)
        self._fences[agent, partition] = producer

    def restore(self, agent: str, partition: int) -> Mapping[bytes, bytes]:
        """What was committed: the local copy, where there is one that fits, and the changelog behind it."""
        place = ck.TopicPartition(physical(self._namespace, f"{agent}.changelog"), partition)
        group = f"{self._namespace or 'live'}.headrace-{agent}-restore"
        lease = None if self._copies is None else self._copies.lease(partition, is_owner=True)
        held = None if lease is None else lease.held()
        try:
            changes, records = read_behind(self._bootstrap, place, group, held)
        except CopyUnfit as error:
            log.warning("the local copy of %s[%s] is thrown away: %s", place.topic, partition, error)
            held = None
            changes, records = read_behind(self._bootstrap, place, group, None)
        items = changes.onto(held)
        if lease is not None:
            lease.keep(changes)
            self._leases[agent, partition] = lease
        self.restored[agent, partition] = Restored(
            len(items), 0 if held is None else len(held.items), records
        )
        return items

    def commit(self, agent: str, partition: int, changes: Mapping[bytes, bytes]) -> Outcome:
        """One transaction with every change; asks again while its fate is unknown."""
        producer = self._fences[agent, partition]
        topic = physical(self._namespace, f"{agent}.changelog")
        placed: list[int | None] = []

        def report(_: ck.KafkaError | None, message: ck.Message) -> None:
            placed.append(message.offset())

        try:
            producer.begin_transaction()
            for key, value in changes.items():
                if key != POSITION_KEY:
                    _queue(producer, topic, value, key, partition=partition)
            if POSITION_KEY in changes:  # last: it ends the transaction for whoever follows the changelog
                _queue(
                    producer,
                    topic,
                    changes[POSITION_KEY],
                    POSITION_KEY,
                    partition=partition,
                    on_delivery=report,
                )
            deadline = time.monotonic() + COMMIT_TIMEOUT_S
            while True:
                try:
                    producer.commit_transaction(5)
                    break
                except ck.KafkaException as error:
                    if not error.args[0].retriable() or time.monotonic() > deadline:
                        raise
        except ck.KafkaException as error:
            cause = error.args[0]
            if cause.txn_requires_abort():
                producer.abort_transaction(8)
                return Outcome.ABORTED
            kind = Fenced if cause.code() in _FENCED else DeliveryFailed
            raise kind(f"commit of {agent}[{partition}]: {cause.name()}: {cause.str()}") from error
        lease = self._leases.get((agent, partition))
        if lease is not None:
            offset = placed[0] if placed else None
            lease.commit(changes, offset if offset is not None and offset >= 0 else None)
        return Outcome.COMMITTED

    def release(self, agent: str, partition: int) -> None:
        """Forget a partition that was given up; its next owner fences it."""
        self._fences.pop((agent, partition), None)
        lease = self._leases.pop((agent, partition), None)
        if lease is not None:
            lease.end()


def _report(done: OnDelivery) -> _Delivered:
    """librdkafka's report of a delivery as the protocol wants it."""

    def delivered(error: ck.KafkaError | None, message: ck.Message) -> None:
        if error is None:
            done(None)
        else:
            done(DeliveryFailed(f"{message.topic()}[{message.partition()}]: {error.str()}"))

    return delivered


def _queue(producer: ck.Producer, topic: str, value: bytes, key: bytes, **more: Any) -> None:
    """Queue a record; where librdkafka's queue is full, wait until there is room."""
    while True:
        try:
            producer.produce(topic, value, key, **more)
            return
        except BufferError:
            producer.poll(0.05)
