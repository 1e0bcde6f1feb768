"""The runtime on a real Kafka: a worker is killed while records flow; what it committed always agrees."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import confluent_kafka as ck
import msgspec
import pytest

from headrace import topics
from headrace.stack import Endpoints
from schemas.codec import Codec
from schemas.partitioner import partition_of
from schemas.records import Clock, RegimeSpec, Settings, UniverseSpec
from schemas.states import PARTITION_KEY, State
from schemas.topics import TOPICS, physical
from streams.agent import DEAD_LETTERS, Output, SourcePartition, frozen
from streams.errors import Fenced
from streams.runtime.config import RuntimeConfig
from streams.runtime.inline import Inline
from streams.runtime.kafka import KafkaPort, output_settings
from streams.runtime.ownership import Outcome
from streams.symbols import Symbols
from tests.conftest import REPO
from tests.examples import DAY0, SECOND, settings, tick
from tests.integration.kafka_log import Committed, Log, Placed, Records
from tests.simulation.port import Entry
from tests.simulation.world import identity

NAME, TICKS, CHANGELOG = "symbols", "market.ticks", "symbols.changelog"
PARTITIONS = range(TOPICS[TICKS].partitions)
KILLS = 3
SYMBOLS = [f"S{number}" for number in range(9)]
BUSIEST = partition_of("S1", len(PARTITIONS))
SETTINGS = settings(
    kinds=("time:1s", "time:5s"),
    regimes=RegimeSpec(kinds=("time:1s",)),
    universes=(UniverseSpec(name="u1", symbols=("S1", "S2", "S3"), kind="time:1s"),),
)
WORKER = """
import sys, msgspec
from streams.runtime.app import run_worker
from streams.runtime.config import RuntimeConfig
from streams.runtime.registry import codec
from streams.symbols import Symbols

