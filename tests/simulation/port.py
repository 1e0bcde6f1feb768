"""A simulated Kafka as the runtime's `Port`: records arrive late, acknowledgements later, owners are fenced."""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import NamedTuple

from schemas.columns import Headers
from streams.errors import DeliveryFailed, Fenced
from streams.runtime.ownership import OnDelivery, Outcome

Place = tuple[str, int]
"""A topic or an agent, and a partition."""


class Entry(NamedTuple):
    """One record of a log."""

    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: Headers = ()


class Broker:
    """What outlives every process: the logs, the changelogs, and who opened a partition last."""

    def __init__(self, rng: random.Random, *, abort_rate: float = 0.0) -> None:
        self.rng = rng
        self.abort_rate = abort_rate
        self.logs: dict[Place, list[Entry]] = defaultdict(list)
        self.changelogs: dict[Place, dict[bytes, bytes]] = defaultdict(dict)
        self.transactions: dict[Place, dict[bytes, bytes]] = {}
        """What was written in transactions that have not ended. No reader sees it."""
        self.openings: dict[Place, int] = defaultdict(int)


class SimulatedPort:
    """One process's way to the broker; what happens meanwhile is drawn from the broker's generator."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._opened: dict[Place, int] = {}
        self._sent: dict[Place, deque[tuple[Entry, OnDelivery]]] = defaultdict(deque)
        self._arrived: deque[OnDelivery] = deque()
        self._refused: set[Place] = set()

    def fence(self, agent: str, partition: int) -> None:
        """Whoever opened the partition before can commit no more, and what it left open is aborted."""
        place = (agent, partition)
        self._broker.openings[place] += 1
        self._opened[place] = self._broker.openings[place]
        self._broker.transactions.pop(place, None)

    def restore(self, agent: str, partition: int) -> Mapping[bytes, bytes]:
        """The committed changelog."""
        assert (agent, partition) in self._opened, "restored before it was fenced"
        return dict(self._broker.changelogs[agent, partition])

    def send(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        done: OnDelivery,
        headers: Headers = (),
    ) -> None:
        """Queue a record; `deliver` brings it into the log."""
        if (topic, partition) in self._refused:
            done(DeliveryFailed("refused"))
            return
        self._sent[topic, partition].append((Entry(key, value, timestamp_ms, headers), done))

    def begin(self, agent: str, partition: int, changes: Mapping[bytes, bytes], count: int) -> None:
        """A commit that has come as far as ``count`` of its changes: the transaction is open."""
        place = (agent, partition)
        self._check(place)
        self._broker.transactions[place] = {key: changes[key] for key in sorted(changes)[:count]}

    def commit(self, agent: str, partition: int, changes: Mapping[bytes, bytes]) -> Outcome:
        """All changes or none; at times none, for no reason that the owner could know."""
        place, broker = (agent, partition), self._broker
        self._check(place)
        broker.transactions.pop(place, None)
        if broker.rng.random() < broker.abort_rate:
            return Outcome.ABORTED
        broker.changelogs[place].update(changes)
        return Outcome.COMMITTED

    def _check(self, place: Place) -> None:
        if self._opened[place] != self._broker.openings[place]:
            raise Fenced(f"{place[0]}[{place[1]}] was opened again")

    # ---- what happens to a process

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._arrived and not any(self._sent.values())

    def deliver(self, *, everything: bool = False) -> None:
        """Bring some of what was sent into the logs, in order within a partition; acknowledge some of that."""
        rng = self._broker.rng
        everything = everything or rng.random() < 0.4
        for place, queue in self._sent.items():
            if not queue:
                continue
            for _ in range(len(queue) if everything else rng.randint(0, len(queue))):
                entry, done = queue.popleft()
                self._broker.logs[place].append(entry)
                self._arrived.append(done)
        arrived = len(self._arrived)
        for _ in range(arrived if everything else rng.randint(0, arrived)):
            self._arrived.popleft()(None)

    def refuse(self) -> bool:
        """The broker takes no more from this process for a partition. False where nothing was under way."""
        for place, queue in self._sent.items():
            if queue:
                self._refused.add(place)
                while queue:
                    queue.popleft()[1](DeliveryFailed("refused"))
                return True
        return False

    def die(self) -> None:
        """What was sent may still arrive, as far as it goes; nobody hears of it."""
        self.leave_tail()
        for place, queue in self._sent.items():
            self._broker.logs[place] += [entry for entry, _ in queue]
        self._sent.clear()
        self._arrived.clear()

    def leave_tail(self) -> None:
        """The process is gone. Of each partition's records a beginning is under way still: `deliver` lands it."""
        for queue in self._sent.values():
            for _ in range(self._broker.rng.randint(0, len(queue))):
                queue.pop()
