"""The first records of a partition, sent while it is becoming its broker's.

A broker knows of a topic a moment before it has made the partitions. It is stopped within that moment until several
requests wait for it, so that it may refuse one and take the next.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from connectors.sender import PRODUCER
from schemas.topics import physical
from streams.runtime.kafka import KafkaPort, output_settings

ROUNDS, PARTITIONS = 4, 4
APART_S = 0.009
"""Longer than a producer waits for more: each round is a request of its own."""
TIMEOUT_S = 30.0


class Arrived(NamedTuple):
    """In how many trials the broker refused a request, and which partitions have not all that was sent to them."""

    refused: int
    wrong: list[str]


class _Refusals(logging.Handler):
    """Counts the requests that a broker refused: librdkafka tells of them in its log only."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.logger = logging.getLogger(f"{__name__}.{uuid.uuid4().hex}")
        self.logger.propagate = False
        self.logger.setLevel(logging.DEBUG)
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.count += "Not leader for partition" in record.getMessage()


def sent_while_partitions_are_made(kafka: str, broker: int, trials: int) -> Arrived:
    """Each trial, the producers of connectors and agents, and ours for a few records, write into a topic just made.

    ``broker`` is the process to stop.
    """
    namespace, rng, refusals = f"first-{uuid.uuid4().hex[:6]}", random.Random(1), _Refusals()
    telling: dict[str, Any] = {"debug": "msg", "log_level": 7}
    connector = ck.Producer({"bootstrap.servers": kafka, **PRODUCER, **telling}, logger=refusals.logger)
    few = ck.Producer({**output_settings(kafka), **telling}, logger=refusals.logger)
    port = KafkaPort(kafka, namespace)
    senders: dict[str, tuple[Callable[[str], ck.Producer], Callable[[str, int, bytes], object]]] = {
        "connector": (
            lambda _: connector,
            lambda name, at, value: _produce(connector, namespace, name, at, value),
        ),
        "few": (lambda _: few, lambda name, at, value: _produce(few, namespace, name, at, value)),
        "agent": (
            lambda name: port._output(name)[1],
            lambda name, at, value: port.send(name, at, b"K", value, 1, lambda _: None),
        ),
    }
    admin = AdminClient({"bootstrap.servers": kafka})
    _make(admin, [physical(namespace, who) for who in senders], 1)
    for who, (producer_of, send) in senders.items():
        send(who, 0, b"known to the broker")
        assert producer_of(who).flush(TIMEOUT_S) == 0

    refused, wrong = 0, []
    for trial in range(trials):
        topics = {who: physical(namespace, f"{who}-{trial}") for who in senders}
        others = [physical(namespace, f"other-{trial}-{number}") for number in range(rng.randint(0, 4))]
        before = refusals.count
        _make(admin, [*others, *topics.values()], PARTITIONS)
        for who, (producer_of, _) in senders.items():
            _until_known(producer_of(f"{who}-{trial}"), topics[who])
        os.kill(broker, signal.SIGSTOP)
        threading.Timer(ROUNDS * APART_S, os.kill, (broker, signal.SIGCONT)).start()
        threads = [
            threading.Thread(target=_rounds, args=(send, f"{who}-{trial}"))
            for who, (_, send) in senders.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for who, (producer_of, _) in senders.items():
            assert producer_of(f"{who}-{trial}").flush(TIMEOUT_S) == 0, who
        wrong += _wrong(admin, topics)
        refused += refusals.count > before
    return Arrived(refused, wrong)


def _produce(producer: ck.Producer, namespace: str, name: str, partition: int, value: bytes) -> None:
    producer.produce(physical(namespace, name), value, partition=partition)


def _make(admin: AdminClient, names: list[str], partitions: int) -> None:
    new = [NewTopic(name, partitions, replication_factor=1) for name in names]
    for future in admin.create_topics(new).values():
        future.result(TIMEOUT_S)


def _until_known(producer: ck.Producer, name: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not producer.list_topics(name, timeout=TIMEOUT_S).topics[name].partitions:
        assert time.monotonic() < deadline


def _rounds(send: Callable[[str, int, bytes], object], name: str) -> None:
    for number in range(ROUNDS):
        for partition in range(PARTITIONS):
            send(name, partition, b"%d" % number)
        time.sleep(APART_S)


def _wrong(admin: AdminClient, topics: dict[str, str]) -> list[str]:
    """Partitions that do not hold as many records as there were rounds."""
    ends = {
        ck.TopicPartition(name, partition): OffsetSpec.latest()
        for name in topics.values()
        for partition in range(PARTITIONS)
    }
    held = {place: answer.result().offset for place, answer in admin.list_offsets(ends).items()}
    return [f"{place.topic}[{place.partition}]: {count}" for place, count in held.items() if count != ROUNDS]
