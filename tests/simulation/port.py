"""A simulated Kafka as the runtime's `Port`: records arrive late, acknowledgements later, owners are fenced.

States are restored as `streams.runtime.kafka` does it: of some local copy that is left on some disk, or none, and the
changelog behind it, which is compacted at times.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import NamedTuple

from schemas.columns import Headers
from schemas.states import POSITION_KEY
from streams.errors import CopyUnfit, DeliveryFailed, Fenced
from streams.runtime.ownership import OnDelivery, Outcome
from streams.runtime.recovery import Changes, Held

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
        self.disks = Disks(rng.getstate()[1][0])

    def write(self, place: Place, changes: Mapping[bytes, bytes]) -> int | None:
        """A transaction that is committed; the offset of its position, where it has one."""
        self.changelogs[place].update(changes)
        return self.disks.append(place, changes)


class Disks:
    """The changelogs by offset, and the copies of them that processes have left behind, each as far as it had come.

    It has a generator of its own, so that what else happens in a world does not hang on it.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.logs: dict[Place, dict[int, tuple[bytes, bytes]]] = defaultdict(dict)
        self.ends: dict[Place, int] = defaultdict(int)
        self.copies: dict[Place, list[Held]] = defaultdict(list)
        self.fitted = self.unfit = 0
        """How often a copy was used at a restoration, and how often it did not fit."""

    def append(self, place: Place, changes: Mapping[bytes, bytes]) -> int | None:
        """Write a transaction, its position last; compact what is before it, at times."""
        log, position = self.logs[place], None
        if self.rng.random() < 0.25:
            last = {key: offset for offset, (key, _) in sorted(log.items())}
            self.logs[place] = log = {offset: log[offset] for offset in sorted(last.values())}
        for key in sorted(changes, key=lambda key: key == POSITION_KEY):
            log[self.ends[place]] = key, changes[key]
            position = self.ends[place] if key == POSITION_KEY else None
            self.ends[place] += 1
        self.ends[place] += 1  # the transaction's marker
        return position

    def restored(self, place: Place) -> tuple[Held | None, Changes]:
        """Some copy that fits, or none, and all that was committed behind it."""
        held = self.rng.choice([None, *self.copies[place]])
        try:
            changes = self._behind(place, held)
            self.fitted += held is not None
        except CopyUnfit:
            self.unfit += 1
            held, changes = None, self._behind(place, None)
        return held, changes

    def _behind(self, place: Place, held: Held | None) -> Changes:
        changes = Changes(held)
        for offset, record in sorted(self.logs[place].items()):
            if held is None or offset >= held.offset:
                changes.add(offset, *record)
        if not changes.is_checked:
            raise CopyUnfit("nothing is behind it")
        return changes

    def keep(self, place: Place, held: Held | None, changes: Changes) -> Held | None:
        """Write what has gathered, if it is time to; the copy then. Older ones stay on other disks."""
        if self.rng.random() < 0.6:
            return held
        batch = changes.take()
        if batch is None:
            return held
        before = {} if batch.begins_anew or held is None else held.items
        items = {key: value for key, value in {**before, **batch.items}.items() if value is not None}
        kept = Held(items, batch.offset)
        self.copies[place] = [*self.copies[place][-2:], kept]
        return kept


class SimulatedPort:
    """One process's way to the broker; what happens meanwhile is drawn from the broker's generator."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._opened: dict[Place, int] = {}
        self._sent: dict[Place, deque[tuple[Entry, OnDelivery]]] = defaultdict(deque)
        self._arrived: deque[OnDelivery] = deque()
        self._refused: set[Place] = set()
        self._copies: dict[Place, tuple[Held | None, Changes]] = {}

    def fence(self, agent: str, partition: int) -> None:
        """Whoever opened the partition before can commit no more, and what it left open is aborted."""
        place = (agent, partition)
        self._broker.openings[place] += 1
        self._opened[place] = self._broker.openings[place]
        self._broker.transactions.pop(place, None)

    def restore(self, agent: str, partition: int) -> Mapping[bytes, bytes]:
        """The committed changelog."""
        place = (agent, partition)
        assert place in self._opened, "restored before it was fenced"
        held, changes = self._copies[place] = self._broker.disks.restored(place)
        return changes.onto(held)

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
        self.keep(place, changes, broker.write(place, changes))
        return Outcome.COMMITTED

    def keep(self, place: Place, changes: Mapping[bytes, bytes], offset: int | None) -> None:
        """Tell the local copy what was committed; at times nobody knows at which offset."""
        if place not in self._copies:
            return
        held, gathered = self._copies[place]
        disks = self._broker.disks
        gathered.commit(changes, None if disks.rng.random() < 0.1 else offset)
        self._copies[place] = disks.keep(place, held, gathered), gathered

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
