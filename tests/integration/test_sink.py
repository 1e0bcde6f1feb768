"""The TimescaleDB sink on a real Kafka and a real database."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import random
import signal
import socket
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from sqlalchemy import make_url

from schemas.codec import Codec, RegistryUnavailable, UnknownSchema
from schemas.records import NEVER, Bar, Command, DeadLetter, Equity, Execution, Regime, RiskAlert, Signal
from schemas.topics import TOPICS, physical
from sinks.timescale import (
    SINK_TOPICS,
    PositionLost,
    Progress,
    RunRemoved,
    SinkSettings,
    TimescaleSink,
    TopicsMissing,
    migrate,
    queries,
    tables,
)
from sinks.timescale.migrations import VERSION_TABLE
from sinks.timescale.writer import Partition, Taken, Writer
from tests.any_record import any_record

FAST = SinkSettings(batch_ms=20, max_backoff_ms=500, session_timeout_ms=6_000)
RESULT_OF = {result.record: result for result in tables.RESULTS}
BARS = RESULT_OF[Bar]
EXECUTIONS = RESULT_OF[Execution]
PLACE = Partition("market.bars", 0)


def unknown(schema: int) -> str:
    raise UnknownSchema(f"schema {schema}")


CODEC = Codec({name: number for number, name in enumerate(TOPICS, start=1)}, unknown)


@pytest.fixture(scope="module")
def endpoints() -> dict[str, str]:
    path = os.environ.get("HEADRACE_TEST_ENDPOINTS")
    if path is None:
        pytest.skip("HEADRACE_TEST_ENDPOINTS names no stack")
    loaded: dict[str, str] = json.loads(Path(path).read_text())
    return loaded


@pytest.fixture(scope="module")
def empty_database(endpoints: dict[str, str]) -> Iterator[str]:
    name = f"sink_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(endpoints["database"], autocommit=True) as admin:
        admin.execute(f"create database {name}")
        yield make_url(endpoints["database"]).set(database=name).render_as_string(hide_password=False)
        admin.execute(f"drop database {name} with (force)")


@pytest.fixture(scope="module")
def database(empty_database: str) -> str:
    """A database whose schema several processes brought up at once."""
    with multiprocessing.get_context("spawn").Pool(3) as processes:
        processes.map(migrate, [empty_database] * 3, chunksize=1)
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(migrate, [empty_database] * 3))
    return empty_database


@pytest.fixture
def run() -> str:
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture
def kafka(endpoints: dict[str, str], run: str) -> Iterator[str]:
    """The broker, with the sink's topics under the namespace ``run``."""
    admin = AdminClient({"bootstrap.servers": endpoints["kafka"]})
    topics = [
        NewTopic(physical(run, name), TOPICS[name].partitions, 1, config=TOPICS[name].config)
        for name in SINK_TOPICS
    ]
    for future in admin.create_topics(topics).values():
        future.result()
    yield endpoints["kafka"]
    admin.delete_topics([topic.topic for topic in topics])


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

    def send(self, topic: str, *records: msgspec.Struct, key: str = "k") -> None:
        for record in records:
            self.raw(topic, key, CODEC.encode(topic, record))
        self._producer.flush()

    @staticmethod
    def _check(error: object) -> None:
        assert error is None


@pytest.fixture
def feed(kafka: str, run: str) -> Feed:
    return Feed(kafka, run)


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
        return connection.execute(query, arguments).fetchall()  # type: ignore[call-overload,no-any-return]


def taken(writer: Writer, offset: int, record: Any) -> Taken:
    result = RESULT_OF[type(record)]
    return Taken(offset, 0, b"key", b"value", result, writer.row(result, record))


# --- schema


def test_the_migrations_make_the_tables_that_the_code_writes(database: str) -> None:
    with queries.connect(database) as connection:
        context = MigrationContext.configure(
            connection,
            opts={"version_table": VERSION_TABLE, "compare_type": True, "compare_server_default": True},
        )
        assert compare_metadata(context, tables.metadata) == []
    hypertables = rows(
        database, "select hypertable_name, column_name from timescaledb_information.dimensions order by 1"
    )
    assert hypertables == sorted((result.table.name, result.time) for result in tables.RESULTS)


# --- what a record becomes


