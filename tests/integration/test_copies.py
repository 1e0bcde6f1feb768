"""Local copies on a real Kafka: what is recovered is what the changelog holds, whatever became of the copy."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from pathlib import Path

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from headrace import topics
from headrace.stack import Endpoints
from schemas.codec import Codec
from schemas.partitioner import partition_of
from schemas.states import POSITION_KEY
from schemas.topics import TOPICS, physical
from streams.runtime.config import RuntimeConfig
from streams.runtime.copies import Copies
from streams.runtime.identity import known_ids
from streams.runtime.kafka import KafkaPort
from streams.runtime.ownership import Outcome
from streams.runtime.standby import Standby
from streams.symbols import Symbols
from tests.integration.kafka_log import Log
from tests.integration.test_runtime import (
    CHANGELOG,
    NAME,
    PARTITIONS,
    SETTINGS,
    TICKS,
    Market,
    Worker,
    same_as_inline,
)

KEYS = [f"K{number}".encode() for number in range(40)]


class Owner:
    """Owns partition 0 of a changelog, with copies in a folder; each new one is another process, as it were."""

    def __init__(self, stack: Endpoints, namespace: str, folder: Path | None) -> None:
        admin = AdminClient({"bootstrap.servers": stack.kafka})
        (self.id,) = known_ids(admin, [physical(namespace, CHANGELOG)])
        self.copies = None if folder is None else Copies(folder, self.id)
        self.port = KafkaPort(stack.kafka, namespace, copies=self.copies)
        self.port.fence(NAME, 0)
        self.state = dict(self.port.restore(NAME, 0))
        self.restored = self.port.restored[NAME, 0]

    def commit(self, rng: random.Random, times: int) -> None:
        for _ in range(times):
            changes = {key: rng.randbytes(50) for key in rng.sample(KEYS, 5)}
            changes = {POSITION_KEY: rng.randbytes(20), **changes}  # wherever it stands, it is written last
            assert self.port.commit(NAME, 0, changes) is Outcome.COMMITTED
            self.state |= changes

    def leave(self) -> None:
        if self.copies is not None:
            self.copies.close()


@pytest.fixture
def own(stack: Endpoints, namespace: str, codec: Codec, tmp_path: Path) -> Callable[..., Owner]:
    topics.create(stack.kafka, namespace, SETTINGS, codec)
    return lambda folder=tmp_path: Owner(stack, namespace, folder)


def test_of_the_changelog_only_the_rest_is_read(own: Callable[..., Owner]) -> None:
    rng, first = random.Random(1), own()
    assert first.restored == (0, 0, 0)
    first.commit(rng, 30)
    first.leave()
    other = own(None)  # an owner elsewhere, without copies
    assert (other.state, other.restored) == (first.state, (len(first.state), 0, 180))
    other.commit(rng, 2)

    again = own()
    assert again.state == other.state
    assert again.restored == (len(again.state), len(first.state), 1 + 12), (
        "its last position, and what came then"
    )
    again.commit(rng, 1)
    again.leave()
    last = own()
    assert (last.state, last.restored.records) == (again.state, 1)
    last.leave()


def test_a_copy_of_an_older_changelog_is_thrown_away(
    own: Callable[..., Owner], stack: Endpoints, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It was deleted and made again, and has as many records as the old one, and the same keys."""
    first = own()
    first.commit(random.Random(1), 20)
    first.leave()
    name = physical(namespace, CHANGELOG)
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    admin.delete_topics([name], operation_timeout=30)[name].result(30)
    new = NewTopic(name, TOPICS[CHANGELOG].partitions, 1, config=TOPICS[CHANGELOG].config)
    deadline = time.monotonic() + 30
    while True:
        try:
            admin.create_topics([new], operation_timeout=30)[name].result(30)
            break
        except ck.KafkaException:  # its deletion takes a moment
            assert time.monotonic() < deadline
            time.sleep(0.1)
    elsewhere = own(None)
    elsewhere.commit(random.Random(2), 20)

    again = own()
    assert again.id != first.id
    assert (again.state, again.restored.copied) == (elsewhere.state, 0)
    assert f"it is of the changelog {first.id}" in caplog.text
    again.leave()


def delete_first(admin: AdminClient, place: ck.TopicPartition) -> None:
    """Of a topic that was only compacted a moment ago: until the broker has heard of the change, it refuses."""
    deadline_s = time.monotonic() + 30
    while True:
        try:
            admin.delete_records([place])[place].result(30)
            return
        except ck.KafkaException as error:
            if error.args[0].code() != ck.KafkaError.POLICY_VIOLATION or time.monotonic() > deadline_s:
                raise
        time.sleep(0.05)


