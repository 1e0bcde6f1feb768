"""Connectors against a real Kafka: what arrives, where, and what a kill or a full queue does to it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from typer.testing import CliRunner

from connectors import sender as sending
from connectors.errors import DeliveryFailed, KafkaUnreachable, TopicMissing
from connectors.files import TradesFile
from connectors.messages import BEGINNING, Message, Position
from connectors.progress import ProgressFile
from connectors.sender import Pace, Progress, Sender
from connectors.simulator import Simulation, SimulatorSettings
from headrace import topics
from headrace.cli.ingest import SourceUndeclared, app
from headrace.pipeline import MarketPart, PipelineSettings, SourcePart
from headrace.stack import Endpoints
from schemas.codec import decode_body, encode_body
from schemas.partitioner import partition_of
from schemas.records import DeadLetter, Tick
from schemas.topics import TOPICS, physical
from streams.runtime import registry

MARKET = SimulatorSettings(symbols=("A", "B", "C", "D", "E"), minutes=10, ticks_per_minute=100.0)
PARTITIONS = TOPICS["market.ticks"].partitions


@pytest.fixture
def bootstrap(stack: Endpoints, namespace: str) -> str:
    """The broker, with the topics that connectors write under the test's namespace."""
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    topics = [
        NewTopic(physical(namespace, topic), TOPICS[topic].partitions, 1, config=TOPICS[topic].config)
        for topic in (sending.TICKS, sending.DEAD_LETTERS)
    ]
    for future in admin.create_topics(topics).values():
        future.result()
    return stack.kafka


class Arrived(NamedTuple):
    """One record as it stands in a partition."""

    partition: int
    key: str | None
    value: bytes | None
    timestamp_ms: int
    source: str | None


def read(bootstrap: str, topic: str) -> list[list[Arrived]]:
    """All records of a topic, by partition."""
    reader = ck.Consumer(
        {"bootstrap.servers": bootstrap, "group.id": uuid.uuid4().hex, "enable.partition.eof": True}
    )
    count = len(reader.list_topics(topic, timeout=20).topics[topic].partitions)
    reader.assign([ck.TopicPartition(topic, partition, 0) for partition in range(count)])
    found: list[list[Arrived]] = [[] for _ in range(count)]
    ended = set[int]()  # a set: the end of one partition may be told twice
    while len(ended) < count:
        for record in reader.consume(1000, 1.0):
            if record.error():
                assert record.error().code() == ck.KafkaError._PARTITION_EOF, record.error()
                ended.add(record.partition())
                continue
            headers = dict(record.headers() or [])
            key = record.key()
            found[record.partition()].append(
                Arrived(
                    record.partition(),
                    None if key is None else key.decode(),
                    record.value(),
                    record.timestamp()[1],
                    headers["source"].decode() if "source" in headers else None,
                )
            )
    reader.close()
    return found


def expected(messages: Iterable[Message]) -> list[list[Arrived]]:
    """What the messages are to become, partition by partition."""
    found: list[list[Arrived]] = [[] for _ in range(PARTITIONS)]
    for message in messages:
        ms = message.time_us // 1000
        if message.is_clock:
            for partition in range(PARTITIONS):
                found[partition].append(Arrived(partition, None, None, ms, message.source))
        elif isinstance(message.record, Tick):
            partition = partition_of(message.record.symbol, PARTITIONS)
            value = encode_body("market.ticks", message.record)
            found[partition].append(Arrived(partition, message.key, value, ms, None))
    return found


def assert_same(arrived: list[list[Arrived]], wanted: list[list[Arrived]]) -> None:
    """Equal, or the first difference of each partition: the whole lists would fill a log by themselves."""
    for partition, (came, meant) in enumerate(zip(arrived, wanted, strict=True)):
        first = next(
            (at for at, pair in enumerate(zip(came, meant, strict=False)) if pair[0] != pair[1]), None
        )
        if first is not None or len(came) != len(meant):
            at = min(len(came), len(meant)) if first is None else first
            missing, extra = set(meant) - set(came), set(came) - set(meant)
            pytest.fail(
                f"partition {partition}: {len(came)} records arrived, {len(meant)} were meant, "
                f"{len(missing)} missing, {len(extra)} extra; from {at}: {came[at : at + 3]} for {meant[at : at + 3]}"
            )


def seen_in_order(records: list[Arrived]) -> list[tuple[bytes, int]]:
    """The first copy of each tick and the clock in force there: all that an agent makes of a partition."""
    seen, clock, found = set[bytes](), -1, []
    for record in records:
        if record.value is None:
            clock = max(clock, record.timestamp_ms)
        elif record.value not in seen:
            seen.add(record.value)
            found.append((record.value, clock))
    return found