def microseconds(value: Any) -> int:
    delta = value - value.__class__(1970, 1, 1, tzinfo=value.tzinfo)
    return int((delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds)


def as_stored(value: Any) -> Any:
    """What psycopg reads back for a record's value."""
    if isinstance(value, msgspec.Struct):
        return {name: as_stored(getattr(value, name)) for name in value.__struct_fields__}
    return [as_stored(item) for item in value] if isinstance(value, tuple) else value


@pytest.mark.parametrize("result", tables.RESULTS, ids=lambda result: result.table.name)
def test_every_field_comes_back_as_it_was(database: str, run: str, result: tables.Result) -> None:
    writer = Writer(database, run)
    partition = Partition(result.topic, 1)
    record = any_record(result.record, 7)
    writer.positions([partition])
    writer.write({partition: [taken(writer, 0, record)]})
    writer.close()
    columns = ", ".join(f'"{column.name}"' for column in result.columns)
    ((*stored,),) = rows(database, f"select {columns} from {result.table.name} where run = %s", run)
    for column, value in zip(result.columns, stored, strict=True):
        field = column.info["field"]
        expected: Any = record
        for name in field.split("."):
            expected = getattr(expected, name)
        if hasattr(value, "tzinfo"):
            scale = 1000 if field.endswith("_ms") else 1
            assert microseconds(value) == expected * scale, field
        else:
            assert value == as_stored(expected), field


def test_odd_values_come_back(database: str, run: str) -> None:
    writer = Writer(database, run)
    writer.positions([PLACE])
    alert = any_record(RiskAlert, 1, start=NEVER, event_time=NEVER, value=None, limit=None)
    signal = any_record(Signal, 1, figures={"strength": float("nan")})
    regime = any_record(Regime, 1, previous=None)
    writer.write({PLACE: [taken(writer, n, record) for n, record in enumerate((alert, signal, regime))]})
    writer.close()
    assert rows(
        database, "select start::text, event_time::text, value from risk_alerts where run = %s", run
    ) == [("1900-01-01 00:00:00+00", "1900-01-01 00:00:00+00", None)]
    assert rows(
        database, "select (figures ->> 'strength')::float8::text from strategy_signals where run = %s", run
    ) == [("NaN",)]
    assert rows(database, "select previous from market_regimes where run = %s", run) == [(None,)]


def test_what_the_database_refuses_costs_its_neighbours_nothing(database: str, run: str) -> None:
    bad = {
        3: any_record(Bar, 3, symbol="A\0B"),
        5: any_record(Bar, 5, start=NEVER + 1),
        6: any_record(Bar, 6, first_tick="\0"),
        8: any_record(Bar, 8, symbol="".join(random.Random(1).choices("abcdefghijkl", k=20_000))),
    }
    writer = Writer(database, run)
    writer.positions([PLACE])
    written = writer.write({PLACE: [taken(writer, n, bad.get(n, any_record(Bar, n))) for n in range(10)]})
    writer.close()
    assert (written.rows, written.refused) == ({"market_bars": 6, "dead_letters": 4}, 4)
    letters = rows(
        database,
        'select stage, reason, input, key, value from dead_letters where run = %s order by "offset"',
        run,
    )
    assert letters == [("sink", "BAD_ROW", f"market.bars/0/{n}", b"key", b"value") for n in bad]


# --- repeats


def test_a_repeat_is_dropped_and_one_that_differs_is_reported(database: str, run: str) -> None:
    writer = Writer(database, run)
    writer.positions([PLACE])
    first = any_record(Bar, 1)
    other = msgspec.structs.replace(first, close=9.0)
    written = writer.write({PLACE: [taken(writer, n, one) for n, one in enumerate((first, first, other))]})
    assert (written.rows, written.repeats, written.conflicts) == ({"market_bars": 1}, 2, 1)
    written = writer.write({PLACE: [taken(writer, 3 + n, one) for n, one in enumerate((other, first))]})
    assert (written.rows, written.repeats, written.conflicts) == ({"market_bars": 0}, 2, 1)
    writer.close()
    assert rows(database, "select close from market_bars where run = %s", run) == [(first.close,)]
    assert (
        rows(
            database,
            "select table_name, held -> 'close', copy -> 'close' from sink_conflicts where run = %s",
            run,
        )
        == [("market_bars", first.close, 9.0)] * 2
    )


def test_a_copy_with_another_time_is_still_a_copy(database: str, run: str) -> None:
    writer = Writer(database, run)
    writer.positions([PLACE])
    first = any_record(Execution, 1)
    months_later = msgspec.structs.replace(first, event_time=first.event_time + 100 * 86_400_000_000)
    written = writer.write({PLACE: [taken(writer, 0, first), taken(writer, 1, months_later)]})
    assert (written.rows, written.conflicts) == ({"trade_executions": 1}, 1)
    written = writer.write({PLACE: [taken(writer, 2, months_later), taken(writer, 3, first)]})
    assert (written.rows, written.repeats, written.conflicts) == ({"trade_executions": 0}, 2, 1)
    writer.close()


def test_a_dead_letter_may_come_again_from_another_place(database: str, run: str) -> None:
    writer = Writer(database, run)
    writer.positions([PLACE])
    first = any_record(DeadLetter, 1)
    again = msgspec.structs.replace(
        first, offset=99, timestamp_ms=first.timestamp_ms + 5, error="in other words"
    )
    changed = msgspec.structs.replace(again, value=b"else")
    written = writer.write({PLACE: [taken(writer, n, one) for n, one in enumerate((first, again, changed))]})
    writer.close()
    assert (written.rows, written.repeats, written.conflicts) == ({"dead_letters": 1}, 2, 1)


# --- once, whoever writes


def test_a_zombie_doubles_nothing(database: str, run: str) -> None:
    zombie, owner = Writer(database, run), Writer(database, run)
    zombie.positions([PLACE])
    batch = {PLACE: [taken(zombie, n, any_record(Bar, n)) for n in range(10)]}
    assert owner.write({PLACE: batch[PLACE][:6]}).records == 6
    # Other rows than the owner's, to see that the offsets alone hold the zombie off.
    late = {PLACE: [taken(zombie, n, any_record(Bar, 100 + n)) for n in range(6)] + batch[PLACE][6:8]}
    assert zombie.write(late).records == 2
    assert owner.write({PLACE: batch[PLACE][6:]}).records == 2
    owner.close()
    zombie.close()
    assert rows(database, "select count(*) from market_bars where run = %s", run) == [(10,)]
    with queries.connect(database) as connection:
        assert queries.next_offsets(connection, run) == {PLACE: 10}


def test_a_commit_without_an_answer_may_be_tried_again(database: str, run: str) -> None:
    writer = Writer(database, run)
    writer.positions([PLACE])
    batch = {PLACE: [taken(writer, n, any_record(Bar, n)) for n in range(3)]}
    writer.write(batch)
    again = writer.write(batch)
    writer.close()
    assert (again.records, again.repeats) == (0, 0)


def test_a_removed_run_ends_its_sink(database: str, run: str) -> None:
    writer = Writer(database, run)
    writer.positions([PLACE])
    batch = {PLACE: [taken(writer, 0, any_record(Bar, 0))]}
    writer.write(batch)
    with queries.connect(database) as connection:
        queries.drop_run(connection, run)
        assert set(queries.counts(connection, run).values()) == {0}
    with pytest.raises(RunRemoved, match=run):
        writer.write(batch)
    writer.close()


# --- the whole way


def test_every_result_topic_ends_in_its_table(
    feed: Feed, kafka: str, database: str, run: str, endpoints: dict[str, str]
) -> None:
    for result in tables.RESULTS:
        records = [any_record(result.record, number) for number in range(5)]
        feed.send(result.topic, *records, *records[:2])
    feed.send("portfolio.events", any_record(Command))
    feed.raw("market.bars", "bad", b"\0\0\0\0\x63???")
    feed.raw("market.bars", "bad", CODEC.encode("market.bars", any_record(Bar, 9))[:-3])
    feed.raw("market.bars", "bad", None)
    feed.send("market.bars", any_record(Bar, 5), key="bad")
    sink = TimescaleSink(FAST, kafka, database, run, CODEC.decode)
    seen: list[Progress] = []
    with running(sink, seen.append):
        until(drained(sink))
    with queries.connect(database) as connection:
        expected = {result.table.name: 5 for result in tables.RESULTS} | {"market_bars": 6, "dead_letters": 8}
        assert queries.counts(connection, run) == expected
        assert queries.conflicts(connection, run) == 0
        letters = queries.dead_letters(connection, run)
    assert {key: count for key, count in letters.items() if key[0] == "sink"} == {
        ("sink", "UNKNOWN_SCHEMA"): 1,
        ("sink", "UNREADABLE"): 2,
    }
    assert seen[-1].rows == expected
    assert (seen[-1].repeats, seen[-1].conflicts) == (2 * len(tables.RESULTS), 0)


def copy_until_killed(kafka: str, database: str, namespace: str, instance: str) -> None:
    settings = FAST.model_copy(update={"instance": instance, "batch_rows": 50})
    TimescaleSink(settings, kafka, database, namespace, CODEC.decode).run(threading.Event())


def test_kills_neither_lose_nor_double_a_row(feed: Feed, kafka: str, database: str, run: str) -> None:
    chance = random.Random(4)
    sink = TimescaleSink(FAST, kafka, database, run, CODEC.decode)
    spawn = multiprocessing.get_context("spawn")
    processes = {}
    bars = kills = killed_in_work = 0

    def start(instance: str) -> None:
        process = spawn.Process(target=copy_until_killed, args=(kafka, database, run, instance))
        process.start()
        processes[instance] = process

    for instance in ("a", "b"):
        start(instance)
    try:
        while kills < 10:
            for _ in range(300):
                feed.send("market.bars", any_record(Bar, bars), key=f"{bars % 20}")
                feed.send("trade.executions", any_record(Execution, bars), key=f"{bars % 7}")
                bars += 1
            time.sleep(chance.random() * 0.5)
            instance = chance.choice(("a", "b"))
            with suppress(psycopg.Error):
                killed_in_work += sink.lag() > 0
            os.kill(processes[instance].pid, signal.SIGKILL)  # type: ignore[arg-type]
            processes[instance].join()
            kills += 1
            start(instance)
        until(drained(sink), 90)
    finally:
        for process in processes.values():
            process.kill()
            process.join()
    assert killed_in_work >= 5
    found = rows(
        database, "select count(*), count(distinct (symbol, start)) from market_bars where run = %s", run
    )
    assert found == [(bars, bars)]
    assert rows(database, "select count(*) from trade_executions where run = %s", run) == [(bars,)]
    with queries.connect(database) as connection:
        assert queries.conflicts(connection, run) == 0
        offsets = queries.next_offsets(connection, run)
    totals: defaultdict[str, int] = defaultdict(int)
    for partition, offset in offsets.items():
        totals[partition.topic] += offset
    assert (totals["market.bars"], totals["trade.executions"]) == (bars, bars)


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
    feed: Feed, kafka: str, database: str, run: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="sinks")
    door = Proxy(database)
    door.shut()
    sink = TimescaleSink(FAST, kafka, door.url, run, CODEC.decode)
    lag = TimescaleSink(FAST, kafka, database, run, CODEC.decode).lag
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
    assert rows(database, "select count(*) from market_bars where run = %s", run) == [(150,)]
    said = [record.getMessage().split(":")[0] for record in caplog.records]
    assert said == [f"the sink of {run} waits", f"the sink of {run} goes on"] * 2


