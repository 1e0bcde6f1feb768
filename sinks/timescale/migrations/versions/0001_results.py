"""One hypertable per result topic, the sink's offsets, and the copies that differ."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

TABLES = """
create table market_bars (
    run text not null,
    symbol text not null,
    kind text not null,
    start timestamptz not null,
    "end" timestamptz not null,
    ordinal bigint not null,
    open double precision not null,
    high double precision not null,
    low double precision not null,
    close double precision not null,
    volume double precision not null,
    vwap double precision not null,
    count bigint not null,
    buy_volume double precision not null,
    sell_volume double precision not null,
    first_tick text not null,
    last_tick text not null,
    settings bigint not null,
    constraint market_bars_identity unique (run, symbol, kind, start, ordinal)
);

create table market_regimes (
    run text not null,
    symbol text not null,
    kind text not null,
    start timestamptz not null,
    "end" timestamptz not null,
    ordinal bigint not null,
    label text not null,
    previous text,
    bars_since_change bigint not null,
    warm boolean not null,
    probabilities jsonb not null,
    atr double precision not null,
    atr_slow double precision not null,
    adx double precision not null,
    plus_di double precision not null,
    minus_di double precision not null,
    band_middle double precision not null,
    band_upper double precision not null,
    band_lower double precision not null,
    band_width double precision not null,
    close double precision not null,
    classifier text not null,
    settings bigint not null,
    constraint market_regimes_identity unique (run, symbol, kind, start, ordinal)
);

create table market_regimes_hmm (
    run text not null,
    universe text not null,
    symbol text not null,
    start timestamptz not null,
    "end" timestamptz not null,
    label text not null,
    probabilities jsonb not null,
    fit bigint not null,
    settings bigint not null,
    constraint market_regimes_hmm_identity unique (run, universe, start, symbol)
);

create table market_ticks_late (
    run text not null,
    symbol text not null,
    name text not null,
    source text not null,
    session text not null,
    sequence bigint,
    event_time timestamptz not null,
    price double precision not null,
    size double precision not null,
    exchange text not null,
    conditions bigint not null,
    suspicious boolean not null,
    trade_id text,
    aggressor text,
    kinds text[] not null,
    mark timestamptz not null,
    reason text not null,
    constraint market_ticks_late_identity unique (run, symbol, name, event_time)
);

create table market_correlations (
    run text not null,
    universe text not null,
    start timestamptz not null,
    "end" timestamptz not null,
    kind text not null,
    model text not null,
    fit bigint,
    warm boolean not null,
    observations bigint not null,
    symbols text[] not null,
    stale boolean[] not null,
    volatilities double precision[] not null,
    correlations double precision[] not null,
    average_correlation double precision not null,
    settings bigint not null,
    constraint market_correlations_identity unique (run, universe, start)
);

create table snapshots (
    run text not null,
    portfolio text not null,
    universe text not null,
    start timestamptz not null,
    "end" timestamptz not null,
    kind text not null,
    rows jsonb not null,
    warm boolean not null,
    model text not null,
    fit bigint,
    covariance double precision[] not null,
    settings bigint not null,
    constraint snapshots_identity unique (run, portfolio, start)
);

create table risk_metrics (
    run text not null,
    portfolio text not null,
    epoch integer not null,
    start timestamptz not null,
    "end" timestamptz not null,
    equity double precision not null,
    gross double precision not null,
    net double precision not null,
    leverage double precision not null,
    volatility double precision not null,
    confidence double precision not null,
    value_at_risk double precision not null,
    conditional_value_at_risk double precision not null,
    drawdown double precision not null,
    daily_loss double precision not null,
    warm boolean not null,
    state text not null,
    exposures jsonb not null,
    settings bigint not null,
    constraint risk_metrics_identity unique (run, portfolio, epoch, start)
);

create table risk_alerts (
    run text not null,
    portfolio text not null,
    epoch integer not null,
    id text not null,
    kind text not null,
    start timestamptz not null,
    ordinal bigint not null,
    event_time timestamptz not null,
    previous text not null,
    state text not null,
    "limit" text,
    value numeric(28, 9),
    figure numeric(28, 9),
    command_id text,
    message text not null,
    constraint risk_alerts_identity unique (run, portfolio, epoch, id, event_time)
);

