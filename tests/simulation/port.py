"""A simulated Kafka as the runtime's `Port`: records arrive late, acknowledgements later, owners are fenced."""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import NamedTuple

from streams.errors import DeliveryFailed, Fenced
from streams.runtime.ownership import OnDelivery, Outcome

Place = tuple[str, int]
"""A topic or an agent, and a partition."""


class Entry(NamedTuple):
    """One record of an output's log."""

    key: bytes
    value: bytes
    timestamp_ms: int


class Broker:
    """What outlives every owner: the outputs' logs, the changelogs, and who opened a partition last."""

    def __init__(self, rng: random.Random, *, abort_rate: float = 0.0) -> None:
        self.rng = rng
        self.abort_rate = abort_rate
        self.logs: dict[Place, list[Entry]] = defaultdict(list)
        self.changelogs: dict[Place, dict[bytes, bytes]] = defaultdict(dict)
        self.openings: dict[Place, int] = defaultdict(int)


class SimulatedPort:
    """One process's way to the broker; what happens meanwhile is drawn from the broker's generator."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._opened: dict[Place, int] = {}
        self._sent: dict[Place, deque[tuple[Entry, OnDelivery]]] = defaultdict(deque)
        self._arrived: deque[OnDelivery] = deque()

    def fence(self, agent: str, partition: int) -> None:
        """Whoever opened the partition before can commit no more."""
        place = (agent, partition)
        self._broker.openings[place] += 1
        self._opened[place] = self._broker.openings[place]

    def restore(self, agent: str, partition: int) -> Mapping[bytes, bytes]:
        """The committed changelog."""
        assert (agent, partition) in self._opened, "restored before it was fenced"
        return dict(self._broker.changelogs[agent, partition])

    def send(
        self, topic: str, partition: int, key: bytes, value: bytes, timestamp_ms: int, done: OnDelivery
    ) -> None:
        """Queue an output; `deliver` brings it into the log."""
        self._sent[topic, partition].append((Entry(key, value, timestamp_ms), done))

    def commit(self, agent: str, partition: int, changes: Mapping[bytes, bytes]) -> Outcome:
        """All changes or none; at times none, for no reason that the owner could know."""
        place, broker = (agent, partition), self._broker
        if self._opened[place] != broker.openings[place]:
            raise Fenced(f"{agent}[{partition}] was opened again")
        if broker.rng.random() < broker.abort_rate:
            return Outcome.ABORTED
        broker.changelogs[place].update(changes)
        return Outcome.COMMITTED

    # ---- what happens to a process

    def deliver(self, *, everything: bool = False) -> None:
        """Bring some of what was sent into the logs, in order within a partition; acknowledge some of that."""
        rng = self._broker.rng
        everything = everything or rng.random() < 0.4
        for place, queue in self._sent.items():
            for _ in range(len(queue) if everything else rng.randint(0, len(queue))):
                entry, done = queue.popleft()
                self._broker.logs[place].append(entry)
                self._arrived.append(done)
        arrived = len(self._arrived)
        for _ in range(arrived if everything else rng.randint(0, arrived)):
            self._arrived.popleft()(None)

    def refuse(self) -> bool:
        """The broker does not take the next output. False where nothing was under way."""
        for queue in self._sent.values():
            if queue:
                queue.popleft()[1](DeliveryFailed("refused"))
                return True
        return False

    def die(self) -> None:
        """What was sent may still arrive, as far as it goes; nobody hears of it."""
        for place, queue in self._sent.items():
            for _ in range(self._broker.rng.randint(0, len(queue))):
                self._broker.logs[place].append(queue.popleft()[0])
        self._sent.clear()
        self._arrived.clear()
