"""Which records of which topics become rows of which tables."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from sqlalchemy import Column, Table, UniqueConstraint

from schemas import records
from schemas.codec import identity_of
from schemas.records import Record
from sinks.timescale import tables


class Result:
    """What a topic's records of one kind become: rows of ``table``, a hypertable over ``time``.

    ``identity`` names the columns that make a row unique within a run; ``compared`` those in which a second
    copy must equal the row held.
    """

    def __init__(
        self,
        topic: str,
        record: type[Record],
        table: Table,
        *,
        time: str = "start",
        ignored: frozenset[str] = frozenset(),
    ) -> None:
        self.topic = topic
        self.record = record
        self.table = table
        self.time = time
        self._ignored = ignored

    @cached_property
    def columns(self) -> tuple[Column[Any], ...]:
        """The columns that come from the record, in order: all but ``run``."""
        return tuple(column for column in self.table.columns if column.name != "run")

    @cached_property
    def unique(self) -> tuple[str, ...]:
        """The columns of the unique constraint, without ``run``."""
        (constraint,) = (c for c in self.table.constraints if isinstance(c, UniqueConstraint))
        return tuple(column.name for column in constraint.columns if column.name != "run")

    @cached_property
    def identity(self) -> tuple[str, ...]:
        """The identity's columns; fewer than ``unique`` where only TimescaleDB wants the time in there."""
        return identity_of(self.record)

    @cached_property
    def compared(self) -> tuple[str, ...]:
        """The columns in which a second copy must equal the row held."""
        skipped = {*self.identity, *self._ignored}
        return tuple(column.name for column in self.columns if column.name not in skipped)


RESULTS = (
    Result("market.bars", records.Bar, tables.bars),
    Result("market.regimes", records.Regime, tables.regimes),
    Result("market.regimes.hmm", records.HmmRegime, tables.hmm_regimes),
    Result("market.ticks.late", records.LateTick, tables.late_ticks, time="event_time"),
    Result("market.correlations", records.Correlations, tables.correlations),
    Result("portfolio.events", records.Snapshot, tables.snapshots),
    Result("risk.metrics", records.RiskMetrics, tables.risk_metrics),
    Result("risk.alerts", records.RiskAlert, tables.risk_alerts, time="event_time"),
    Result("strategy.signals", records.Signal, tables.signals),
    Result("trade.executions", records.Execution, tables.executions, time="event_time"),
    Result("trade.positions", records.Position, tables.positions, time="event_time"),
    Result("trade.equity", records.Equity, tables.equity),
    Result(
        "system.dead_letters",
        records.DeadLetter,
        tables.dead_letters,
        time="time",
        # A feed that sends a bad record again does so from another place, and errors are words.
        ignored=frozenset({"error", "partition", "offset", "time"}),
    ),
)
"""Every result that the sink stores. Other kinds of its topics (commands, settings) are no results."""