create table strategy_signals (
    run text not null,
    portfolio text not null,
    epoch integer not null,
    start timestamptz not null,
    "end" timestamptz not null,
    strategy text not null,
    symbol text not null,
    weight double precision not null,
    order_type text not null,
    limit_price numeric(28, 9),
    good_for integer not null,
    reason text not null,
    figures jsonb not null,
    settings bigint not null,
    constraint strategy_signals_identity unique (run, portfolio, epoch, start, strategy, symbol)
);

create table trade_executions (
    run text not null,
    portfolio text not null,
    epoch integer not null,
    order_id text not null,
    sequence integer not null,
    state text not null,
    strategy text not null,
    symbol text not null,
    side text not null,
    order_type text not null,
    quantity numeric(28, 9) not null,
    limit_price numeric(28, 9),
    last_quantity numeric(28, 9) not null,
    last_price numeric(28, 9),
    fee numeric(28, 9) not null,
    slippage numeric(28, 9) not null,
    filled numeric(28, 9) not null,
    average_price numeric(28, 9),
    decided_on timestamptz not null,
    start timestamptz not null,
    ordinal bigint not null,
    event_time timestamptz not null,
    reason text not null,
    "limit" text,
    value numeric(28, 9),
    figure numeric(28, 9),
    settings bigint not null,
    constraint trade_executions_identity unique (run, order_id, sequence, event_time)
);

create table trade_positions (
    run text not null,
    portfolio text not null,
    epoch integer not null,
    symbol text not null,
    order_id text not null,
    sequence integer not null,
    quantity numeric(28, 9) not null,
    average_cost numeric(28, 9) not null,
    realised numeric(28, 9) not null,
    unrealised numeric(28, 9) not null,
    fees numeric(28, 9) not null,
    cash numeric(28, 9) not null,
    start timestamptz not null,
    event_time timestamptz not null,
    constraint trade_positions_identity unique (run, portfolio, epoch, symbol, order_id, sequence, event_time)
);

create table trade_equity (
    run text not null,
    portfolio text not null,
    epoch integer not null,
    start timestamptz not null,
    "end" timestamptz not null,
    cash numeric(28, 9) not null,
    equity numeric(28, 9) not null,
    realised numeric(28, 9) not null,
    unrealised numeric(28, 9) not null,
    fees numeric(28, 9) not null,
    fills bigint not null,
    open_orders integer not null,
    state text not null,
    settings bigint not null,
    constraint trade_equity_identity unique (run, portfolio, epoch, start)
);

create table dead_letters (
    run text not null,
    stage text not null,
    reason text not null,
    error text not null,
    input text not null,
    topic text not null,
    partition integer not null,
    "offset" bigint not null,
    time timestamptz not null,
    key bytea,
    value bytea,
    value_size bigint not null,
    symbol text,
    constraint dead_letters_identity unique (run, stage, input, reason, time)
);

create table sink_offsets (
    run text not null,
    topic text not null,
    partition integer not null,
    next_offset bigint not null,
    primary key (run, topic, partition)
);

create table sink_conflicts (
    run text not null,
    table_name text not null,
    held jsonb not null,
    copy jsonb not null,
    noted_at timestamptz default clock_timestamp() not null
);
"""

# Table, column of event time, days in a chunk. Bars and regimes are many; elsewhere few chunks keep the
# look-up of an identity without its time cheap.
HYPERTABLES = (
    ("market_bars", "start", 1),
    ("market_regimes", "start", 1),
    ("market_regimes_hmm", "start", 30),
    ("market_ticks_late", "event_time", 30),
    ("market_correlations", "start", 30),
    ("snapshots", "start", 30),
    ("risk_metrics", "start", 30),
    ("risk_alerts", "event_time", 30),
    ("strategy_signals", "start", 30),
    ("trade_executions", "event_time", 30),
    ("trade_positions", "event_time", 30),
    ("trade_equity", "start", 30),
    ("dead_letters", "time", 30),
)


def upgrade() -> None:
    op.execute("create extension if not exists timescaledb")
    op.execute(TABLES)
    for table, time, days in HYPERTABLES:
        op.execute(
            f"select create_hypertable('{table}', by_range('{time}', interval '{days} days'),"
            " create_default_indexes => false)"
        )


def downgrade() -> None:
    op.execute("drop table sink_conflicts, sink_offsets")
    for table, _, _ in HYPERTABLES:
        op.execute(f"drop table {table}")
