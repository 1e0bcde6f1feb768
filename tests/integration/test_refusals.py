"""A record that the broker refuses for good: nothing that was sent after it may be written before it."""

from __future__ import annotations

import time
from contextlib import suppress

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from headrace import compare
from headrace.stack import Endpoints
from schemas.topics import physical
from streams.errors import DeliveryFailed
from streams.runtime.kafka import KafkaPort

TOPIC = "market.bars"
SETTLED_S = 1.5
"""By when a broker has taken over a topic's new configuration, and answered what was sent to it."""


class Bars:
    """A topic of results whose records can be refused for a while."""

    def __init__(self, stack: Endpoints, namespace: str) -> None:
        self.kafka, self.namespace = stack.kafka, namespace
        self.name = physical(namespace, TOPIC)
        self.admin = AdminClient({"bootstrap.servers": stack.kafka})
        self.admin.create_topics([NewTopic(self.name, 1, replication_factor=1)])[self.name].result(30)

    def refuses(self, yes: bool) -> None:
        """From now on, or from now on no more."""
        operation = AlterConfigOpType.SET if yes else AlterConfigOpType.DELETE
        entry = ConfigEntry("max.message.bytes", "1", incremental_operation=operation)
        resource = ConfigResource(ResourceType.TOPIC, self.name, incremental_configs=[entry])
        for future in self.admin.incremental_alter_configs([resource]).values():
            future.result(30)
        time.sleep(SETTLED_S)

    def values(self) -> list[bytes | None]:
        return [value for _, value, _ in compare.records(self.kafka, self.namespace, TOPIC)]


@pytest.fixture
def bars(stack: Endpoints, namespace: str) -> Bars:
    return Bars(stack, namespace)


def test_nothing_overtakes_a_refused_record(bars: Bars) -> None:
    port = KafkaPort(bars.kafka, bars.namespace)
    errors: list[Exception | None] = []
    port.send(TOPIC, 0, b"A", b"first", 1, errors.append)
    while port.is_pending:
        port.poll()
    assert errors == [None]

    bars.refuses(True)
    port.send(TOPIC, 0, b"A", b"second", 2, errors.append)
    time.sleep(SETTLED_S)  # refused, and nobody has heard of it yet
    bars.refuses(False)
    with suppress(ck.KafkaException):  # the producer may know by then that it is at its end
        port.send(TOPIC, 0, b"A", b"third", 3, errors.append)
    time.sleep(SETTLED_S)
    with pytest.raises(DeliveryFailed, match="Message size too large"):
        port.poll()
    assert bars.values() == [b"first"]
    port.poll()
    assert len(errors) > 1
    assert all(error is not None for error in errors[1:])