def test_ticks_and_clocks_arrive_where_they_belong(bootstrap: str, namespace: str) -> None:
    simulation = Simulation(MARKET)
    reports: list[Progress] = []
    counts = Sender(bootstrap, namespace, encode_body).run(simulation.messages(), report=reports.append)
    messages = list(simulation.messages())
    assert_same(read(bootstrap, physical(namespace, "market.ticks")), expected(messages))
    assert (counts.ticks, counts.clocks) == (
        sum(not m.is_clock for m in messages),
        sum(m.is_clock for m in messages),
    )
    last = reports[-1]
    assert last.outstanding == 0
    assert last.acknowledged == Position(counts.ticks, messages[-1].time_us, finished=True)


def test_bad_rows_arrive_as_dead_letters(bootstrap: str, namespace: str, tmp_path: Path) -> None:
    path = tmp_path / "trades.csv"
    path.write_text(
        "ts,symbol,price,size\n1381132800464,A,1.5,1\n1381132800465,A,cheap,1\n1381132800466,B,2.5,1\n"
    )
    file = TradesFile(path)
    counts = Sender(bootstrap, namespace, encode_body).run(file.messages())
    assert (counts.ticks, counts.dead_letters) == (2, 1)
    (letter,) = [
        record for part in read(bootstrap, physical(namespace, "system.dead_letters")) for record in part
    ]
    assert (letter.key, letter.timestamp_ms) == ("trades.csv", 1381132800000)
    decoded = decode_body("system.dead_letters", letter.value or b"")
    assert isinstance(decoded, DeadLetter)
    assert (decoded.input, decoded.value) == (f"{file.session}:3", b"1381132800465,A,cheap,1")


def test_a_full_queue_only_slows_down(bootstrap: str, namespace: str) -> None:
    small = {"queue.buffering.max.messages": 50}
    Sender(bootstrap, namespace, encode_body, small).run(Simulation(MARKET).messages())
    assert_same(read(bootstrap, physical(namespace, "market.ticks")), expected(Simulation(MARKET).messages()))


def test_a_rate_is_kept_and_a_stop_leaves_a_position_to_go_on_from(bootstrap: str, namespace: str) -> None:
    simulation = Simulation(MARKET)
    stop, reports = threading.Event(), list[Progress]()

    def report(progress: Progress) -> None:
        reports.append(progress)
        if progress.counts.ticks > 300:
            stop.set()

    begun = time.monotonic()
    counts = Sender(bootstrap, namespace, encode_body).run(
        simulation.messages(), pace=Pace(rate=250.0), report=report, stop=stop
    )
    assert 300 < counts.ticks <= 250 * (time.monotonic() - begun) + 1
    position = reports[-1].acknowledged
    assert (position.sequence, position.finished) == (counts.ticks, False)
    Sender(bootstrap, namespace, encode_body).run(simulation.messages(position), start=position)
    assert_same(read(bootstrap, physical(namespace, "market.ticks")), expected(simulation.messages()))


def send_slowly(bootstrap: str, namespace: str, folder: Path) -> None:
    """A connector as its own process, for a kill."""
    simulation = Simulation(MARKET)
    sender = Sender(bootstrap, namespace, encode_body)
    file = progress_file(sender, simulation, folder)
    sender.run(
        simulation.messages(file.load()),
        pace=Pace(rate=500.0),
        start=file.load(),
        report=lambda progress: file.save(progress.acknowledged),
    )


def progress_file(sender: Sender, simulation: Simulation, folder: Path) -> ProgressFile:
    return ProgressFile(
        folder, topic=sender.topic, topic_id=sender.topic_id, source="simulator", session=simulation.session
    )


def test_killed_twice_nothing_is_lost_and_repeats_are_the_same_ticks(
    bootstrap: str, namespace: str, tmp_path: Path
) -> None:
    simulation = Simulation(MARKET)
    ticks = physical(namespace, "market.ticks")
    file = progress_file(Sender(bootstrap, namespace, encode_body), simulation, tmp_path)
    spawn = multiprocessing.get_context("spawn")
    reached = 0
    for _ in range(2):
        process: Any = spawn.Process(target=send_slowly, args=(bootstrap, namespace, tmp_path))
        process.start()
        before, deadline = file.load(), time.monotonic() + 60
        while file.load() == before:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.4)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        position = file.load()
        assert reached < position.sequence
        assert not position.finished
        reached = position.sequence
    sender = Sender(bootstrap, namespace, encode_body)
    sender.run(simulation.messages(position), start=position)
    arrived, whole = read(bootstrap, ticks), expected(simulation.messages())
    assert sum(map(len, arrived)) > sum(map(len, whole))  # the kills came between progress and what was sent
    assert [seen_in_order(part) for part in arrived] == [seen_in_order(part) for part in whole]


