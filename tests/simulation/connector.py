"""A connector: sends a feed's messages, and after a stop goes on from before the last that it knows to be in Kafka."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from connectors.messages import Message
from schemas.partitioner import partition_of
from schemas.topics import TOPICS
from streams.runtime.runs import record_time_ms
from tests.simulation.codec import CODEC

if TYPE_CHECKING:
    from tests.simulation.topology_world import TopologyWorld


class Connector:
    """Sends ``messages`` in order; a clock goes to every partition."""

    def __init__(self, world: TopologyWorld, messages: Sequence[Message]) -> None:
        self.world, self.messages = world, messages
        self.at = 0
        self._start()

    def _start(self) -> None:
        self.port = self.world.parts.port(self.world.broker)
        self._open = [0] * len(self.messages)
        """Of each message, how many records are not acknowledged."""
        self._from = self.at

    @property
    def is_done(self) -> bool:
        return self.at == len(self.messages) and self.port.is_idle

    def act(self) -> str:
        """Send some, or let some of it arrive."""
        rng = self.world.rng
        self.send(rng.randint(1, 10))
        if rng.random() < 0.6:
            self.port.deliver()
        return f"sends up to {self.at}"

    def send(self, count: int) -> None:
        """Send the next messages."""
        for number in range(self.at, min(self.at + count, len(self.messages))):
            message = self.messages[number]
            self.world.change_before(message.time_us)
            timestamp_ms = record_time_ms(message.time_us)
            topic, done = message.topic, functools.partial(self._done, number)
            partitions = TOPICS[topic].partitions
            if message.record is None:
                headers = (("source", message.source.encode()),)
                self._open[number] = partitions
                for partition in range(partitions):
                    self.port.send(topic, partition, None, None, timestamp_ms, done, headers)
            else:
                key, value = str(message.key).encode(), CODEC.encode(topic, message.record)
                self._open[number] = 1
                self.port.send(topic, partition_of(key, partitions), key, value, timestamp_ms, done)
            self.at = number + 1

    def _done(self, number: int, error: Exception | None) -> None:
        self._open[number] -= 1

    def resume_at(self) -> int:
        """The first message that is not acknowledged, or one before it: a feed's own place is coarse."""
        sent = range(self._from, self.at)
        first = next((number for number in sent if self._open[number]), self.at)
        return max(0, first - self.world.rng.choice([0, 2, 6, 15]))

    def kill(self) -> str:
        """It ends, and is started again."""
        self.port.leave_tail()
        self.world.tails.append(self.port)
        self.at = self.resume_at()
        self._start()
        self.world.tally["resumed feeds"] += 1
        return f"is killed, goes on from {self.at}"
