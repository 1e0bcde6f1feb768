"""Both sessions of real trades in full, all the way from the file to TimescaleDB, however the run is cut or killed."""

from __future__ import annotations

import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
import sqlalchemy as sa

from connectors.files import FilesSettings, TradesFile
from connectors.messages import Message
from headrace import topics
from headrace.compare import Results
from headrace.stack import Endpoints
from schemas.codec import decode_body
from schemas.partitioner import partition_of
from schemas.records import Equity, Execution, Position, Record
from schemas.topics import GROUP_PARTITIONS, SYMBOL_PARTITIONS
from sinks.timescale import queries, tables
from tests import database, pipeline
from tests.acceptance.books import CENT, Books
from tests.accuracy.minute_bars import FIELDS, Bars, MinuteBar, differences, minute_bars
from tests.integration.test_end_to_end import check, real_settings
from tests.pipeline import AGENTS, KafkaRun, inline

Figures = dict[str, Any]
R = TypeVar("R", bound=Record)

KILLS = 10
"""Of each kind of process: the three agents, the sink, the connector."""
PACE = 4_000
"""Ticks a second while processes are killed: half an hour of trading in two seconds or so."""
FILLS = 50


class Oracle(NamedTuple):
    """The inline run, and how many records its input is in market.ticks."""

    results: Results
    ticks: int
    records: int


class Session(NamedTuple):
    """A run over Kafka that has come to its end."""

    results: Results
    namespace: str


@pytest.fixture(scope="module", autouse=True)
def patience() -> Iterator[None]:
    """These runs take minutes by design."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "DEADLINE_S", 1_200.0)
        yield


@pytest.fixture(scope="module")
def oracle(trades: Path, figures: Figures) -> Oracle:
    ticks = records = 0

    def counted() -> Iterator[Message]:
        nonlocal ticks, records
        for message in TradesFile(trades, FilesSettings()).messages():
            ticks += message.record is not None
            records += 1 if message.record is not None else SYMBOL_PARTITIONS
            yield message

    began_s = time.monotonic()
    results = inline(real_settings(), counted())
    took_s = time.monotonic() - began_s
    figures["sessions, ticks"] = ticks
    figures["sessions, inline, seconds"] = round(took_s, 1)
    return Oracle(results, ticks, records)


@contextmanager
def namespace_of_our_own(stack: Endpoints) -> Iterator[str]:
    """Its topics and rows are removed afterwards."""
    name = f"a{uuid.uuid4().hex[:12]}"
    try:
        yield name
    finally:
        topics.delete(stack.kafka, name)
        with queries.connect(stack.database) as connection:
            queries.drop_run(connection, tables.run_of(name))


@pytest.fixture(scope="module")
def session(
    stack: Endpoints, trades: Path, tmp_path_factory: pytest.TempPathFactory, figures: Figures
) -> Iterator[Session]:
    """One run over Kafka into the database, as fast as it goes."""
    with namespace_of_our_own(stack) as namespace:
        began_s = time.monotonic()
        with KafkaRun(stack, namespace, real_settings(), tmp_path_factory.mktemp("plain")) as run:
            run.start(["files", str(trades)])
            run.wait_for_ingest()
            run.settle()
            figures["sessions, over Kafka, seconds"] = round(time.monotonic() - began_s, 1)
            results = run.results()
        yield Session(results, namespace)


def of(results: Results, topic: str, kind: type[R], key: str) -> list[R]:
    """A topic's records under one key, in their order."""
    records = (decode_body(topic, body) for body, _ in results.sequences[topic, key].values())
    return [record for record in records if isinstance(record, kind)]


def test_the_sessions_are_what_they_should_be(oracle: Oracle) -> None:
    settings = real_settings()
    assert oracle.ticks > 1_000_000
    for names in ([u.name for u in settings.universes], [p.name for p in settings.portfolios]):
        assert len({partition_of(name, GROUP_PARTITIONS) for name in names}) == 2
    used = {partition_of(symbol, SYMBOL_PARTITIONS) for symbol in settings.universes[0].symbols}
    assert len(used) == 2, "two partitions without a symbol test the barrier"


def test_over_kafka_as_inline(stack: Endpoints, oracle: Oracle, session: Session, figures: Figures) -> None:
    check(session.results, oracle.results)
    assert database.mismatches(stack.database, session.namespace, oracle.results) == []
    with queries.connect(stack.database) as connection:
        run = tables.run_of(session.namespace)
        assert queries.conflicts(connection, run) == 0
        figures["sessions, rows in TimescaleDB"] = queries.counts(connection, run)


def test_every_minute_bar_in_the_database_is_that_of_pandas(
    stack: Endpoints, session: Session, trades: Path, oracle: Oracle, figures: Figures
) -> None:
    reference = minute_bars(trades)
    assert sum(bar.count for bar in reference.values()) == oracle.ticks
    bars = bars_in(stack, session.namespace)
    assert differences(bars, reference) == []
    figures["sessions, 1m bars equal to pandas"] = len(bars)


def bars_in(stack: Endpoints, namespace: str) -> Bars:
    """The 1-minute bars that the database holds of a run."""
    bars = tables.bars
    query = sa.select(bars.c.symbol, bars.c.start, *(bars.c[name] for name in FIELDS)).where(
        bars.c.run == tables.run_of(namespace), bars.c.kind == "time:1m"
    )
    found: Bars = {}
    with queries.connect(stack.database) as connection:
        for symbol, start, *figures in connection.execute(query):
            key = symbol, int((start - database.EPOCH).total_seconds()) * 1_000_000
            assert key not in found, f"a second bar {key}"
            found[key] = MinuteBar(*figures)
    return found