def test_what_kafka_refuses_ends_the_run_before_it_counts(bootstrap: str) -> None:
    name = f"t{uuid.uuid4().hex[:10]}"
    admin = AdminClient({"bootstrap.servers": bootstrap})
    topic = NewTopic(physical(name, "market.ticks"), 1, 1, config={"max.message.bytes": "2000"})
    for future in admin.create_topics([topic]).values():
        future.result()
    sent: list[Position] = []
    huge = Tick(
        symbol="A", source="s", sequence=2, event_time=1, price=1.0, size=1.0, trade_id=os.urandom(5000).hex()
    )
    with pytest.raises(DeliveryFailed, match="size"):
        Sender(bootstrap, name, encode_body).run(
            iter([Message("A", huge, 1, "s")]), report=lambda progress: sent.append(progress.acknowledged)
        )
    assert set(sent) <= {BEGINNING}
    admin.delete_topics([topic.topic])


def test_a_broker_that_answers_and_takes_nothing_ends_the_run(
    bootstrap: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a librdkafka that has lost a leader for good: here its records go where no broker is."""
    monkeypatch.setattr(sending, "_STUCK_AFTER", 3)
    progress: list[Progress] = []
    sender = Sender(bootstrap, namespace, encode_body, {"bootstrap.servers": "127.0.0.1:9"})
    with pytest.raises(DeliveryFailed, match="has taken nothing for 3 s"):
        sender.run(Simulation(MARKET).messages(), report=progress.append)
    assert progress[-1].acknowledged == BEGINNING


def test_what_is_missing_is_named(bootstrap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "_KNOWN_WITHIN_S", 0.3)
    with pytest.raises(TopicMissing, match=r"headrace topics create"):
        Sender(bootstrap, "nowhere", encode_body)
    monkeypatch.setattr(sending, "START_TIMEOUT_S", 0.5)
    with pytest.raises(KafkaUnreachable, match=r"127\.0\.0\.1:9"):
        Sender("127.0.0.1:9", "nowhere", encode_body)


def test_the_command_goes_on_where_it_was_stopped(stack: Endpoints, namespace: str, tmp_path: Path) -> None:
    trades = tmp_path / "trades.csv"
    lines = [f"{1381132800464 + 100 * number},A,1.5,1" for number in range(20_000)]
    trades.write_text("\n".join(["ts,symbol,price,size", *lines]))
    sources = (SourcePart(name="files"),)
    settings = PipelineSettings(market=MarketPart(sources=sources))
    topics.create(stack.kafka, namespace, settings.record(), registry.codec(stack.registry, namespace))
    environment = {
        **os.environ,
        "HEADRACE_NAMESPACE": namespace,
        "HEADRACE_KAFKA__BOOTSTRAP": stack.kafka,
        "HEADRACE_REGISTRY__URL": stack.registry,
        "HEADRACE_DATABASE__URL": stack.database,
        "HEADRACE_STACK__DATA_DIR": str(tmp_path / "data"),
        "HEADRACE_PIPELINE": settings.model_dump_json(),
    }

    def ingest(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "headrace", "ingest", "files", str(trades), *arguments]
        return subprocess.Popen(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def wait_for_progress() -> None:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("data/ingest/*.json")):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    stopped = ingest("--rate", "500")
    wait_for_progress()
    stopped.terminate()
    assert "interrupted" in stopped.communicate(timeout=60)[0]
    assert stopped.returncode == 128 + signal.SIGTERM
    second = ingest()
    told = second.communicate(timeout=60)[0]
    assert "goes on behind" in told
    assert second.returncode == 0
    again = CliRunner().invoke(app, ["files", str(trades)], env=environment)
    assert "sent before" in again.output
    foreign = CliRunner().invoke(app, ["files", str(trades), "--source", "alpaca"], env=environment)
    assert isinstance(foreign.exception, SourceUndeclared)
    quotes = trades.with_name("quotes.csv")
    quotes.write_text("ts,symbol,bid,ask\n1381132800464,A,1.5,1.75\n")
    undeclared = CliRunner().invoke(app, ["files", str(quotes)], env=environment)
    assert isinstance(undeclared.exception, SourceUndeclared)
    assert "pipeline.market.quotes" in str(undeclared.exception)
    arrived = read(stack.kafka, physical(namespace, "market.ticks"))
    records = [record for part in arrived for record in part]
    assert len({record.value for record in records if record.key == "A"}) == len(lines)
    assert len([record for record in records if record.key == "A"]) == len(lines)
