"""How a worker's outputs leave."""

from __future__ import annotations

import time

from confluent_kafka.admin import AdminClient, NewTopic

from headrace import compare
from headrace.stack import Endpoints
from schemas.topics import physical
from streams.runtime.kafka import KafkaPort

TOPICS = ("market.bars", "universe.bars")
LONG_S = 0.2
"""A thousand times as long as a producer waits for more."""


def test_what_is_sent_together_leaves_at_the_end_in_order(stack: Endpoints, namespace: str) -> None:
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    new = [NewTopic(physical(namespace, topic), 1, replication_factor=1) for topic in TOPICS]
    for future in admin.create_topics(new).values():
        future.result(30)

    def values() -> list[list[bytes | None]]:
        return [[value for _, value, _ in compare.records(stack.kafka, namespace, topic)] for topic in TOPICS]

    port, told = KafkaPort(stack.kafka, namespace), list[Exception | None]()
    with port.together():
        for number in range(6):
            port.send(TOPICS[number % 2], 0, b"K", b"%d" % number, number, told.append)
        time.sleep(LONG_S)
        assert not port.poll()
        assert (values(), port.sent) == ([[], []], 6)
    while not port.poll():
        time.sleep(0.01)
    assert told == [None] * 6
    assert values() == [[b"0", b"2", b"4"], [b"1", b"3", b"5"]]
    port.send(TOPICS[0], 0, b"K", b"alone", 6, told.append)
    while not port.poll():
        time.sleep(0.01)
    assert values()[0] == [b"0", b"2", b"4", b"alone"]
