"""The TimescaleDB sink from a real Kafka into a real database."""

from __future__ import annotations

import logging
import multiprocessing
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
import psycopg
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from sqlalchemy import make_url

from headrace.stack import Endpoints
from schemas.codec import Codec, RegistryUnavailable, UnknownSchema
from schemas.records import Bar, Command, Execution
from schemas.topics import TOPICS, physical
from sinks.timescale import (
    SINK_TOPICS,
    OutOfGroup,
    PositionLost,
    Progress,
    SinkSettings,
    TimescaleSink,
    TopicsMissing,
    migrate,
    queries,
)
from sinks.timescale.results import RESULTS
from sinks.timescale.writer import Partition, Taken, Writer
from streams.runtime.identity import known_ids
from tests.any_record import any_record

FAST = SinkSettings(batch_ms=20, max_backoff_ms=500, session_timeout_ms=6_000)


def unknown(schema: int) -> str:
    raise UnknownSchema(f"schema {schema}")


CODEC = Codec({name: number for number, name in enumerate(TOPICS, start=1)}, unknown)


@pytest.fixture
def database(stack: Endpoints, namespace: str) -> Iterator[str]:
    migrate(stack.database)
    yield stack.database
    with queries.connect(stack.database) as connection:
        queries.drop_run(connection, namespace)


@pytest.fixture
def kafka(stack: Endpoints, namespace: str) -> str:
    """The broker, with the sink's topics under the namespace."""
    topics = [
        NewTopic(physical(namespace, name), TOPICS[name].partitions, 1, config=TOPICS[name].config)
        for name in SINK_TOPICS
    ]
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    for future in admin.create_topics(topics).values():
        future.result()
    return stack.kafka


class Feed:
    """Writes values to the topics of a namespace."""

    def __init__(self, bootstrap: str, namespace: str) -> None:
        self._producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random"})
        self._namespace = namespace

    def raw(self, topic: str, key: str, value: bytes | None) -> None:
        self._producer.produce(
            physical(self._namespace, topic), value, key, on_delivery=lambda error, _: self._check(error)
        )
        self._producer.poll(0)

    def send(self, topic: str, *records: msgspec.Struct, keys: int = 1) -> None:
        """Send records under so many keys, and wait until Kafka has them."""
        for number, record in enumerate(records):
            self.raw(topic, f"k{number % keys}", CODEC.encode(topic, record))
        self._producer.flush()

    @staticmethod
    def _check(error: object) -> None:
        assert error is None


@pytest.fixture
def feed(kafka: str, namespace: str) -> Feed:
    return Feed(kafka, namespace)