def test_each_strategy_trades_and_has_a_curve(stack: Endpoints, session: Session, figures: Figures) -> None:
    run = tables.run_of(session.namespace)
    with queries.connect(stack.database) as connection:
        filled = queries.fills(connection, run)
        for portfolio in real_settings().portfolios:
            curve = queries.equity_curve(connection, run, portfolio.name)
            assert len({equity for _, equity in curve}) > FILLS
    by_strategy: Counter[str] = Counter()
    for (_, strategy), count in filled.items():
        by_strategy[strategy] += count
    assert set(by_strategy) == {s.name for p in real_settings().portfolios for s in p.strategies}
    assert min(by_strategy.values()) >= FILLS
    figures["sessions, fills"] = {" ".join(key): count for key, count in filled.items()}


@pytest.mark.parametrize("number", range(2))
def test_cash_positions_and_profit_add_up_from_the_fills(
    number: int, session: Session, trades: Path, figures: Figures
) -> None:
    """To the cent after every snapshot, with closes from the file itself; units of positions exactly."""
    spec = real_settings().record().portfolios[number]
    bars = iter(sorted((start, key, bar.close) for (key, start), bar in minute_bars(trades).items()))
    fills = iter(
        [e for e in of(session.results, "trade.executions", Execution, spec.name) if e.last_quantity]
    )
    books, closes = Books(spec.cash), dict[str, float]()
    bar, fill = next(bars, None), next(fills, None)
    equities = of(session.results, "trade.equity", Equity, spec.name)
    for told in equities:
        while fill is not None and fill.start <= told.start:
            books.take(fill)
            fill = next(fills, None)
        while bar is not None and bar[0] <= told.start:
            closes[bar[1]] = bar[2]
            bar = next(bars, None)
        unrealised = books.unrealised(closes)
        for amount, own in (
            (told.cash, books.cash),
            (told.fees, books.fees),
            (told.realised, books.realised),
            (told.unrealised, unrealised),
            (told.equity, books.cash + books.value(closes)),
        ):
            assert abs(Fraction(amount) - own) <= CENT, told
        profit = books.realised + unrealised - books.fees
        assert abs(Fraction(told.equity) - Fraction(spec.cash) - profit) <= CENT, told
    assert fill is None, "a fill after the last snapshot"
    last = {
        position.symbol: position for position in of(session.results, "trade.positions", Position, spec.name)
    }
    assert {symbol: Fraction(position.quantity) for symbol, position in last.items()} == dict(books.quantity)
    figures[f"sessions, {spec.name}"] = (
        f"equity {equities[-1].equity:.2f} {spec.currency} of {spec.cash}, "
        f"adds up at {len(equities)} snapshots"
    )


def test_two_processes_and_other_run_sizes(
    stack: Endpoints, tmp_path: Path, trades: Path, oracle: Oracle, figures: Figures
) -> None:
    with namespace_of_our_own(stack) as namespace:
        began_s = time.monotonic()
        shape: dict[str, Any] = {"processes": 2, "max_run_records": 977}
        with KafkaRun(stack, namespace, real_settings(), tmp_path, **shape) as run:
            run.start(["files", str(trades)])
            run.wait_for_ingest()
            run.settle()
            figures["sessions, two processes per agent, seconds"] = round(time.monotonic() - began_s, 1)
            check(run.results(), oracle.results)
            assert run.fleet_restarts() == 0
        assert database.mismatches(stack.database, namespace, oracle.results) == []


def test_ten_kills_of_every_kind_of_process(
    stack: Endpoints, tmp_path: Path, trades: Path, oracle: Oracle, figures: Figures
) -> None:
    with namespace_of_our_own(stack) as namespace:
        began_s = time.monotonic()
        with KafkaRun(stack, namespace, real_settings(), tmp_path, max_run_records=2_000) as run:
            run.start(["files", str(trades), "--rate", str(PACE)])
            for victim, offsets in plan(oracle.records):
                run.kill_when_reached(victim, offsets)
            run.wait_for_ingest()
            run.settle()
            took_s = time.monotonic() - began_s
            results = run.results()
            killed = Counter(kill.victim for kill in run.kills)
            lags = [kill.lag for kill in run.kills if kill.lag is not None]
            figures["sessions, with kills, seconds"] = round(took_s, 1)
            figures["sessions, kills"] = dict(killed)
            figures["sessions, copies of outputs after kills"] = results.copies
            figures["sessions, records behind when an agent was killed"] = f"{min(lags)} to {max(lags)}"
            assert set(killed.values()) == {KILLS}
            assert len(killed) == 5
            assert min(lags) > 0
            assert run.kills[-1].offsets < oracle.records, "the last kill came after the end"
            assert run.fleet_restarts() >= 5 * KILLS
            check(results, oracle.results)
        assert database.mismatches(stack.database, namespace, oracle.results) == []
        with queries.connect(stack.database) as connection:
            assert queries.conflicts(connection, tables.run_of(namespace)) == 0


def plan(records: int) -> Iterator[tuple[str, int]]:
    """Whom to kill at how many records of market.ticks: every kind once in each tenth of the run, in seeded order."""
    rng = random.Random(5)
    victims = [*(f"{name}-0" for name in AGENTS), "sink", "ingest"]
    step = 0.92 / (KILLS * len(victims))
    for kill in range(KILLS):
        for place, victim in enumerate(rng.sample(victims, len(victims))):
            at = 0.02 + step * (kill * len(victims) + place + 0.5 * rng.random())
            yield victim, int(at * records)
