"""The tables, one per result topic: a column per field of the record, under the field's name.

What every table has in common:

- ``run`` first: ``live``, or the namespace of a demo, a test or a replay.
- Times are ``timestamptz`` with microseconds; `schemas.records.NEVER` is 1900-01-01. A dead
  letter's, which is Kafka's and may be any number, is kept within 1900 and 9999.
- Decimals are ``numeric(28, 9)``, lists are arrays, maps and lists of records are ``jsonb``. JSON knows no
  NaN and no infinity: they are the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, which ``(x ->>
  'key')::float8`` reads.
- Records inside a record are flattened where people ask for them (``info["field"]`` tells where a column
  comes from).
- It is a hypertable over `sinks.timescale.results.Result.time`. TimescaleDB wants that column in every unique
  constraint, so the constraint is the run, the identity, and the time where the identity lacks it; the writer
  then holds the identity alone unique.

``end``, ``limit`` and ``offset`` are SQL keywords: quote them in queries of your own.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.types import TypeEngine

LIVE = "live"
"""The run of the empty namespace."""

metadata = MetaData()

_TIME = TIMESTAMP(timezone=True)
_DECIMAL = Numeric(28, 9)


def run_of(namespace: str) -> str:
    """The value of the ``run`` column for a namespace."""
    return namespace or LIVE


def _column(
    name: str, kind: TypeEngine[Any] | type[TypeEngine[Any]], field: str | None = None
) -> Column[Any]:
    return Column(name, kind, nullable=False, info={"field": field or name})


def _since(
    name: str, kind: TypeEngine[Any] | type[TypeEngine[Any]], default: str, field: str | None = None
) -> Column[Any]:
    """A column that came later: with a default in the database, since older builds still write without it."""
    info = {"field": field or name}
    return Column(name, kind, nullable=False, server_default=text(default), info=info)


def _optional(
    name: str, kind: TypeEngine[Any] | type[TypeEngine[Any]], field: str | None = None
) -> Column[Any]:
    return Column(name, kind, nullable=True, info={"field": field or name})


def _table(name: str, *columns: Column[Any], unique: tuple[str, ...]) -> Table:
    return Table(
        name,
        metadata,
        Column("run", Text, nullable=False),
        *columns,
        UniqueConstraint("run", *unique, name=f"{name}_identity"),
    )


bars = _table(
    "market_bars",
    _column("symbol", Text),
    _column("kind", Text),
    _column("start", _TIME),
    _column("end", _TIME),
    _column("ordinal", BigInteger),
    _column("open", Double),
    _column("high", Double),
    _column("low", Double),
    _column("close", Double),
    _column("volume", Double),
    _column("vwap", Double),
    _column("count", BigInteger),
    _column("buy_volume", Double),
    _column("sell_volume", Double),
    _column("first_tick", Text),
    _column("last_tick", Text),
    _column("settings", BigInteger),
    unique=("symbol", "kind", "start", "ordinal"),
)

regimes = _table(
    "market_regimes",
    _column("symbol", Text),
    _column("kind", Text),
    _column("start", _TIME),
    _column("end", _TIME),
    _column("ordinal", BigInteger),
    _column("label", Text),
    _optional("previous", Text),
    _column("bars_since_change", BigInteger),
    _column("warm", Boolean),
    _column("probabilities", JSONB),
    _column("atr", Double, "indicators.atr"),
    _column("atr_slow", Double, "indicators.atr_slow"),
    _column("adx", Double, "indicators.adx"),
    _column("plus_di", Double, "indicators.plus_di"),
    _column("minus_di", Double, "indicators.minus_di"),
    _column("band_middle", Double, "indicators.band_middle"),
    _column("band_upper", Double, "indicators.band_upper"),
    _column("band_lower", Double, "indicators.band_lower"),
    _column("band_width", Double, "indicators.band_width"),
    _column("close", Double),
    _column("classifier", Text),
    _column("settings", BigInteger),
    unique=("symbol", "kind", "start", "ordinal"),
)

hmm_regimes = _table(
    "market_regimes_hmm",
    _column("universe", Text),
    _column("symbol", Text),
    _column("start", _TIME),
    _column("end", _TIME),
    _column("label", Text),
    _column("probabilities", JSONB),
    _column("fit", BigInteger),
    _column("settings", BigInteger),
    _optional("previous", Text),
    _since("bars_since_change", BigInteger, "0"),
    _since("expected_duration", Double, "0"),
    _since("states", ARRAY(Text), "'{}'"),
    _since("transition", ARRAY(Double), "'{}'"),
    _since("features", JSONB, "'{}'"),
    _since("log_likelihood", Double, "0"),
    _since("fit_converged", Boolean, "true"),
    unique=("universe", "start", "symbol"),
)

late_ticks = _table(
    "market_ticks_late",
    _column("symbol", Text),
    _column("name", Text),
    _column("source", Text, "tick.source"),
    _column("session", Text, "tick.session"),
    _optional("sequence", BigInteger, "tick.sequence"),
    _column("event_time", _TIME, "tick.event_time"),
    _column("price", Double, "tick.price"),
    _column("size", Double, "tick.size"),
    _column("exchange", Text, "tick.exchange"),
    _column("conditions", BigInteger, "tick.conditions"),
    _column("suspicious", Boolean, "tick.suspicious"),
    _optional("trade_id", Text, "tick.trade_id"),
    _optional("aggressor", Text, "tick.aggressor"),
    _column("kinds", ARRAY(Text)),
    _column("mark", _TIME),
    _column("reason", Text),
    unique=("symbol", "name", "event_time"),
)

correlations = _table(
    "market_correlations",
    _column("universe", Text),
    _column("start", _TIME),
    _column("end", _TIME),
    _column("kind", Text),
    _column("model", Text),
    _optional("fit", BigInteger),
    _column("warm", Boolean),
    _column("observations", BigInteger),
    _column("symbols", ARRAY(Text)),
    _column("stale", ARRAY(Boolean)),
    _column("volatilities", ARRAY(Double)),
    _column("correlations", ARRAY(Double)),
    _column("average_correlation", Double),
    _column("settings", BigInteger),
    _since("eigenvalues", ARRAY(Double), "'{}'"),
    _since("explained", ARRAY(Double), "'{}'"),
    _since("diversification_ratio", Double, "1"),
    _since("effective_bets", Double, "1"),
    _optional("fit_age_us", BigInteger),
    _optional("fit_converged", Boolean),
    _since("fit_status", Text, "''"),
    _optional("log_likelihood", Double),
    _optional("hmm_fit", BigInteger),
    _since("unfitted", ARRAY(Text), "'{}'"),
    _since("clipped", Integer, "0"),
    _since("tail_dependence", ARRAY(Double), "'{}'"),
    _since("stress_correlations", ARRAY(Double), "'{}'"),
    _since("stress_window", ARRAY(BigInteger), "'{}'"),
    unique=("universe", "start"),
)

snapshots = _table(
    "snapshots",
    _column("portfolio", Text),
    _column("universe", Text),
    _column("start", _TIME),
    _column("end", _TIME),
    _column("kind", Text),
    _column("rows", JSONB),
    _column("warm", Boolean),
    _column("model", Text),
    _optional("fit", BigInteger),
    _column("covariance", ARRAY(Double)),
    _column("settings", BigInteger),
    unique=("portfolio", "start"),
)

risk_metrics = _table(
    "risk_metrics",
    _column("portfolio", Text),
    _column("epoch", Integer),
    _column("start", _TIME),
    _column("end", _TIME),
    _column("equity", Double),
    _column("gross", Double),
    _column("net", Double),
    _column("leverage", Double),
    _column("volatility", Double),
    _column("confidence", Double),
    _column("value_at_risk", Double),
    _column("conditional_value_at_risk", Double),
    _column("drawdown", Double),
    _column("daily_loss", Double),
    _column("warm", Boolean),
    _column("state", Text),
    _column("exposures", JSONB),
    _column("settings", BigInteger),
    unique=("portfolio", "epoch", "start"),
)

risk_alerts = _table(
    "risk_alerts",
    _column("portfolio", Text),
    _column("epoch", Integer),
    _column("id", Text),
    _column("kind", Text),
    _column("start", _TIME),
    _column("ordinal", BigInteger),
    _column("event_time", _TIME),
    _column("previous", Text),
    _column("state", Text),
    _optional("limit", Text),
    _optional("value", _DECIMAL),
    _optional("figure", _DECIMAL),
    _optional("command_id", Text),
    _column("message", Text),
    unique=("portfolio", "epoch", "id", "event_time"),
)

signals = _table(
    "strategy_signals",
    _column("portfolio", Text),
    _column("epoch", Integer),
    _column("start", _TIME),
    _column("end", _TIME),
    _column("strategy", Text),
    _column("symbol", Text),
    _column("weight", Double),
    _column("order_type", Text),
    _optional("limit_price", _DECIMAL),
    _column("good_for", Integer),
    _column("reason", Text),
    _column("figures", JSONB),
    _column("settings", BigInteger),
    unique=("portfolio", "epoch", "start", "strategy", "symbol"),
)

executions = _table(
    "trade_executions",
    _column("portfolio", Text),
    _column("epoch", Integer),
    _column("order_id", Text),
    _column("sequence", Integer),
    _column("state", Text),
    _column("strategy", Text),
    _column("symbol", Text),
    _column("side", Text),
    _column("order_type", Text),
    _column("quantity", _DECIMAL),
    _optional("limit_price", _DECIMAL),
    _column("last_quantity", _DECIMAL),
    _optional("last_price", _DECIMAL),
    _column("fee", _DECIMAL),
    _column("slippage", _DECIMAL),
    _column("filled", _DECIMAL),
    _optional("average_price", _DECIMAL),
    _column("decided_on", _TIME),
    _column("start", _TIME),
    _column("ordinal", BigInteger),
    _column("event_time", _TIME),
    _column("reason", Text),
    _optional("limit", Text),
    _optional("value", _DECIMAL),
    _optional("figure", _DECIMAL),
    _column("settings", BigInteger),
    unique=("order_id", "sequence", "event_time"),
)

positions = _table(
    "trade_positions",
    _column("portfolio", Text),
    _column("epoch", Integer),
    _column("symbol", Text),
    _column("order_id", Text),
    _column("sequence", Integer),
    _column("quantity", _DECIMAL),
    _column("average_cost", _DECIMAL),
    _column("realised", _DECIMAL),
    _column("unrealised", _DECIMAL),
    _column("fees", _DECIMAL),
    _column("cash", _DECIMAL),
    _column("start", _TIME),
    _column("event_time", _TIME),
    unique=("portfolio", "epoch", "symbol", "order_id", "sequence", "event_time"),
)

equity = _table(
    "trade_equity",
    _column("portfolio", Text),
    _column("epoch", Integer),
    _column("start", _TIME),
    _column("end", _TIME),
    _column("cash", _DECIMAL),
    _column("equity", _DECIMAL),
    _column("realised", _DECIMAL),
    _column("unrealised", _DECIMAL),
    _column("fees", _DECIMAL),
    _column("fills", BigInteger),
    _column("open_orders", Integer),
    _column("state", Text),
    _column("settings", BigInteger),
    unique=("portfolio", "epoch", "start"),
)

dead_letters = _table(
    "dead_letters",
    _column("stage", Text),
    _column("reason", Text),
    _column("error", Text),
    _column("input", Text),
    _column("topic", Text),
    _column("partition", Integer),
    _column("offset", BigInteger),
    _column("time", _TIME, "timestamp_ms"),
    _optional("key", LargeBinary),
    _optional("value", LargeBinary),
    _column("value_size", BigInteger),
    _optional("symbol", Text),
    unique=("stage", "input", "reason", "time"),
)

offsets = Table(
    "sink_offsets",
    metadata,
    Column("run", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("next_offset", BigInteger, nullable=False),
    Column("topic_id", Text, nullable=False, server_default=text("''")),
    PrimaryKeyConstraint("run", "topic", "partition"),
)
"""Where the sink goes on in each partition; written in the transaction of the rows below it.

``topic_id`` is the broker's, of the topic that the offsets are of; empty: not known (written by 0.1).
"""

conflicts = Table(
    "sink_conflicts",
    metadata,
    Column("run", Text, nullable=False),
    Column("table_name", Text, nullable=False),
    Column("held", JSONB, nullable=False),
    Column("copy", JSONB, nullable=False),
    Column("noted_at", _TIME, nullable=False, server_default=text("clock_timestamp()")),
)
"""Copies that differ from the record held under their identity: each is a failure of whoever wrote it."""