def test_a_copy_from_before_the_beginning_is_thrown_away(
    own: Callable[..., Owner], stack: Endpoints, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = own()
    first.commit(random.Random(1), 10)
    first.leave()
    elsewhere = own(None)
    elsewhere.commit(random.Random(2), 30)
    name, admin = physical(namespace, CHANGELOG), AdminClient({"bootstrap.servers": stack.kafka})
    both = ConfigEntry("cleanup.policy", "compact,delete", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[both])
    admin.incremental_alter_configs([resource])[resource].result(30)
    delete_first(admin, ck.TopicPartition(name, 0, 100))
    left, again = own(None), own()
    assert (again.state, again.restored.copied) == (left.state, 0)
    assert again.state != elsewhere.state
    assert "is thrown away: it ends at" in caplog.text
    again.leave()


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST*", "*.sst"])
def test_a_damaged_copy_is_thrown_away(own: Callable[..., Owner], tmp_path: Path, name: str) -> None:
    first = own()
    first.commit(random.Random(1), 10)
    first.leave()
    for file in (tmp_path / "0").glob(name):
        file.write_bytes(bytes(byte ^ 0x55 for byte in file.read_bytes()))
    again = own()
    assert (again.state, again.restored) == (first.state, (len(first.state), 0, 60))
    again.commit(random.Random(2), 1)
    again.leave()
    last = own()
    assert (last.state, last.restored.copied) == (again.state, len(again.state))
    last.leave()


def test_a_follower_has_what_the_owner_has_committed(
    own: Callable[..., Owner], stack: Endpoints, namespace: str, tmp_path: Path
) -> None:
    rng, owner = random.Random(1), own(None)
    owner.commit(rng, 20)
    copies = Copies(tmp_path, owner.id)
    standby = Standby(stack.kafka, physical(namespace, CHANGELOG), namespace, copies)
    standby.follow({0, 1})
    owner.commit(rng, 20)
    deadline = time.monotonic() + 30
    while True:
        heir = KafkaPort(stack.kafka, namespace, copies=copies)
        heir.fence(NAME, 0)
        assert heir.restore(NAME, 0) == owner.state
        if heir.restored[NAME, 0] == (len(owner.state), len(owner.state), 1):
            break
        assert time.monotonic() < deadline, heir.restored
        heir.release(NAME, 0)
        standby.follow({0, 1})
        time.sleep(0.5)
    # What it follows, it does not take from an owner, and goes on with once that has left.
    standby.follow({0, 1})
    assert heir.commit(NAME, 0, {b"more": b"1", POSITION_KEY: b"p"}) is Outcome.COMMITTED
    heir.release(NAME, 0)
    copies.close()


def test_when_an_owner_is_killed_another_goes_on_from_its_standby(
    stack: Endpoints, namespace: str, codec: Codec, log: Log, tmp_path: Path
) -> None:
    """Two workers, each with copies of all partitions; the results are those of one that nothing happened to."""
    topics.create(stack.kafka, namespace, SETTINGS, codec)
    config = RuntimeConfig(
        bootstrap=stack.kafka,
        registry=stack.registry,
        namespace=namespace,
        commit_interval_ms=200,
        session_timeout_ms=6_000,
        max_run_records=50,
        state_dir=str(tmp_path / "state"),
    )
    market = Market(stack, namespace, codec, random.Random(20131007))
    told = [tmp_path / "first.log", tmp_path / "second.log"]
    workers = [Worker(config, log, file) for file in told]
    try:
        owned = [wait_for_share(file) for file in told]
        assert sorted(owned[0] | owned[1]) == list(PARTITIONS)
        market.start()
        lost = max(
            owned[0], key=lambda partition: sum(partition_of(f"S{n}", 4) == partition for n in range(9))
        )
        workers[1].wait_for(min(owned[1]), 200)
        workers[0].wait_for(lost, 200)
        time.sleep(2.5)  # so that a copy has been written
        workers[0].kill()
        workers[1].wait_for(lost, log.committed(NAME, lost).position + 100)
        market.end()
        sources = [log.read(TICKS, partition) for partition in PARTITIONS]
        for partition, source in enumerate(sources):
            workers[1].wait_for(partition, source.end)
        assert workers[1].stop() == 0
    finally:
        market.end()
        for worker in workers:
            worker.kill()
    keys, copied, records = (int(n.replace(",", "")) for n in TOOK.findall(told[1].read_text())[-1])
    assert keys > 0
    assert copied == keys, "every key had been committed before"
    assert records < 600, "a second or two of a changelog that is much longer"
    same_as_inline(sources, {topic: list(log.entries(topic)) for topic in Symbols.writes}, codec)


TOOK = re.compile(r"took over .* s: ([\d,]+) keys, ([\d,]+) of them from local copies, ([\d,]+) records")


def wait_for_share(file: Path) -> set[int]:
    """The two partitions that a worker owns, once each has two."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        owned = re.findall(r"owns partitions \[(\d), (\d)\]", file.read_text())
        if owned:
            return {int(number) for number in owned[-1]}
        time.sleep(0.1)
    pytest.fail(file.read_text())
