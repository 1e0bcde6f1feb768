"""One partition of one agent, whose owners stop at any moment, come back as zombies, and start again.

Every choice is drawn from a seed. After each step the world holds what is committed against a `Reference`: the
same agent over the same records, one after the other and undisturbed.

* The changelog's states are those after exactly the records before its position.
* The position never goes back, and every output of the records before it is in the logs.
* Of each key's outputs, the firsts of all identities begin the undisturbed sequence; later copies are equal.
* Once a partition was opened again, whoever held it before commits nothing.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from schemas.codec import Codec, Unreadable, identity_of
from schemas.columns import Headers, Packed
from schemas.partitioner import partition_of
from schemas.records import Record
from schemas.states import PARTITION_KEY, POSITION_KEY, SourcePosition, State
from schemas.topics import TOPICS
from streams.agent import DEAD_LETTERS, Agent, Input, SourcePartition, frozen
from streams.errors import Fenced
from streams.runtime.ownership import Cut, Outcome, Ownership
from streams.runtime.runs import Run
from tests.simulation.codec import CODEC
from tests.simulation.port import Broker, Entry, Place, SimulatedPort


class Violation(AssertionError):
    """The protocol was broken."""


class SourceRecord(NamedTuple):
    """One record of the source partition; offsets may have gaps."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Stream(NamedTuple):
    """The outputs of one key."""

    topic: str
    partition: int
    key: bytes

    @property
    def ordered(self) -> bool:
        """Rule 11 compares results as sequences, dead letters as a set, and the rest not at all."""
        return bool(TOPICS[self.topic].compared) and self.topic != DEAD_LETTERS