config = msgspec.json.decode(sys.argv[1], type=RuntimeConfig)
run_worker(config, Symbols(), codec(config.registry, config.namespace))
"""


class Stop(NamedTuple):
    """What there was when a worker had been killed: outputs first, so that none may come after its commit."""

    ends: Mapping[tuple[str, int], int]
    committed: list[Committed]

    @classmethod
    def now(cls, log: Log) -> Stop:
        ends = log.ends(*Symbols.writes)
        return cls(ends, [log.committed(NAME, partition) for partition in PARTITIONS])


def test_who_opens_a_partition_fences_its_last_owner(stack: Endpoints, namespace: str, codec: Codec) -> None:
    topics.create(stack.kafka, namespace, SETTINGS, codec)
    first, second, third = (KafkaPort(stack.kafka, namespace) for _ in range(3))
    first.fence("symbols", 0)
    assert first.restore("symbols", 0) == {}
    assert first.commit("symbols", 0, {b"a": b"1", b"b": b"1"}) is Outcome.COMMITTED
    assert first.commit("symbols", 0, {b"b": b"2"}) is Outcome.COMMITTED

    second.fence("symbols", 0)
    with pytest.raises(Fenced):
        first.commit("symbols", 0, {b"a": b"3"})
    left_open = second._fences["symbols", 0]
    left_open.begin_transaction()
    left_open.produce(physical(namespace, CHANGELOG), b"4", b"b", partition=0)
    left_open.flush(10)

    third.fence("symbols", 0)
    assert third.restore("symbols", 0) == {b"a": b"1", b"b": b"2"}
    assert third.commit("symbols", 0, {b"a": b"5"}) is Outcome.COMMITTED
    assert third.restore("symbols", 0) == {b"a": b"5", b"b": b"2"}
    assert third.restore("symbols", 1) == {}


class Market(threading.Thread):
    """Writes seeded ticks, clocks and some bad input until it is told to stop, and then a last clock."""

    def __init__(self, stack: Endpoints, namespace: str, codec: Codec, rng: random.Random) -> None:
        super().__init__(daemon=True)
        self._enough = threading.Event()
        self.failed: list[str] = []
        self._codec, self._rng = codec, rng
        self._topic = physical(namespace, TICKS)
        self._producer = ck.Producer(output_settings(stack.kafka, linger_ms=5))

    def run(self) -> None:
        rng, now, sequence = self._rng, DAY0, 0
        while not self._enough.is_set():
            for _ in range(10):
                sequence += 1
                now += rng.randrange(SECOND // 20)
                late = rng.choice([0] * 20 + [4 * SECOND])
                trade = tick(
                    rng.choice(SYMBOLS),
                    now - late,
                    price=rng.choice([100 + rng.random()] * 50 + [float("nan")]),
                    sequence=sequence - rng.choice([0] * 20 + [50]),
                )
                self._write(now, trade.symbol.encode(), self._codec.encode(TICKS, trade))
            self._write(now, b"S1", b"no frame")
            self._clock(now)
            time.sleep(0.02)
        self._clock(now + 60 * SECOND)
        self._producer.flush(30)

    def end(self) -> None:
        """Write the last clock, and wait until all is there."""
        self._enough.set()
        self.join()

    def _clock(self, now: int) -> None:
        for partition in PARTITIONS:
            self._write(now, None, None, partition=partition, headers=[("source", b"test")])

    def _write(self, now: int, key: bytes | None, value: bytes | None, **where: Any) -> None:
        self._producer.produce(
            self._topic, value, key, timestamp=now // 1000, on_delivery=self._delivered, **where
        )
        self._producer.poll(0)

    def _delivered(self, error: ck.KafkaError | None, message: ck.Message) -> None:
        if error is not None:
            self.failed.append(error.str())


class Worker:
    """The symbols agent in a process of its own, static member of its group; `kill` and `start` it at will."""

    def __init__(self, config: RuntimeConfig, log: Log, stderr: Path) -> None:
        self._config, self._log, self._stderr = config, log, stderr
        self.start()

    def start(self) -> None:
        with self._stderr.open("ab") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-c", WORKER, msgspec.json.encode(self._config)],
                cwd=REPO,
                env={**os.environ, "PYTHONPATH": str(REPO)},
                stdout=stderr,
                stderr=stderr,
            )

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """Ask it to stop, and return its exit status."""
        self._process.terminate()
        return self._process.wait(30)

    def wait_for(self, partition: int, position: int, limit_s: float = 40.0) -> None:
        """Until it has committed ``position``."""
        deadline = time.monotonic() + limit_s
        while self._log.committed(NAME, partition).position < position:
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = f"[exit status {self._process.returncode}] {self._stderr.read_text()}"
                pytest.fail(
                    f"partition {partition} was not committed up to {position}; the worker said:\n{said}"
                )
            time.sleep(0.05)


def test_whenever_a_worker_is_killed_position_states_and_outputs_agree(
    stack: Endpoints, namespace: str, codec: Codec, log: Log, tmp_path: Path
) -> None:
    topics.create(stack.kafka, namespace, SETTINGS, codec)
    rng = random.Random(20131007)
    config = RuntimeConfig(
        bootstrap=stack.kafka,
        registry=stack.registry,
        namespace=namespace,
        instance="symbols-0",
        commit_interval_ms=200,
        session_timeout_ms=6_000,
        max_run_records=50,
        state_dir=str(tmp_path / "state"),
    )
    market = Market(stack, namespace, codec, rng)
    market.start()
    worker = Worker(config, log, tmp_path / "worker.log")
    stops: list[Stop] = []
    try:
        for _ in range(KILLS):
            last = stops[-1].committed[BUSIEST].position if stops else 0
            worker.wait_for(BUSIEST, last + 1)
            time.sleep(rng.uniform(0, 0.6))
            worker.kill()
            stops.append(Stop.now(log))
            worker.start()
        market.end()
        sources = [log.read(TICKS, partition) for partition in PARTITIONS]
        for partition, source in enumerate(sources):
            worker.wait_for(partition, source.end)
        assert worker.stop() == 0
    finally:
        market.end()
        worker.kill()
    stops.append(Stop.now(log))
    assert market.failed == []

    outputs = {topic: list(log.entries(topic)) for topic in Symbols.writes}
    assert all(outputs.values()), "each kind of output occurs"
    for stop in stops:
        agree(stop, sources, outputs, codec)
    copies = sum(len(entries) - len({each.entry for each in entries}) for entries in outputs.values())
    assert copies > 0, "a kill between an output and its commit makes it come twice"
    for before, after in itertools.pairwise(stops):
        assert all(a.position <= b.position for a, b in zip(before.committed, after.committed, strict=True))
    same_as_inline(sources, outputs, codec)


def agree(stop: Stop, sources: list[Records], outputs: Mapping[str, list[Placed]], codec: Codec) -> None:
    """Each changelog holds the states after the records before its position, whose outputs were all there."""
    there = {
        (topic, entry)
        for topic, entries in outputs.items()
        for partition, offset, entry in entries
        if offset < stop.ends[topic, partition]
    }
    for partition, (position, states) in enumerate(stop.committed):
        agent, own = Symbols(), Symbols.partition_type()
        keys: dict[str, Any] = {}
        before = [item for item in sources[partition].records if item.offset < position]
        results, _ = agent.step(SourcePartition(TICKS, partition), own, keys, before)
        expected: dict[bytes, State] = {key.encode(): state for key, state in keys.items()}
        if position:
            expected[PARTITION_KEY] = own
        assert states == {key: codec.encode(CHANGELOG, frozen(state)) for key, state in expected.items()}
        due = {(each.topic, entry_of(each, codec)) for each in results if not isinstance(each.value, Clock)}
        assert due <= there


def entry_of(output: Output, codec: Codec) -> Entry:
    return Entry(
        output.key.encode(), codec.encode(output.topic, output.value), max(output.event_time // 1000, 1)
    )


def same_as_inline(sources: list[Records], outputs: Mapping[str, list[Placed]], codec: Codec) -> None:
    """Rule 11: per key the same sequence, the first of each identity, later copies equal; dead letters as a set."""
    expected: dict[tuple[str, bytes], list[Entry]] = defaultdict(list)

    def collect(output: Output) -> None:
        expected[output.topic, output.key.encode()].append(entry_of(output, codec))

    inline = Inline([Symbols()], SETTINGS, collect, run_records=777)
    for partition, source in enumerate(sources):
        assert isinstance(source.records[0].value, Settings)
        for item in source.records[1:]:
            inline.raw(TICKS, partition, item.key, item.value, item.raw, item.timestamp_ms, item.headers)
    inline.flush()

    for topic, entries in outputs.items():
        firsts: dict[bytes, dict[tuple[Any, ...], Entry]] = defaultdict(dict)
        for partition, _, entry in entries:
            assert partition == partition_of(entry.key, TOPICS[topic].partitions)
            first = firsts[entry.key].setdefault(identity(topic, entry, codec), entry)
            assert first == entry, "a later copy differs"
        for key, found in firsts.items():
            if topic == DEAD_LETTERS:
                assert set(found.values()) == set(expected[topic, key])
            elif TOPICS[topic].role == "result":
                assert list(found.values()) == expected[topic, key]
        if TOPICS[topic].role == "result":
            assert firsts.keys() == {key for name, key in expected if name == topic}