@contextmanager
def running(sink: TimescaleSink, on_progress: Callable[[Progress], None] | None = None) -> Iterator[None]:
    """The sink in a thread; at the end it is told to stop, and what it raised is raised."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(sink.run, stop, on_progress)
        try:
            yield
        finally:
            stop.set()
            future.result(60)


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.05)


def drained(sink: TimescaleSink) -> Callable[[], bool]:
    return lambda: sink.lag() == 0


def rows(database: str, query: str, *arguments: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(database, options="-c timezone=UTC") as connection:
        return connection.execute(query, arguments).fetchall()


def test_every_result_topic_ends_in_its_table(feed: Feed, kafka: str, database: str, namespace: str) -> None:
    for result in RESULTS:
        records = [any_record(result.record, number) for number in range(5)]
        feed.send(result.topic, *records, *records[:2])
    feed.send("portfolio.events", any_record(Command))
    feed.raw("market.bars", "bad", b"\0\0\0\0\x63???")
    feed.raw("market.bars", "bad", CODEC.encode("market.bars", any_record(Bar, 9))[:-3])
    feed.raw("market.bars", "bad", None)
    feed.send("market.bars", any_record(Bar, 5))
    sink = TimescaleSink(FAST, kafka, database, namespace, CODEC.decode)
    seen: list[Progress] = []
    with running(sink, seen.append):
        until(drained(sink))
    with queries.connect(database) as connection:
        expected = {result.table.name: 5 for result in RESULTS} | {"market_bars": 6, "dead_letters": 8}
        assert queries.counts(connection, namespace) == expected
        assert queries.conflicts(connection, namespace) == 0
        letters = queries.dead_letters(connection, namespace)
    assert {key: count for key, count in letters.items() if key[0] == "sink"} == {
        ("sink", "UNKNOWN_SCHEMA"): 1,
        ("sink", "UNREADABLE"): 2,
    }
    assert seen[-1].rows == expected
    assert (seen[-1].repeats, seen[-1].conflicts) == (2 * len(RESULTS), 0)


def copy_until_killed(kafka: str, database: str, namespace: str, instance: str) -> None:
    settings = FAST.model_copy(update={"instance": instance, "batch_rows": 10})
    TimescaleSink(settings, kafka, database, namespace, CODEC.decode).run(threading.Event())


def test_kills_neither_lose_nor_double_a_row(feed: Feed, kafka: str, database: str, namespace: str) -> None:
    chance = random.Random(4)
    sink = TimescaleSink(FAST, kafka, database, namespace, CODEC.decode)
    spawn = multiprocessing.get_context("spawn")
    processes = {}
    sent = 0

    def start(instance: str) -> None:
        process = spawn.Process(target=copy_until_killed, args=(kafka, database, namespace, instance))
        process.start()
        processes[instance] = process

    def send_more() -> int:
        nonlocal sent
        numbers = range(sent, sent + 300)
        feed.send("market.bars", *(any_record(Bar, n) for n in numbers), keys=20)
        feed.send("trade.executions", *(any_record(Execution, n) for n in numbers), keys=7)
        sent = numbers.stop
        return sink.lag()

    try:
        for instance in ("a", "b"):
            start(instance)
        for _ in range(6):
            backlog = send_more()
            while not 0 < (lag := sink.lag()) < backlog:  # one of them is at work when the blow falls
                if lag == 0:
                    backlog = send_more()
            instance = chance.choice(("a", "b"))
            processes[instance].kill()
            processes[instance].join()
            start(instance)
        until(drained(sink), 90)
    finally:
        for process in processes.values():
            process.kill()
            process.join()
    bars = "select count(*), count(distinct (symbol, start)) from market_bars where run = %s"
    assert rows(database, bars, namespace) == [(sent, sent)]
    executions = "select count(*), count(distinct order_id) from trade_executions where run = %s"
    assert rows(database, executions, namespace) == [(sent, sent)]
    with queries.connect(database) as connection:
        assert queries.conflicts(connection, namespace) == 0
        offsets = queries.next_offsets(connection, namespace)
    totals: Counter[str] = Counter()
    for partition, offset in offsets.items():
        totals[partition.topic] += offset
    assert (totals["market.bars"], totals["trade.executions"]) == (sent, sent)


class Proxy:
    """A door to the database that can be shut."""

    def __init__(self, database: str) -> None:
        url = make_url(database)
        self._target = (url.host or "", url.port or 5432)
        self._door = socket.create_server(("127.0.0.1", 0))
        self._open = True
        self._pipes: list[socket.socket] = []
        self.url = url.set(host="127.0.0.1", port=self._door.getsockname()[1]).render_as_string(
            hide_password=False
        )
        threading.Thread(target=self._serve, daemon=True).start()

    def shut(self) -> None:
        self._open = False
        for pipe in self._pipes:
            with suppress(OSError):
                pipe.shutdown(socket.SHUT_RDWR)

    def open(self) -> None:
        self._open = True

    def close(self) -> None:
        self.shut()
        self._door.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._door.accept()
                if not self._open:
                    client.close()
                    continue
                server = socket.create_connection(self._target)
                self._pipes += [client, server]
                threading.Thread(target=self._pump, args=(client, server), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def test_an_outage_of_the_database_is_waited_out(
    feed: Feed, kafka: str, database: str, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="sinks")
    door = Proxy(database)
    door.shut()
    sink = TimescaleSink(FAST, kafka, door.url, namespace, CODEC.decode)
    lag = TimescaleSink(FAST, kafka, database, namespace, CODEC.decode).lag
    progress = Progress()

    def note(latest: Progress) -> None:
        nonlocal progress
        progress = latest

    feed.send("market.bars", *(any_record(Bar, number) for number in range(50)))
    with running(sink, note):
        until(lambda: progress.waiting_for is not None)
        door.open()
        until(lambda: lag() == 0)
        door.shut()
        feed.send("market.bars", *(any_record(Bar, number) for number in range(50, 100)))
        until(lambda: progress.waiting_for is not None)
        time.sleep(1)
        feed.send("market.bars", *(any_record(Bar, number) for number in range(100, 150)))
        door.open()
        until(lambda: lag() == 0)
    door.close()
    assert progress.rows["market_bars"] == 150
    assert rows(database, "select count(*) from market_bars where run = %s", namespace) == [(150,)]
    said = [record.getMessage().split(":")[0] for record in caplog.records]
    assert said == [f"the sink of {namespace} waits", f"the sink of {namespace} goes on"] * 2


def test_an_outage_of_the_registry_makes_no_dead_letter(
    feed: Feed, kafka: str, database: str, namespace: str
) -> None:
    answers = threading.Event()

    def decode(topic: str, value: bytes) -> Any:
        if not answers.is_set():
            raise RegistryUnavailable("connection refused")
        return CODEC.decode(topic, value)

    feed.send("market.bars", *(any_record(Bar, number) for number in range(20)))
    sink = TimescaleSink(FAST, kafka, database, namespace, decode)
    seen: list[str | None] = []
    with running(sink, lambda progress: seen.append(progress.waiting_for)):
        until(lambda: "connection refused" in seen)
        answers.set()
        until(drained(sink))
    assert rows(database, "select count(*) from market_bars where run = %s", namespace) == [(20,)]
    assert rows(database, "select count(*) from dead_letters where run = %s", namespace) == [(0,)]


def test_a_position_that_kafka_does_not_have_is_told(
    feed: Feed, kafka: str, database: str, namespace: str
) -> None:
    name = physical(namespace, "market.bars")
    admin = AdminClient({"bootstrap.servers": kafka})
    (topic_id,) = known_ids(admin, [name])  # waits: the broker may not know its new topic yet
    writer = Writer(database, namespace)
    writer.positions([Partition("market.bars", 0)], {"market.bars": topic_id})
    writer.write({Partition("market.bars", 0): [Taken(1_000, 0, None, None)]})
    writer.close()
    sink = TimescaleSink(FAST, kafka, database, namespace, CODEC.decode)
    with pytest.raises(PositionLost, match=namespace):
        sink.run(threading.Event())


def test_a_process_whose_name_another_has_taken_ends_and_the_other_does_its_work(
    feed: Feed, kafka: str, database: str, namespace: str
) -> None:
    """Otherwise it would stay, and be given nothing: its client can do no more, and says so in a callback only."""
    named = FAST.model_copy(update={"instance": "one-name"})
    first, second = (TimescaleSink(named, kafka, database, namespace, CODEC.decode) for _ in range(2))
    feed.send("market.bars", *(any_record(Bar, seed) for seed in range(5)))
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(first.run, threading.Event())
        until(drained(first))
        with running(second):
            with pytest.raises(OutOfGroup, match="give each its own"):
                ended.result(60)
            feed.send("market.bars", *(any_record(Bar, seed) for seed in range(5, 10)))
            until(drained(second))


def test_missing_topics_are_told(stack: Endpoints, database: str, namespace: str) -> None:
    sink = TimescaleSink(FAST, stack.kafka, database, namespace, CODEC.decode)
    with pytest.raises(TopicsMissing, match="headrace topics"):
        sink.run(threading.Event())
