"""Dead letters re-driven by several processes at once, which are killed: seeded worlds, and the real agent as judge.

Every letter's tick has a size of its own, a power of two, so that the volume of the one bar tells which have counted,
and how often.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from headrace import redrive as redriving
from headrace.dead_letters import Letter, id_of
from headrace.fates import HEADER, Topic
from headrace.redrive import Delivered, Done, redrive
from headrace.repair import Repair
from schemas.codec import Codec, UnknownSchema
from schemas.columns import Packed, PackedRecord
from schemas.partitioner import partition_of
from schemas.records import Bar, DeadLetter, Reason
from schemas.states import SymbolsPartition
from schemas.topics import TOPICS
from streams.agent import SourcePartition
from streams.runtime import reading
from streams.symbols import Symbols
from tests.examples import DAY0, SECOND, settings, tick

TICKS = "market.ticks"
LETTERS = 8
PROCESSES = 3
WORLDS = 150


def _unknown(number: int) -> str:
    raise UnknownSchema(str(number))


CODEC = Codec({name: number for number, name in enumerate(TOPICS)}, _unknown)
PARTITIONS = TOPICS[TICKS].partitions
HOME = partition_of("A", PARTITIONS)


class Killed(BaseException):
    """Ends a process where it stands."""


class World:
    """A log, and processes that take turns as the seed has it: at each word with Kafka another may go on."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        begins = CODEC.encode(TICKS, settings(kinds=("time:5m",)))
        self.log: list[list[PackedRecord]] = [[(0, 1, None, begins, ())] for _ in range(PARTITIONS)]
        self.kills = 0
        self._turn = threading.Semaphore(0)
        self._running: dict[int, threading.Semaphore] = {}
        self._on_their_way: list[list[Callable[[], None]]] = []
        self._failures: list[BaseException] = []

    def process(self, repairs: list[Repair]) -> None:
        """`headrace dead-letters redrive`, which is run again whenever it is killed."""
        go = self._running[len(self._running)] = threading.Semaphore(0)
        threading.Thread(target=self._run, args=(repairs, len(self._running) - 1, go), daemon=True).start()

    def _run(self, repairs: list[Repair], number: int, go: threading.Semaphore) -> None:
        go.acquire()
        try:
            while True:
                queue: list[Callable[[], None]] = []
                self._on_their_way.append(queue)
                kafka = Kafka(self, go, queue)
                try:
                    for _ in redrive(kafka, kafka, CODEC, repairs):
                        pass
                    break
                except Killed:
                    continue
        except BaseException as error:
            self._failures.append(error)
        finally:
            del self._running[number]
            self._turn.release()

    def pause(self, go: threading.Semaphore) -> None:
        """Let others go on; maybe never come back."""
        self._turn.release()
        go.acquire()
        if self.kills < 4 and self.random.random() < 0.05:
            self.kills += 1
            raise Killed

    def run(self) -> None:
        """Until every process has ended and everything has arrived, what was sent by the killed ones too."""
        while True:
            queues = [queue for queue in self._on_their_way if queue]
            choices = [*self._running.values(), *queues]
            if not choices:
                break
            chosen = self.random.choice(choices)
            if isinstance(chosen, list):
                chosen.pop(0)()
            else:
                chosen.release()
                self._turn.acquire()
        assert not self._failures, self._failures

    def counted(self) -> list[int]:
        """How often each letter's tick has counted, as the agent has it."""
        agent, partition = Symbols(), SymbolsPartition()
        end = (10**9, DAY0 // 1000 + 600_000, None, None, (("source", b"test"),))
        inputs = reading.read(CODEC, TICKS, Packed.of([*self.log[HOME], end]))
        outputs, _ = agent.step(SourcePartition(TICKS, HOME), partition, {}, inputs)
        (bar,) = (output.value for output in outputs if isinstance(output.value, Bar))
        counts = [int(bar.volume) // 16**number % 16 for number in range(LETTERS)]
        assert bar.count == sum(counts)
        return counts


class Kafka:
    """What one process has of the log: `headrace.fates.Log` and `headrace.redrive.Outbox`."""

    def __init__(self, world: World, go: threading.Semaphore, queue: list[Callable[[], None]]) -> None:
        self._world, self._go, self._queue = world, go, queue

    def partitions(self, topic: str) -> int:
        return PARTITIONS

    def begin(self, topic: str, partition: int) -> int:
        return 0

    def records(self, topic: str, partition: int, offset: int) -> Iterator[PackedRecord]:
        if partition == HOME:
            self._world.pause(self._go)
        yield from self._world.log[partition][offset:]

    def send(
        self,
        topic: str,
        partition: int,
        key: str,
        value: bytes,
        timestamp_ms: int,
        letter: str,
        delivered: Delivered,
    ) -> None:
        log = self._world.log[partition]

        def arrive() -> None:
            log.append((len(log), timestamp_ms, key.encode(), value, ((HEADER, letter.encode()),)))
            delivered(len(log) - 1, "")

        self._queue.append(arrive)

    def flush(self) -> None:
        while self._queue:
            self._world.pause(self._go)


def repair(number: int) -> Repair:
    """A letter of symbol A, repaired."""
    record = DeadLetter(
        stage="symbols",
        reason=Reason.BAD_PRICE,
        error="",
        input=f"test/s/{number}",
        topic=TICKS,
        partition=HOME,
        offset=number,
        timestamp_ms=DAY0 // 1000,
        value_size=0,
        symbol="A",
    )
    good = tick("A", DAY0 + number * SECOND, sequence=number, size=float(16**number))
    return Repair(Letter(id_of(record), record, 0, number), TICKS, good)


def violations(worlds: Iterator[int]) -> Iterator[tuple[int, list[int], list[int]]]:
    """Seeds whose letters have not all counted once."""
    for seed in worlds:
        world, wanted = World(seed), set[int]()
        for _ in range(PROCESSES):
            share = world.random.sample(range(LETTERS), world.random.randint(1, LETTERS))
            wanted.update(share)
            world.process([repair(number) for number in share])
        world.run()
        expected = [int(number in wanted) for number in range(LETTERS)]
        counts = world.counted()
        if counts != expected:
            yield seed, expected, counts


def test_in_every_world_every_letter_counts_once() -> None:
    assert list(violations(iter(range(WORLDS)))) == []


def test_worlds_have_what_makes_them_hard() -> None:
    kills, dropped = 0, 0
    for seed in range(20):
        world = World(seed)
        for _ in range(PROCESSES):
            world.process([repair(number) for number in range(LETTERS)])
        world.run()
        kills += world.kills
        dropped += len(world.log[HOME]) - 1 - LETTERS
    assert kills > 10
    assert dropped > 20, "no two have chosen the same name"


def _by_offset(self: Topic, key: str, source: str) -> int:
    """A free name, but not the next: it grows with the log."""
    return self._part(key).next


def _believing(self: Any, topic: Topic) -> Any:
    """What has arrived is taken for counted."""
    return REAL_OUTCOME(self, topic) or redriving.Outcome(self.repair, self._record, Done.SENT, "", "")


REAL_OUTCOME = redriving._Sent.outcome


@pytest.mark.parametrize(
    ("where", "name", "breach"),
    [
        (Topic, "next_sequence", _by_offset),
        (redriving._Sent, "outcome", _believing),
    ],
)
def test_a_breach_of_the_protocol_is_seen(
    monkeypatch: pytest.MonkeyPatch, where: type, name: str, breach: Any
) -> None:
    monkeypatch.setattr(where, name, breach)
    assert next(violations(iter(range(WORLDS))), None) is not None