def test_an_outage_of_the_registry_makes_no_dead_letter(
    feed: Feed, kafka: str, database: str, run: str
) -> None:
    answers = threading.Event()

    def decode(topic: str, value: bytes) -> Any:
        if not answers.is_set():
            raise RegistryUnavailable("connection refused")
        return CODEC.decode(topic, value)

    feed.send("market.bars", *(any_record(Bar, number) for number in range(20)))
    sink = TimescaleSink(FAST, kafka, database, run, decode)
    seen: list[str | None] = []
    with running(sink, lambda progress: seen.append(progress.waiting_for)):
        until(lambda: "connection refused" in seen)
        answers.set()
        until(drained(sink))
    assert rows(database, "select count(*) from market_bars where run = %s", run) == [(20,)]
    assert rows(database, "select count(*) from dead_letters where run = %s", run) == [(0,)]


def test_a_position_that_kafka_does_not_have_is_told(feed: Feed, kafka: str, database: str, run: str) -> None:
    writer = Writer(database, run)
    writer.positions([PLACE])
    writer.write({PLACE: [Taken(1_000, 0, None, None)]})
    writer.close()
    sink = TimescaleSink(FAST, kafka, database, run, CODEC.decode)
    with pytest.raises(PositionLost, match=run):
        sink.run(threading.Event())


