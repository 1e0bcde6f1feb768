"""The TimescaleDB sink's writer, tables, migrations and queries on a real database."""

from __future__ import annotations

import multiprocessing
import random
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import msgspec
import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import make_url

from headrace.stack import Endpoints
from schemas.records import NEVER, Bar, DeadLetter, Equity, Execution, Regime, RiskAlert, Signal
from sinks.timescale import RunRemoved, migrate, queries, tables
from sinks.timescale.migrations import VERSION_TABLE
from sinks.timescale.results import RESULTS, Result
from sinks.timescale.writer import Partition, Taken, Writer
from tests.any_record import any_record

RESULT_OF = {result.record: result for result in RESULTS}
PLACE = Partition("market.bars", 0)
OTHER = Partition("market.bars", 1)
IDS = dict.fromkeys((result.topic for result in RESULTS), "one")


@pytest.fixture(scope="module")
def database(stack: Endpoints) -> Iterator[str]:
    """A new database whose schema several processes and threads brought up at once."""
    name = f"sink_{uuid.uuid4().hex[:8]}"
    url = make_url(stack.database).set(database=name).render_as_string(hide_password=False)
    with psycopg.connect(stack.database, autocommit=True) as admin:
        admin.execute(f"create database {name}")
        try:
            with multiprocessing.get_context("spawn").Pool(3) as processes:
                processes.map(migrate, [url] * 3, chunksize=1)
            with ThreadPoolExecutor(3) as threads:
                list(threads.map(migrate, [url] * 3))
            yield url
        finally:
            admin.execute(f"drop database {name} with (force)")


@pytest.fixture
def run() -> str:
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture
def writer(database: str, run: str) -> Iterator[Writer]:
    writer = Writer(database, run)
    writer.positions([PLACE], IDS)
    yield writer
    writer.close()