class Reference:
    """An agent over a log, record by record: its states at each offset and its outputs before each."""

    def __init__(
        self, make_agent: Callable[[], Agent[Any, Any]], log: Sequence[SourceRecord], end: int
    ) -> None:
        self.make_agent, self.log, self.end = make_agent, log, end
        self.partition = 0
        self.outputs: dict[Stream, list[Entry]] = defaultdict(list)
        self.states: list[dict[bytes, bytes]] = [{}]
        self.counts: list[dict[Stream, int]] = [{}]
        agent = make_agent()
        where = SourcePartition(agent.source, self.partition)
        changelog = f"{agent.name}.changelog"
        partition_state: State = agent.partition_type()
        keys: dict[str, Any] = {}
        states: dict[bytes, bytes] = {}
        by_offset = {record.offset: record for record in log}
        for offset in range(end):
            record = by_offset.get(offset)
            if record is not None:
                value = None if record.value is None else CODEC.decode(agent.source, record.value)
                item = Input(*record[:3], cast("Record | Unreadable | None", value), *record[3:])
                outputs, touched = agent.step(where, partition_state, keys, [item])
                for topic, key, result, event_time in outputs:
                    stream = Stream(topic, partition_of(key, TOPICS[topic].partitions), key.encode())
                    value_sent = CODEC.encode(topic, result)
                    self.outputs[stream].append(Entry(stream.key, value_sent, max(event_time // 1000, 1)))
                states = states | {
                    key.encode(): CODEC.encode(changelog, frozen(keys[key])) for key in touched
                }
            states = states | {PARTITION_KEY: CODEC.encode(changelog, partition_state)}
            self.states.append(states)
            self.counts.append({stream: len(entries) for stream, entries in self.outputs.items()})
        self.entries = {stream: frozenset(entries) for stream, entries in self.outputs.items()}

    def due(self, stream: Stream, position: int) -> int:
        """How many outputs the records before ``position`` have."""
        return self.counts[position].get(stream, 0)

    def run(self, begin: int, end: int) -> Run:
        """The records from ``begin`` up to, not including, ``end`` as one fetched run."""
        return Run(begin, end, Packed.of(record for record in self.log if begin <= record.offset < end))


class Process:
    """One owner of the partition, its port, and how far it has fetched."""

    def __init__(self, world: World) -> None:
        self.port = world.make_port(world.broker)
        self.owner = world.make_owner(
            world.reference.make_agent(), world.reference.partition, CODEC, self.port
        )
        self.owner.open()
        self.fetched = self.owner.next_offset
        self.cut: Cut | None = None


class World:
    """Runs one seed; raises `Violation` at the first step after which the promise does not hold."""

    def __init__(
        self,
        seed: int,
        reference: Reference,
        *,
        make_owner: type[Ownership] = Ownership,
        make_port: type[SimulatedPort] = SimulatedPort,
    ) -> None:
        self.rng = random.Random(seed)
        self.seed, self.reference = seed, reference
        self.make_owner, self.make_port = make_owner, make_port
        self.broker = Broker(self.rng, abort_rate=self.rng.choice([0.0, 0.3]))
        self.place = (reference.make_agent().name, reference.partition)
        self.position = 0
        self._committed: dict[bytes, bytes] = {}
        self._read: dict[Place, int] = defaultdict(int)
        self._firsts: dict[Stream, dict[tuple[Any, ...], Entry]] = defaultdict(dict)
        self.stops = self.fenced = self.aborted = self.committed = 0
        self.process = Process(self)
        self.zombies: list[Process] = []

    def run(self) -> World:
        """Every record is applied and committed in the end, whatever happens on the way."""
        for _ in range(self.rng.randint(20, 90)):
            self._step()
            self._check()
        self._finish()
        return self

    # ---- what happens

    def _step(self) -> None:
        happening = self.rng.choices(
            ["apply", "deliver", "commit", "kill", "replace", "zombie", "forget"], [8, 8, 12, 1, 1, 6, 1]
        )[0]
        if happening == "kill":
            self.process.port.die()
            self._start()
        elif happening == "replace":
            self.zombies.append(self.process)
            self._start()
        elif happening == "zombie":
            self._zombie_step()
        elif happening == "forget":
            self.process.cut = None  # a commit that was cancelled: the next one asks for a cut again
        else:
            self._work(self.process, happening)

    def _start(self) -> None:
        self.stops += 1
        self.process = Process(self)

    def _zombie_step(self) -> None:
        if not self.zombies:
            return
        zombie = self.rng.choice(self.zombies)
        before = dict(self.broker.changelogs[self.place])
        try:
            self._work(zombie, self.rng.choice(["apply", "deliver", "commit"]))
        except Fenced:
            self.fenced += 1
            zombie.port.die()
            self.zombies.remove(zombie)
        self._hold(self.broker.changelogs[self.place] == before, "an owner that was replaced has committed")

    def _work(self, process: Process, happening: str) -> None:
        if happening == "apply":
            begin = max(0, process.fetched - self.rng.choice([0, 0, 0, 1, 3, 9]))  # fetched again at times
            end = min(self.reference.end, begin + self.rng.randint(1, 8))
            process.owner.apply(self.reference.run(begin, end))
            process.fetched = max(process.fetched, end)
        elif happening == "deliver":
            process.port.deliver()
        else:
            self._commit(process)

    def _commit(self, process: Process) -> None:
        """Cut, unless a cut waits already, and commit it if it need not wait any more."""
        process.cut = cut = process.cut or process.owner.cut()
        if cut is None or not process.owner.acknowledged(cut):
            return
        outcome = process.owner.commit(cut)
        if self.rng.random() < 0.1:
            return  # the answer is lost, as where the commit was cancelled: the owner does not know how it ended
        self.aborted += outcome is Outcome.ABORTED
        self.committed += outcome is Outcome.COMMITTED
        process.owner.settle(cut, outcome)
        process.cut = None

    def _finish(self) -> None:
        """Undisturbed from here on: the zombies arrive with what they sent, a last owner does the rest."""
        for process in (*self.zombies, self.process):
            process.port.die()
        self._start()
        self.broker.abort_rate = 0.0
        process, end = self.process, self.reference.end
        process.owner.apply(self.reference.run(process.fetched, end))
        process.port.deliver(everything=True)
        cut = process.owner.cut()
        if cut is not None:
            process.owner.settle(cut, process.owner.commit(cut))
        self._check()
        self._hold(self.position == end, f"position {self.position} at the end, not {end}")
        self._hold(process.owner.committed_offset == end, "the owner does not know that all is committed")

    # ---- what must hold

    def _check(self) -> None:
        for place, log in self.broker.logs.items():
            for entry in log[self._read[place] :]:
                assert entry.key is not None
                self._arrived(Stream(*place, entry.key), entry)
            self._read[place] = len(log)
        committed = dict(self.broker.changelogs[self.place])
        if committed == self._committed:
            return
        self._committed = dict(committed)
        raw, position = committed.pop(POSITION_KEY, None), 0
        if raw is not None:
            position = cast(SourcePosition, CODEC.decode(f"{self.place[0]}.changelog", raw)).next_offset
        self._hold(position >= self.position, f"position went back from {self.position} to {position}")
        self.position = position
        self._hold(committed == self.reference.states[position], f"states are not those at offset {position}")
        for stream in self.reference.outputs:
            self._all_there(stream, position)

    def _arrived(self, stream: Stream, entry: Entry) -> None:
        name = identity(stream.topic, entry)
        firsts = self._firsts[stream]
        if name in firsts:
            self._hold(firsts[name] == entry, f"a later copy in {stream} differs")
            return
        expected = self.reference.outputs[stream]
        if stream.ordered:
            known = len(firsts) < len(expected) and entry == expected[len(firsts)]
        else:
            known = entry in self.reference.entries.get(stream, ())
        self._hold(known, f"{stream} differs from an undisturbed run")
        firsts[name] = entry

    def _all_there(self, stream: Stream, position: int) -> None:
        firsts, due = self._firsts[stream], self.reference.due(stream, position)
        if stream.ordered:
            missing = due - len(firsts)
        else:  # of the clocks in a run, the last is enough
            wanted = {identity(stream.topic, entry) for entry in self.reference.outputs[stream][:due]}
            missing = len({name for name in wanted if name[0] != "Clock"} - firsts.keys())
        self._hold(missing <= 0, f"{missing} outputs of {stream} before the position are not there")

    def _hold(self, condition: bool, what: str) -> None:
        if not condition:
            raise Violation(f"seed {self.seed}: {what}")


_identities: dict[tuple[str, bytes], tuple[Any, ...]] = {}


def identity(topic: str, entry: Entry, codec: Codec = CODEC) -> tuple[Any, ...]:
    """Rule 10's name of an output: its kind and the fields that its schema calls its identity."""
    assert entry.value is not None
    known = _identities.get((topic, entry.value))
    if known is None:
        record = codec.decode(topic, entry.value)
        assert not isinstance(record, Unreadable), record
        parts: list[Any] = [type(record).__name__]
        for path in identity_of(type(record)):
            part: Any = record
            for name in path.split("."):
                part = getattr(part, name)
            parts.append(part)
        known = _identities[topic, entry.value] = tuple(parts)
    return known