def test_missing_topics_are_told(endpoints: dict[str, str], database: str, run: str) -> None:
    sink = TimescaleSink(FAST, endpoints["kafka"], database, run, CODEC.decode)
    with pytest.raises(TopicsMissing, match="headrace topics"):
        sink.run(threading.Event())


def test_the_summary_reads_what_was_written(database: str, run: str) -> None:
    writer = Writer(database, run)
    writer.positions([PLACE])
    curve = [
        any_record(Equity, n, portfolio="alpha", epoch=1, equity=Decimal(100 + n), fills=n) for n in range(3)
    ]
    fill = any_record(Execution, 1, portfolio="alpha", strategy="momentum")
    denied = any_record(Execution, 2, portfolio="alpha", strategy="momentum", last_quantity=Decimal(0))
    writer.write({PLACE: [taken(writer, n, record) for n, record in enumerate([*curve, fill, denied])]})
    writer.close()
    with queries.connect(database) as connection:
        (account,) = queries.accounts(connection, run)
        assert (account.portfolio, account.equity, account.fills) == ("alpha", Decimal(102), 2)
        assert [equity for _, equity in queries.equity_curve(connection, run, "alpha")] == [100, 101, 102]
        assert microseconds(queries.equity_curve(connection, run, "alpha")[0][0]) == curve[0].end
        assert queries.fills(connection, run) == {("alpha", "momentum"): 1}
        assert sum(queries.order_states(connection, run).values()) == 2