def rows(database: str, query: str, *arguments: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(database, options="-c timezone=UTC") as connection:
        return connection.execute(query, arguments).fetchall()


def taken(writer: Writer, offset: int, record: Any) -> Taken:
    result = RESULT_OF[type(record)]
    return Taken(offset, 0, b"key", b"value", result, writer.row(result, record))


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
    assert hypertables == sorted((result.table.name, result.time) for result in RESULTS)


def microseconds(value: Any) -> int:
    delta = value - value.__class__(1970, 1, 1, tzinfo=value.tzinfo)
    return int((delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds)


def as_stored(value: Any) -> Any:
    """What psycopg reads back for a record's value."""
    if isinstance(value, msgspec.Struct):
        return {name: as_stored(getattr(value, name)) for name in value.__struct_fields__}
    return [as_stored(item) for item in value] if isinstance(value, tuple) else value


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: result.table.name)
def test_every_field_comes_back_as_it_was(database: str, run: str, writer: Writer, result: Result) -> None:
    partition = Partition(result.topic, 1)
    record = any_record(result.record, 7)
    writer.positions([partition], IDS)
    writer.write({partition: [taken(writer, 0, record)]})
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


def test_odd_values_come_back(database: str, run: str, writer: Writer) -> None:
    alert = any_record(RiskAlert, 1, start=NEVER, event_time=NEVER, value=None, limit=None)
    signal = any_record(Signal, 1, figures={"strength": float("nan")})
    regime = any_record(Regime, 1, previous=None)
    letters = [
        any_record(DeadLetter, n, timestamp_ms=time) for n, time in enumerate((-(2**63), -1, 2**63 - 1))
    ]
    odd = (alert, signal, regime, *letters)
    assert writer.write({PLACE: [taken(writer, n, one) for n, one in enumerate(odd)]}).refused == 0
    assert rows(
        database, "select start::text, event_time::text, value from risk_alerts where run = %s", run
    ) == [("1900-01-01 00:00:00+00", "1900-01-01 00:00:00+00", None)]
    assert rows(
        database, "select (figures ->> 'strength')::float8::text from strategy_signals where run = %s", run
    ) == [("NaN",)]
    assert rows(database, "select previous from market_regimes where run = %s", run) == [(None,)]
    years = "select extract(year from time)::int from dead_letters where run = %s order by time"
    assert rows(database, years, run) == [(1900,), (1969,), (9999,)]


def test_what_the_database_refuses_costs_its_neighbours_nothing(
    database: str, run: str, writer: Writer
) -> None:
    long = "".join(random.Random(1).choices("abcdefghijkl", k=20_000))
    bad = {
        3: any_record(Bar, 3, symbol="A\0B"),
        5: any_record(Bar, 5, start=NEVER + 1),
        6: any_record(Bar, 6, first_tick="\0"),
        8: any_record(Bar, 8, symbol=long),
    }
    written = writer.write({PLACE: [taken(writer, n, bad.get(n, any_record(Bar, n))) for n in range(10)]})
    assert (written.rows, written.refused) == ({"market_bars": 6, "dead_letters": 4}, 4)
    letters = rows(
        database,
        'select stage, reason, input, key, value from dead_letters where run = %s order by "offset"',
        run,
    )
    assert letters == [("sink", "BAD_ROW", f"market.bars/0/{n}", b"key", b"value") for n in bad]


def test_a_repeat_is_dropped_and_one_that_differs_is_reported(
    database: str, run: str, writer: Writer
) -> None:
    first = any_record(Bar, 1)
    other = msgspec.structs.replace(first, close=9.0)
    written = writer.write({PLACE: [taken(writer, n, one) for n, one in enumerate((first, first, other))]})
    assert (written.rows, written.repeats, written.conflicts) == ({"market_bars": 1}, 2, 1)
    written = writer.write({PLACE: [taken(writer, 3 + n, one) for n, one in enumerate((other, first))]})
    assert (written.rows, written.repeats, written.conflicts) == ({"market_bars": 0}, 2, 1)
    assert rows(database, "select close from market_bars where run = %s", run) == [(first.close,)]
    told = "select table_name, held -> 'close', copy -> 'close' from sink_conflicts where run = %s"
    assert rows(database, told, run) == [("market_bars", first.close, 9.0)] * 2


def test_a_copy_with_another_time_is_still_a_copy(database: str, run: str, writer: Writer) -> None:
    first = any_record(Execution, 1)
    months_later = msgspec.structs.replace(first, event_time=first.event_time + 100 * 86_400_000_000)
    written = writer.write({PLACE: [taken(writer, 0, first), taken(writer, 1, months_later)]})
    assert (written.rows, written.conflicts) == ({"trade_executions": 1}, 1)
    written = writer.write({PLACE: [taken(writer, 2, months_later), taken(writer, 3, first)]})
    assert (written.rows, written.repeats, written.conflicts) == ({"trade_executions": 0}, 2, 1)


def test_a_dead_letter_may_come_again_from_another_place(database: str, run: str, writer: Writer) -> None:
    first = any_record(DeadLetter, 1)
    again = msgspec.structs.replace(
        first, offset=99, timestamp_ms=first.timestamp_ms + 5, error="in other words"
    )
    changed = msgspec.structs.replace(again, value=b"else")
    written = writer.write({PLACE: [taken(writer, n, one) for n, one in enumerate((first, again, changed))]})
    assert (written.rows, written.repeats, written.conflicts) == ({"dead_letters": 1}, 2, 1)


def test_a_zombie_doubles_nothing(database: str, run: str) -> None:
    zombie, owner = Writer(database, run), Writer(database, run)
    zombie.positions([PLACE], IDS)
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


def test_writers_at_once_take_each_record_once(database: str, run: str) -> None:
    writers = [Writer(database, run) for _ in range(3)]
    together = threading.Barrier(len(writers))

    def write(name: int) -> int:
        writer, records = writers[name], 0
        writer.positions([PLACE, OTHER], IDS)
        for end in range(20, 220, 20):
            # Rows of each writer's own, so that nothing but the offsets can keep them apart.
            bars = [taken(writer, n, any_record(Bar, n, symbol=f"{name}")) for n in range(end)]
            more = [taken(writer, n, any_record(Bar, n, symbol=f"{name}", ordinal=-1)) for n in range(end)]
            together.wait(30)
            records += writer.write(
                {PLACE: bars, OTHER: more} if name else {OTHER: more, PLACE: bars}
            ).records
        writer.close()
        return records

    with ThreadPoolExecutor(len(writers)) as threads:
        assert sum(threads.map(write, range(len(writers)))) == 2 * 200
    assert rows(database, "select count(*) from market_bars where run = %s", run) == [(400,)]


def test_a_commit_without_an_answer_may_be_tried_again(database: str, run: str, writer: Writer) -> None:
    batch = {PLACE: [taken(writer, n, any_record(Bar, n)) for n in range(3)]}
    writer.write(batch)
    again = writer.write(batch)
    assert (again.records, again.repeats) == (0, 0)


def test_a_removed_run_ends_its_sink(database: str, run: str, writer: Writer) -> None:
    batch = {PLACE: [taken(writer, 0, any_record(Bar, 0))]}
    writer.write(batch)
    with queries.connect(database) as connection:
        queries.drop_run(connection, run)
        assert set(queries.counts(connection, run).values()) == {0}
    with pytest.raises(RunRemoved, match=run):
        writer.write(batch)


def test_the_summary_reads_what_was_written(database: str, run: str, writer: Writer) -> None:
    curve = [
        any_record(Equity, n, portfolio="alpha", epoch=1, equity=Decimal(100 + n), fills=n) for n in range(3)
    ]
    fill = any_record(Execution, 1, portfolio="alpha", strategy="momentum")
    denied = any_record(Execution, 2, portfolio="alpha", strategy="momentum", last_quantity=Decimal(0))
    writer.write({PLACE: [taken(writer, n, record) for n, record in enumerate([*curve, fill, denied])]})
    with queries.connect(database) as connection:
        (account,) = queries.accounts(connection, run)
        assert (account.portfolio, account.equity, account.fills) == ("alpha", Decimal(102), 2)
        assert [equity for _, equity in queries.equity_curve(connection, run, "alpha")] == [100, 101, 102]
        assert microseconds(queries.equity_curve(connection, run, "alpha")[0][0]) == curve[0].end
        assert queries.fills(connection, run) == {("alpha", "momentum"): 1}
        assert sum(queries.order_states(connection, run).values()) == 2


def test_a_database_of_a_newer_build_is_left_as_it_is(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An older process that is started again while a newer one has begun must not end at it."""
    (held,) = rows(database, f"select version_num from {VERSION_TABLE}")
    set_version = f"update {VERSION_TABLE} set version_num = %s returning 1"
    rows(database, set_version, "9999")
    try:
        migrate(database)
        assert rows(database, f"select version_num from {VERSION_TABLE}") == [("9999",)]
        assert "step 9999, of a newer build" in caplog.text
    finally:
        rows(database, set_version, *held)
    migrate(database)
