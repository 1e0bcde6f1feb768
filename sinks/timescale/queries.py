"""What the database holds of a run; and how to remove it.

Every question takes a connection of `connect` and the run's name (`sinks.timescale.tables.run_of` a
namespace). Times are datetimes in UTC.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, create_engine, delete, func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.pool import NullPool

from sinks.timescale import tables
from sinks.timescale.results import RESULTS
from sinks.timescale.settings import sqlalchemy_url
from sinks.timescale.writer import Partition


class Account(NamedTuple):
    """A portfolio's last word on its cash; amounts in its currency."""

    portfolio: str
    epoch: int
    end: datetime
    equity: Decimal
    cash: Decimal
    realised: Decimal
    unrealised: Decimal
    fees: Decimal
    fills: int
    open_orders: int
    state: str


class Holding(NamedTuple):
    """A symbol's position after its last fill."""

    portfolio: str
    symbol: str
    quantity: Decimal
    average_cost: Decimal
    realised: Decimal
    fees: Decimal


@contextmanager
def connect(database_url: str) -> Iterator[Connection]:
    """A connection in a transaction, which is committed at the end. Times come in UTC.

    Raises `sqlalchemy.exc.OperationalError` where the database is away.
    """
    engine = create_engine(
        sqlalchemy_url(database_url), poolclass=NullPool, connect_args={"options": "-c timezone=UTC"}
    )
    with engine.begin() as connection:
        yield connection


def counts(connection: Connection, run: str) -> dict[str, int]:
    """Rows of the run in each result table."""
    found: dict[str, int] = {}
    for result in RESULTS:
        table = result.table
        found[table.name] = connection.scalar(select(func.count()).where(table.c.run == run)) or 0
    return found


def conflicts(connection: Connection, run: str) -> int:
    """Copies that differ from the record held under their identity: above 0, something is broken."""
    return connection.scalar(select(func.count()).where(tables.conflicts.c.run == run)) or 0


def accounts(connection: Connection, run: str) -> list[Account]:
    """Each portfolio after its last snapshot, by name."""
    t = tables.equity
    query = (
        select(*(t.c[name] for name in Account._fields))
        .ext(distinct_on(t.c.portfolio))
        .where(t.c.run == run)
        .order_by(t.c.portfolio, t.c.epoch.desc(), t.c.start.desc())
    )
    return [Account(*row) for row in connection.execute(query)]


def holdings(connection: Connection, run: str) -> list[Holding]:
    """Each position after its last fill, by portfolio and symbol; those closed again have quantity 0."""
    t = tables.positions
    query = (
        select(*(t.c[name] for name in Holding._fields))
        .ext(distinct_on(t.c.portfolio, t.c.symbol))
        .where(t.c.run == run)
        .order_by(
            t.c.portfolio,
            t.c.symbol,
            t.c.epoch.desc(),
            t.c.event_time.desc(),
            t.c.order_id,
            t.c.sequence.desc(),
        )
    )
    return [Holding(*row) for row in connection.execute(query)]


def equity_curve(connection: Connection, run: str, portfolio: str) -> list[tuple[datetime, Decimal]]:
    """A portfolio's equity at the end of each snapshot of its last epoch, in order."""
    t = tables.equity
    last = select(func.max(t.c.epoch)).where(t.c.run == run, t.c.portfolio == portfolio).scalar_subquery()
    query = (
        select(t.c["end"], t.c.equity)
        .where(t.c.run == run, t.c.portfolio == portfolio, t.c.epoch == last)
        .order_by(t.c.start)
    )
    return [(end, equity) for end, equity in connection.execute(query)]


def fills(connection: Connection, run: str) -> dict[tuple[str, str], int]:
    """Fills, partial ones too, by portfolio and strategy."""
    t = tables.executions
    query = (
        select(t.c.portfolio, t.c.strategy, func.count())
        .where(t.c.run == run, t.c.last_quantity != 0)
        .group_by(t.c.portfolio, t.c.strategy)
        .order_by(t.c.portfolio, t.c.strategy)
    )
    return {(portfolio, strategy): count for portfolio, strategy, count in connection.execute(query)}


def order_states(connection: Connection, run: str) -> dict[str, int]:
    """Events of orders by the state they led to."""
    return _count_by(connection, run, tables.executions, "state")


def regimes(connection: Connection, run: str) -> dict[str, int]:
    """Verdicts by label, those before the warm-up left out."""
    return _count_by(connection, run, tables.regimes, "label", tables.regimes.c.warm)


def bars(connection: Connection, run: str) -> dict[str, int]:
    """Bars by kind."""
    return _count_by(connection, run, tables.bars, "kind")


def dead_letters(connection: Connection, run: str) -> dict[tuple[str, str], int]:
    """Dead letters by stage and reason."""
    t = tables.dead_letters
    query = (
        select(t.c.stage, t.c.reason, func.count())
        .where(t.c.run == run)
        .group_by(t.c.stage, t.c.reason)
        .order_by(t.c.stage, t.c.reason)
    )
    return {(stage, reason): count for stage, reason, count in connection.execute(query)}


def next_offsets(connection: Connection, run: str) -> dict[Partition, int]:
    """Where the run's sink goes on in each partition that it has begun."""
    t = tables.offsets
    rows = connection.execute(select(t.c.topic, t.c.partition, t.c.next_offset).where(t.c.run == run))
    return {Partition(topic, partition): offset for topic, partition, offset in rows}


def drop_run(connection: Connection, run: str) -> None:
    """Remove all that the database holds of a run. A sink that still writes to it ends with `RunRemoved`."""
    for table in (tables.offsets, tables.conflicts, *(result.table for result in RESULTS)):
        connection.execute(delete(table).where(table.c.run == run))


def _count_by(
    connection: Connection, run: str, table: Table, column: str, *where: ColumnElement[bool]
) -> dict[str, int]:
    key = table.c[column]
    query = select(key, func.count()).where(table.c.run == run, *where).group_by(key).order_by(key)
    return dict(connection.execute(query).all())
