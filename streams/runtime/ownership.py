"""The commit protocol of one owned partition, free of I/O: own, apply, cut, acknowledge, commit, recover, fence.

What must hold, whoever dies when (DESIGN.md rule 9):

* The changelog's state and its source position are of the same run boundary: one transaction carries both.
* They are never ahead of the outputs: a cut is committed only after every output of the runs up to it is acknowledged.
* Whoever opens a partition fences the last owner before it reads; an old owner can send copies of outputs, which
  are the same records by determinism, but can never commit again.

`Ownership` keeps these by construction. It reaches the world through a `Port` only: `streams.runtime.kafka` is one,
the seeded simulation of the tests another. `open` and `commit` may block and are called off the event loop; `apply`
and `cut` are synchronous steps on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol, cast

from schemas.codec import Codec, Unreadable
from schemas.partitioner import partition_of
from schemas.states import PARTITION_KEY, POSITION_KEY, SourcePosition, State
from schemas.topics import TOPICS
from streams.agent import Agent, Input, SourcePartition, Working, frozen
from streams.errors import DeliveryFailed, InputLost, StateUnreadable, TopicDeleted
from streams.runtime import reading
from streams.runtime.identity import UNKNOWN, TopicIds
from streams.runtime.runs import Run, record_time_ms

OnDelivery = Callable[[Exception | None], None]


class Outcome(Enum):
    """How a transaction ended, where it did not raise."""

    COMMITTED = auto()
    ABORTED = auto()
    """Nothing was written and the fence still holds: put the changes back and try again."""


class Port(Protocol):
    """What the protocol needs of a log. Every method is told the agent and partition it speaks for."""

    def fence(self, agent: str, partition: int) -> None:
        """Shut out the last owner and end what it left open. Blocks."""
        ...

    def restore(self, agent: str, partition: int) -> Mapping[bytes, bytes]:
        """The committed changelog of the partition, latest value by key. Blocks. Only after `fence`."""
        ...

    def send(
        self, topic: str, partition: int, key: bytes, value: bytes, timestamp_ms: int, done: OnDelivery
    ) -> None:
        """Send an output at once; ``done`` is called with None or the error when its fate is known."""
        ...

    def commit(self, agent: str, partition: int, changes: Mapping[bytes, bytes]) -> Outcome:
        """Write ``changes`` to the changelog in one transaction. Blocks.

        Raises `streams.errors.Fenced` where another owner has opened the partition.
        """
        ...


class Phase(Enum):
    """Where an ownership stands; it only moves forward."""

    OPENING = auto()
    READY = auto()
    CLOSED = auto()


class Epoch:
    """The outputs between two cuts: how many are not acknowledged yet, and whether one failed."""

    __slots__ = ("error", "pending")

    def __init__(self) -> None:
        self.pending = 0
        self.error: Exception | None = None

    def done(self, error: Exception | None) -> None:
        """Called once per output when its fate is known, on the thread that calls `Ownership.apply`."""
        self.pending -= 1
        if error is not None:
            self.error = error


class Cut(NamedTuple):
    """What changed up to a run boundary, serialised there, and the outputs it waits for."""

    changes: dict[bytes, bytes]
    touched: frozenset[str]
    next_offset: int
    epoch: Epoch


class Ownership:
    """One partition of one agent's source, from taking it over to giving it up."""

    def __init__(
        self,
        agent: Agent[Any, Any],
        partition: int,
        codec: Codec,
        port: Port,
        *,
        until: int | None = None,
        ids: TopicIds = UNKNOWN,
    ) -> None:
        """Nothing from the offset ``until`` on is applied, where there is one; ``ids`` are those of the topics now."""
        self.agent = agent
        self.where = SourcePartition(agent.source, partition)
        self.phase = Phase.OPENING
        self.next_offset = 0
        self.committed_offset = 0
        self.keys: dict[str, State | Working] = {}
        self.partition_state: State = agent.partition_type()
        self._changelog = f"{agent.name}.changelog"
        self._codec = codec
        self._port = port
        self._until = until
        self._ids = ids
        self._touched: set[str] = set()
        self._epoch = Epoch()
        self._unsettled: Cut | None = None

    # ---- own

    def open(self) -> None:
        """Fence the last owner, then take over what it committed. Blocks.

        Raises `streams.errors.StateUnreadable` where the changelog holds a state that this build cannot read, and
        `streams.errors.TopicDeleted` where the position is one in another topic, or was copied from another changelog.
        """
        partition = self.where.partition
        self._port.fence(self.agent.name, partition)
        for key, body in self._port.restore(self.agent.name, partition).items():
            state = self._codec.decode(self._changelog, body)
            if isinstance(state, Unreadable):
                raise StateUnreadable(self._changelog, partition, key, state.error)
            if key == POSITION_KEY:
                self._check(cast(SourcePosition, state))
                self.next_offset = cast(SourcePosition, state).next_offset
            elif key == PARTITION_KEY:
                self.partition_state = cast(State, state)
            else:
                self.keys[key.decode()] = cast(State, state)
        self.committed_offset = self.next_offset
        self.phase = Phase.READY

    def _check(self, position: SourcePosition) -> None:
        was = position.source_id, position.changelog_id
        for topic, then, now in zip((self.where.topic, self._changelog), was, self._ids, strict=True):
            if then and now and then != now:
                raise TopicDeleted(topic, then, now)

    def close(self) -> None:
        """Give the partition up: nothing is applied or cut any more."""
        self.phase = Phase.CLOSED

    # ---- apply

    def apply(self, run: Run) -> int:
        """Fold a run into the state and send its outputs, in one synchronous step. Returns the records applied.

        Records below the position are skipped. Raises `schemas.codec.RegistryUnavailable` before anything changed;
        after any other failure the partition is closed, since its states may be half changed.
        """
        if self._until is not None:
            run = run.before(self._until)
        if self.phase is not Phase.READY or run.next_offset <= self.next_offset:
            return 0
        inputs = self._inputs(run)
        try:
            if inputs:
                self._fold(inputs)
        except BaseException:
            self.close()
            raise
        self.next_offset = run.next_offset  # also past markers, which are offsets without a record
        return len(inputs)

    def _fold(self, inputs: Sequence[Input]) -> None:
        outputs, touched = self.agent.step(self.where, self.partition_state, self.keys, inputs)
        self._touched |= touched
        epoch, send, encode = self._epoch, self._port.send, self._codec.encode
        epoch.pending += len(outputs)
        done = epoch.done  # one object for all of them
        for topic, key, value, event_time in outputs:
            raw = key.encode()
            partition = partition_of(raw, TOPICS[topic].partitions)
            send(topic, partition, raw, encode(topic, value), record_time_ms(event_time), done)

    def _inputs(self, run: Run) -> Sequence[Input]:
        if run.begin > self.next_offset:
            raise InputLost(self.where.topic, self.where.partition, self.next_offset, run.begin)
        records = run.part(run.index_of(self.next_offset), len(run))
        return reading.read(self._codec, self.agent.source, records)

    # ---- cut, acknowledge, commit

    def cut(self) -> Cut | None:
        """Serialise what changed since the last cut; None where nothing did. The next run belongs to the next cut.

        A cut that was not settled yet is answered again: none may be overtaken, or its changes would be lost.
        """
        if self.phase is not Phase.READY or self.next_offset == self.committed_offset:
            return None
        if self._unsettled is not None:
            return self._unsettled
        encode, log = self._codec.encode, self._changelog
        changes = {
            key.encode(): encode(log, frozen(self.keys[key])) for key in self._touched if key in self.keys
        }
        changes[PARTITION_KEY] = encode(log, self.partition_state)
        position = SourcePosition(
            topic=self.where.topic,
            partition=self.where.partition,
            next_offset=self.next_offset,
            source_id=self._ids.source,
            changelog_id=self._ids.changelog,
        )
        changes[POSITION_KEY] = encode(log, position)
        self._unsettled = Cut(changes, frozenset(self._touched), self.next_offset, self._epoch)
        self._touched, self._epoch = set(), Epoch()
        return self._unsettled

    @staticmethod
    def acknowledged(cut: Cut) -> bool:
        """Whether every output up to the cut is in Kafka. Raises `DeliveryFailed` where one cannot be."""
        if cut.epoch.error is not None:
            raise DeliveryFailed(str(cut.epoch.error)) from cut.epoch.error
        return cut.epoch.pending == 0

    def commit(self, cut: Cut) -> Outcome:
        """Write an acknowledged cut in one transaction. Blocks; touches no state of this object."""
        if not self.acknowledged(cut):
            raise AssertionError("a cut is committed only after its outputs are acknowledged")
        return self._port.commit(self.agent.name, self.where.partition, cut.changes)

    def settle(self, cut: Cut, outcome: Outcome) -> None:
        """Take note of how a commit ended; what was aborted belongs to the next cut again."""
        self._unsettled = None
        if outcome is Outcome.COMMITTED:
            self.committed_offset = cut.next_offset
        else:
            self._touched |= cut.touched
