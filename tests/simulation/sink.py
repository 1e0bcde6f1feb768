"""A sink by the protocol of `sinks.timescale.writer`, over a database that is two dictionaries.

Rows and offsets are one transaction, in which the offsets are looked at first: records below them are skipped. A row
whose identity is held is a repeat; one that differs from the row held is a conflict.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from headrace.compare import COMPARED, identity
from schemas.records import Record
from schemas.topics import TOPICS
from streams.agent import DEAD_LETTERS
from tests.simulation.codec import CODEC
from tests.simulation.port import Entry, Place

if TYPE_CHECKING:
    from tests.simulation.topology_world import TopologyWorld

PROCESSES = 2
TOPICS_READ = tuple(topic for topic in COMPARED if topic != DEAD_LETTERS)

Row = tuple[bytes, int]
"""The record's body and timestamp (ms)."""


class Database:
    """What outlives every sink."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[tuple[Any, ...], Row]] = defaultdict(dict)
        self.offsets: dict[Place, int] = defaultdict(int)
        self.conflicts: list[str] = []
        self.repeats = 0

    def write(self, batch: dict[Place, list[tuple[int, Entry]]]) -> None:
        """One transaction. Whoever wrote the partition meanwhile has moved its offset on."""
        for place, items in batch.items():
            floor = self.offsets[place]
            for offset, entry in items:
                if offset >= floor:
                    self.insert(place[0], entry)
            self.offsets[place] = max(floor, items[-1][0] + 1)

    def insert(self, topic: str, entry: Entry) -> None:
        """Insert the row of a record, unless its identity is held."""
        assert entry.value is not None
        record = CODEC.decode(topic, entry.value)
        if not isinstance(record, Record) or not isinstance(record, TOPICS[topic].compared):
            return
        row = (entry.value, entry.timestamp_ms)
        held = self.rows[topic].setdefault(identity(record), row)
        self.repeats += held is not row
        if held != row:
            self.conflicts.append(f"{topic}: a second row of {identity(record)} differs")


class Sink:
    """One process. No group keeps it from the other: each takes every partition, and is a zombie to the other."""

    def __init__(self, world: TopologyWorld) -> None:
        self.world = world
        self.database = world.database
        self._read: dict[Place, int] = {}
        self._batch: dict[Place, list[tuple[int, Entry]]] = {}

    def act(self) -> str:
        """Read some more, or write what was read."""
        if self.world.rng.random() < 0.7:
            return self.read(self.world.rng.randint(1, 30))
        return self.write()

    def read(self, count: int) -> str:
        """Fetch of every partition from where the database says, and from there on."""
        logs = self.world.broker.logs
        for topic in TOPICS_READ:
            for partition in range(TOPICS[topic].partitions):
                place = (topic, partition)
                log = logs.get(place)
                if not log:
                    continue
                begin = self._read.get(place)
                if begin is None:
                    begin = self.database.offsets[place]
                if begin >= len(log):
                    continue
                items = log[begin : begin + count]
                self._batch.setdefault(place, []).extend(enumerate(items, begin))
                self._read[place] = begin + len(items)
        return "reads"

    def write(self) -> str:
        """The batch in one transaction; where the answer is lost, the same batch is written again."""
        self.database.write(self._batch)
        if self.world.rng.random() < self.world.lost_answers:
            return "writes, unheard"
        self._batch = {}
        return "writes"

    def finish(self) -> None:
        """Undisturbed: everything there is."""
        self.read(1_000_000)
        self.write()
